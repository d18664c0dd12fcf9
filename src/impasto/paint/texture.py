"""Textures: a picture of any size that has the style of a painting and nothing else of it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.base import BorderLoss, Loss, StyleLoss, TotalVariationLoss
from impasto.losses.objective import Objective
from impasto.losses.styles import Statistic
from impasto.optimise.base import Beyond, Callback, Optimiser, Spectrum
from impasto.paint.artworks import Artwork, make
from impasto.paint.levels import GROWTH, Level, Pyramid, enlarged, plan_levels
from impasto.paint.run import Painting, Scene
from impasto.paint.studio import Exemplar, Studio, canonical, named
from impasto.paint.stylize import Source
from impasto.pictures import images
from impasto.pictures.images import Picture
from impasto.settings import TextureSettings, block_of, choose, shares_of

PAINTING_SIZE = 512
"""The longer side of a painting that nothing is said of, unless it is smaller."""

BORDERS = {"1": 0.03, "2": 0.1, "3": 0.3, "4": 1.0, "5": 1.0}
"""Weight of the smoothness across the outermost pixels, see `BorderLoss`, by the deepest block.

With more of it there are stripes, with less the frame that it is there to prevent.
"""

WEIGHT = 10.0
"""Of all style layers together, against total variation and border."""

CONTRAST = 0.15
"""Standard deviation of the noise that a texture starts from."""

MARGIN = 4
"""Of a layer's positions at a painting's border, how many a texture without border looks past."""


@ordinary()
def texture(painting: Source, *, callback: Callback | None = None, **settings: Any) -> Artwork:
    """From noise, a picture that matches a painting's style statistics and nothing else.

    Gatys, Ecker & Bethge 2015 (arXiv:1505.07376), eqs. 2 to 4; there from white noise, here from
    noise whose amplitude falls with 1/f, as that of pictures does: what a layer does not see of
    white noise stays as grain. Tileable ones are computed with circular padding: the network sees
    the texture repeated without end, so there is no border anywhere that a seam could be at.

    Args:
        painting: a picture file or a PIL image.
        callback: called with every `Step`, the start (step 0) included.
        **settings: see `TextureSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    chosen = choose(TextureSettings, settings)
    picture = images.read_visible(painting)
    shares = shares_of(chosen.layers)
    studio = Studio(chosen, shares, "circular" if chosen.tileable else "zeros")
    shares = canonical(shares, studio.encoder.layer)
    width, height = size = chosen.size[0], chosen.size[1]
    studio.check_size("the texture", size, list(shares))
    longer = chosen.painting_size or min(PAINTING_SIZE, max(picture.image.size))
    studio.check_size(picture.name, images.fitted_size(picture.image.size, longer), list(shares))
    period = studio.encoder.min_size(shares)
    if chosen.tileable and (width % period or height % period):
        raise ImpastoError(
            f"a tileable texture of {width} x {height} pixels cannot repeat without a seam; its "
            f"sides have to be multiples of {period} for these layers, such as "
            f"{_multiple(width, period)}x{_multiple(height, period)}"
        )
    studio.pictures = math.prod(picture.image.size)
    looked_at = images.fitted_size(picture.image.size, longer)
    studio.tell_of_memory(size, paintings=[(picture.name, looked_at)])
    scene = _Scene(studio, picture, longer, shares)

    def is_possible(at: tuple[int, int]) -> bool:
        shrunk = images.fitted_size(picture.image.size, round(longer * max(at) / max(size)))
        if min(*at, *shrunk) < period:
            return False
        if not chosen.tileable:
            return True
        factors = {own / side for own, side in zip(size, at, strict=True)}
        whole = len(factors) == 1 and factors.pop().is_integer()
        return whole and not any(side % period for side in at)

    levels = plan_levels(size, chosen.steps, chosen.levels, is_possible, GROWTH)
    record = studio.record("texture", size, layers=shares, painting_size=longer)
    record["painting"] = named(picture)
    return make(
        Painting(scene, levels, chosen.evaluations), "the texture", record, callback=callback
    )


def _multiple(length: int, period: int) -> int:
    return max(period, round(length / period) * period)


class _Scene(Scene):
    """A texture as `Painting` sees it: noise at first, and no photo."""

    pyramid: Pyramid = GROWTH
    spectrum: Spectrum = "noise"

    def __init__(
        self, studio: Studio, painting: Picture, longer: int, shares: dict[str, float]
    ) -> None:
        self.studio = studio
        assert isinstance(studio.settings, TextureSettings)
        self.settings = studio.settings
        self.painting = painting
        self.longer = longer
        self.shares = shares
        self.beyond: Beyond = "repeated" if self.settings.tileable else "mirrored"

    def content(self, level: Level) -> Tensor:
        width, height = level.size
        return _clouds(self.studio.noise((1, 3, height, width)))

    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]:
        scale = max(level.size) / max(self.settings.size)
        size = images.fitted_size(self.painting.image.size, round(self.longer * scale))
        image = self.studio.tensor(images.resize(self.painting.colors, size))
        painting = [Exemplar(image, visible=self.studio.visible(self.painting, size))]
        styles = self.studio.styles(self.settings.style_loss, self.shares, painting)
        statistics = {
            layer: Statistic(layer, style, self._inside(layer, size))
            for layer, style in styles.items()
        }
        targets = self.studio.mixed(painting, statistics)
        total = sum(self.shares.values())
        losses: list[Loss] = [
            StyleLoss(layer, targets[layer], WEIGHT * share / total, style=styles[layer])
            for layer, share in self.shares.items()
        ]
        if self.settings.tv:
            losses.append(TotalVariationLoss(self.settings.tv))
        if not self.settings.tileable:  # which has no border
            deepest = max(self.shares, key=self.studio.encoder.layers.index)
            losses.append(BorderLoss(BORDERS[block_of(deepest)]))
        return self.studio.objective(losses, content), self.studio.optimiser(content)

    def start(self, level: Level, content: Tensor) -> Tensor:
        del level
        return content

    def _inside(self, layer: str, size: tuple[int, int]) -> Tensor | None:
        """Where a texture without a border looks at a painting of (width, height), which has one.

        There, straight lines along the zeros of the padding are no part of its style.
        """
        if not self.settings.tileable:
            return None
        width, height = (side // self.studio.encoder.min_size([layer]) for side in size)
        area = torch.zeros(1, 1, height, width, dtype=torch.float32, device="cpu")
        left, top = (min(MARGIN, side // 4) for side in (width, height))
        area[..., top : height - top, left : width - left] = 1
        return (area / area.mean()).to(self.studio.device)

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:
        del before
        size = level.size[1], level.size[0]
        if not self.settings.tileable:
            return enlarged(painted, size)
        margin = 4  # what a bicubic filter reaches, and more
        wrapped = F.pad(painted, (margin,) * 4, mode="circular")
        factor = size[0] // painted.shape[-2]
        whole = enlarged(wrapped, [factor * side for side in wrapped.shape[-2:]])
        inset = margin * factor
        return whole[..., inset:-inset, inset:-inset]


def _clouds(noise: Tensor) -> Tensor:
    """White noise [1, 3, height, width] as noise whose amplitude falls with 1/f; it repeats."""
    height, width = noise.shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float32, device="cpu")
    columns = torch.fft.rfftfreq(width, dtype=torch.float32, device="cpu")
    gains = torch.hypot(rows[:, None], columns).reciprocal()
    gains[0, 0] = 0  # no mean; to divide it by infinity gives no number in some builds of torch
    clouds: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise.cpu()) * gains, (height, width))
    spread = clouds.std(correction=0).clamp_min(1e-6)
    return (0.5 + CONTRAST / spread * clouds).clamp(0, 1).to(noise)
