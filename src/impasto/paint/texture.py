"""Textures: a picture of any size that has the style of a painting and nothing else of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import catalog
from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.base import Loss
from impasto.losses.objective import Objective
from impasto.losses.smoothness import TotalVariationLoss
from impasto.losses.styles import Exemplar, Statistic
from impasto.optimise.base import Beyond, Callback, Optimiser, Spectrum
from impasto.paint.artworks import Artwork
from impasto.paint.levels import GROWTH, Level, Pyramid, enlarged, plan_levels
from impasto.paint.run import Painting, Problem, finish
from impasto.paint.studio import Studio, clouds, named
from impasto.pictures import images
from impasto.pictures.images import Picture, Source
from impasto.settings import PAINTING_SIZE, TextureSettings, choose

WEIGHT = 10.0
"""Of all style layers together, against total variation."""

INSET = 4
"""Of a layer's positions at a painting's border, how many a texture looks past."""

OVERHANG = 1.2
"""How much larger, in pixels, a texture may be grown than it is, to have more levels."""


def texture(
    painting: Source,
    *,
    settings: TextureSettings | None = None,
    callback: Callback | None = None,
    **choices: Any,
) -> Artwork:
    """From noise, a picture that matches a painting's style statistics and nothing else.

    Gatys, Ecker & Bethge 2015 (arXiv:1505.07376), eqs. 2 to 4; there from white noise, here from
    noise whose amplitude falls with 1/f. It is grown with circular padding: the network sees it
    repeated without end, so there is no border anywhere, and no frame or seam that could be at
    one. What is not to be tileable is cut out of one that is.

    Args:
        painting: a picture file or a PIL image.
        settings: how to, where that was put together before.
        callback: called with every `Step`, the start (step 0) included.
        **choices: single settings, see `TextureSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    return finish(start(painting, settings=settings, **choices), callback)


@ordinary()
def start(painting: Source, *, settings: TextureSettings | None = None, **choices: Any) -> Painting:
    """Begin to grow a `texture`: whoever iterates paints, step by step."""
    chosen = choose(TextureSettings, settings, choices)
    picture = images.read_visible(painting)
    studio = Studio(chosen, "circular")
    encoder = studio.encoder
    shares = encoder.shares(list(encoder.style_layers) if chosen.layers is None else chosen.layers)
    studio.read(shares)
    width, height = size = chosen.size[0], chosen.size[1]
    studio.check_size("the texture", size, list(shares))
    longer = chosen.painting_size or min(PAINTING_SIZE, max(picture.image.size))
    looked_at = images.fitted_size(picture.image.size, longer)
    studio.check_size(picture.name, looked_at, list(shares))
    period = encoder.min_size(shares)
    if chosen.tileable and (width % period or height % period):
        raise ImpastoError(
            f"a tileable texture of {width} x {height} pixels cannot repeat without a seam; its "
            f"sides have to be multiples of {period} for these layers, such as "
            f"{_multiple(width, period)}x{_multiple(height, period)}"
        )
    whole = size if chosen.tileable else _repeating(size, period, chosen.levels)
    studio.pictures = math.prod(picture.image.size)
    studio.tell_of_memory(whole, paintings=[(picture.name, looked_at)])

    def is_possible(at: tuple[int, int]) -> bool:
        shrunk = images.fitted_size(picture.image.size, round(longer * max(at) / max(whole)))
        factors = {own / side for own, side in zip(whole, at, strict=True)}
        is_whole = len(factors) == 1 and factors.pop().is_integer()
        fits = min(*at, *shrunk) >= period and not any(side % period for side in at)
        return fits and is_whole

    levels = plan_levels(whole, chosen.steps, chosen.levels, is_possible, GROWTH)
    record = studio.record("texture", size, layers=shares, painting_size=longer)
    record["painting"] = named(picture)
    problem = _Growth(studio, chosen, picture, longer, shares, whole)
    return Painting(
        problem, levels, "the texture", record, size=size, evaluations=chosen.evaluations
    )


def _multiple(length: int, period: int) -> int:
    return max(period, round(length / period) * period)


def _repeating(size: tuple[int, int], period: int, count: int | None) -> tuple[int, int]:
    """The smallest (width, height) that covers `size` and repeats, at all levels.

    At fewer levels than it could have where it would be much larger.
    """
    asked = count or (1 if max(size) < GROWTH.one_scale else 16)
    for levels in range(asked, 0, -1):
        unit = period << (levels - 1)
        width, height = (-(-side // unit) * unit for side in size)
        if width * height <= OVERHANG * size[0] * size[1]:
            break
    return width, height


class _Growth(Problem):
    """A texture as `Painting` sees it: noise at first, and no photo."""

    pyramid: Pyramid = GROWTH
    spectrum: Spectrum = "noise"
    beyond: Beyond = "repeated"

    def __init__(
        self,
        studio: Studio,
        settings: TextureSettings,
        painting: Picture,
        longer: int,
        shares: Mapping[str, float],
        whole: tuple[int, int],
    ) -> None:
        self.studio = studio
        self.settings = settings
        self.painting = painting
        self.longer = longer
        self.shares = shares
        self.whole = whole

    def limits(self) -> Mapping[str, Any]:
        return self.studio.limits()

    def content(self, level: Level) -> Tensor:
        width, height = level.size
        return clouds(self.studio.noise((1, 3, height, width)))

    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]:
        scale = max(level.size) / max(self.whole)
        size = images.fitted_size(self.painting.image.size, round(self.longer * scale))
        image = self.studio.tensor(images.resize(self.painting.colours, size))
        painting = Exemplar(image, visible=self.studio.visible(self.painting, size))
        style = catalog.STYLES[self.settings.style_loss].made(self.settings)
        losses: list[Loss] = [
            dataclasses.replace(loss, weight=WEIGHT * loss.weight)
            for loss in style.losses(self._measure, [painting], self.shares)
        ]
        if self.settings.tv:
            losses.append(TotalVariationLoss(self.settings.tv))
        return self.studio.objective(losses, content), self.studio.optimiser(content)

    def _measure(
        self, paintings: Sequence[Exemplar], statistics: Mapping[str, Statistic]
    ) -> dict[str, Tensor]:
        """Statistics of the painting's inside; a texture has no border, and the painting has one.

        There, straight lines along the zeros of the padding are no part of its style.
        """
        height, width = paintings[0].image.shape[-2:]
        inside = {
            name: dataclasses.replace(s, area=self._inside(s.layer, (width, height)))
            for name, s in statistics.items()
        }
        return self.studio.mixed(paintings, inside)

    def _inside(self, layer: str, size: tuple[int, int]) -> Tensor:
        width, height = (side // self.studio.encoder.min_size([layer]) for side in size)
        area = torch.zeros(1, 1, height, width, dtype=torch.float32, device="cpu")
        left, top = (min(INSET, side // 4) for side in (width, height))
        area[..., top : height - top, left : width - left] = 1
        return (area / area.mean()).to(self.studio.device)

    def start(self, level: Level, content: Tensor) -> Tensor:
        del level
        return content

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:
        del before
        margin = 4  # what a bicubic filter reaches, and more
        wrapped = F.pad(painted, (margin,) * 4, mode="circular")
        factor = level.size[1] // painted.shape[-2]
        whole = enlarged(wrapped, [factor * side for side in wrapped.shape[-2:]])
        inset = margin * factor
        return whole[..., inset:-inset, inset:-inset]

    def show(self, level: Level, image: Tensor) -> Tensor:
        width, height = (
            max(1, round(side * own / whole))
            for side, own, whole in zip(level.size, self.settings.size, self.whole, strict=True)
        )
        return image[..., :height, :width].contiguous()
