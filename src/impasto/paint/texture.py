"""Textures: pictures of any size that have the style of a painting and nothing else of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import catalog
from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.base import Loss
from impasto.losses.styles import Exemplar, Statistic, Style
from impasto.optimise.base import Callback
from impasto.paint.artworks import Artwork
from impasto.paint.levels import GROWTH, Level, enlarged, plan_levels
from impasto.paint.run import Painting, Problem, finish
from impasto.paint.studio import Studio, clouds
from impasto.pictures import images
from impasto.pictures.images import Picture, Source
from impasto.settings import PAINTING_SIZE, TextureSettings, choose

WEIGHT = 10.0
"""The weight of all style layers together, relative to the total variation."""

INSET = 4
"""How many positions at the border of a painting's layers are not measured."""

OVERHANG = 1.2
"""How many times its own pixels a texture may be grown at, to have more levels."""


def texture(
    painting: Source,
    *,
    settings: TextureSettings | None = None,
    callback: Callback | None = None,
    **choices: Any,
) -> Artwork:
    """Paint, from noise, a picture that matches a painting's style statistics and nothing else.

    Gatys, Ecker & Bethge 2015 (arXiv:1505.07376), eqs. 2 to 4. They start from white noise, impasto
    from noise whose amplitude falls with 1/f. The network sees the texture repeated without end
    (circular padding), so that no frame or seam can form at a border. A texture that need not be
    tileable is cut out of one that is.

    Args:
        painting: a picture file or a PIL image.
        settings: the settings to begin with, instead of the defaults.
        callback: called with every `Step`, the start (step 0) included.
        **choices: single settings by name, see `TextureSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C was pressed; it carries the picture so far.
    """
    return finish(start(painting, settings=settings, **choices), callback)


@ordinary()
def start(painting: Source, *, settings: TextureSettings | None = None, **choices: Any) -> Painting:
    """Begin to grow a `texture`; iterating over the result paints, step by step."""
    chosen = choose(TextureSettings, settings, choices)
    return Painting(_Growth(images.read_visible(painting), chosen))


class _Growth(Problem):
    name = "the texture"
    spectrum, beyond = "noise", "repeated"

    def __init__(self, painting: Picture, settings: TextureSettings) -> None:
        self.painting, self.tv = painting, settings.tv
        self.style: Style = catalog.STYLES[settings.style_loss].made(settings)
        self.studio = studio = Studio(settings, "circular")
        shares = studio.encoder.shares(settings.layers or list(studio.encoder.style_layers))
        studio.read(shares)
        self.shares, self.size = shares, (settings.size[0], settings.size[1])
        studio.check_size("the texture", self.size, shares)
        own = painting.image.size
        self.longer = settings.painting_size or min(PAINTING_SIZE, max(own))
        looked_at = images.fitted_size(own, self.longer)
        studio.check_size(painting.name, looked_at, shares)
        self.period = studio.encoder.min_size(shares)
        self.whole = self._whole(settings)
        studio.make_room(self.whole, [painting], paintings=[(painting.name, looked_at)])
        self.levels = plan_levels(
            self.whole, settings.steps, settings.levels, self._is_possible, GROWTH
        )
        self.record = studio.record(
            "texture", self.size, {"painting": painting}, layers=shares, painting_size=self.longer
        )

    def _whole(self, settings: TextureSettings) -> tuple[int, int]:
        """The (width, height) of the repeating picture that the texture is cut out of.

        It is the smallest that repeats at all levels. If that would be much larger than the
        texture, it has to repeat at fewer levels only.
        """
        width, height = self.size
        if settings.tileable:
            near = [max(1, round(side / self.period)) * self.period for side in self.size]
            if near != [width, height]:
                raise ImpastoError(
                    f"a tileable texture of {width} x {height} pixels cannot repeat without a "
                    f"seam; its sides have to be multiples of {self.period} for these layers, such "
                    f"as {near[0]}x{near[1]}"
                )
            return self.size
        most = settings.levels or (1 if max(self.size) < GROWTH.one_scale else 16)
        for levels in range(most, 0, -1):
            unit = self.period << (levels - 1)
            width, height = (-(-side // unit) * unit for side in self.size)
            if width * height <= OVERHANG * math.prod(self.size):
                break
        return width, height

    def _painting_at(self, size: tuple[int, int]) -> tuple[int, int]:
        """The painting's size at the level where the whole has this `size`."""
        longer = round(self.longer * max(size) / max(self.whole))
        return images.fitted_size(self.painting.image.size, longer)

    def _is_possible(self, size: tuple[int, int]) -> bool:
        """Whether this size repeats, fits all layers, and divides the whole without remainder."""
        factor = max(self.whole) // max(size)
        repeats = not any(side % self.period for side in size)
        fits = min(*size, *self._painting_at(size)) >= self.period
        return repeats and fits and self.whole == (factor * size[0], factor * size[1])

    def content(self, level: Level) -> Tensor:
        width, height = level.size
        return clouds(self.studio.noise((1, 3, height, width)))

    def losses(self, level: Level, content: Tensor, begun: Tensor) -> list[Loss]:  # noqa: ARG002
        painting = self.studio.exemplar(self.painting, self._painting_at(level.size))
        losses: Sequence[Any] = self.style.losses(self._measure, [painting], self.shares)
        return [dataclasses.replace(loss, weight=WEIGHT * loss.weight) for loss in losses]

    def _measure(
        self,
        paintings: Sequence[Exemplar],
        statistics: Mapping[str, Statistic],
        features: Iterable[str] = (),
    ) -> dict[str, Tensor]:
        """Statistics without the painting's border: lines along zero padding are not its style."""
        inside = {}
        for name, statistic in statistics.items():
            row = self.studio.encoder.rows[statistic.layer]
            height, width = map(row.positions, paintings[0].image.shape[-2:])
            top, left = (min(INSET, side // 4) for side in (height, width))
            area = torch.zeros(1, 1, height, width, dtype=torch.float32, device="cpu")
            area[..., top : height - top, left : width - left] = 1
            area = (area / area.mean()).to(self.studio.device)
            inside[name] = dataclasses.replace(statistic, area=area)
        return self.studio.mixed(paintings, inside, features)

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:  # noqa: ARG002
        margin = 4  # more than a bicubic filter reaches
        wrapped = F.pad(painted, (margin,) * 4, mode="circular")
        factor = level.size[1] // painted.shape[-2]
        whole = enlarged(wrapped, [factor * side for side in wrapped.shape[-2:]])
        inset = margin * factor
        return whole[..., inset:-inset, inset:-inset]

    def show(self, level: Level, image: Tensor) -> Tensor:
        width, height = (
            max(1, round(side * own / whole))
            for side, own, whole in zip(level.size, self.size, self.whole, strict=True)
        )
        return image[..., :height, :width].contiguous()
