"""How far a picture is from the photo in content and from the painting in style.

Every loss here is a function of sums over positions (`SumLoss`), so that it can be computed in
tiles. What style is, is in `styles`.

Symbols: F features of one layer [C, N], N = height * width positions; P the photo's features;
G = F F^T / N the picture's Gram matrix, A the painting's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from impasto.encoders.tiles import Part
from impasto.encoders.vgg import IMAGE
from impasto.errors import ImpastoError
from impasto.losses.styles import (
    GRAM,
    Gram,
    Statistic,
    Style,
    exact_sum,
    inverse_energy,
    squared_error,
)
from impasto.settings import Scaling

BORDER = 3
"""How many pixels of each side `border_variation` looks at."""


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of an image [batch, C, height, width].

    Mahendran & Vedaldi 2015 (arXiv:1412.0035), section 3, with exponent beta = 2. A picture of
    one row or column has no neighbours in that direction; they count as zero.
    """
    vertical, horizontal = image.diff(dim=-2), image.diff(dim=-1)
    return (exact_sum(vertical.square()) + exact_sum(horizontal.square())) / image.numel()


def border_variation(image: Tensor, width: int = BORDER) -> Tensor:
    """The part of `total_variation` that lies across the outermost `width` pixels of each side.

    Squared differences of neighbours along the normal of the side, summed, divided by the number
    of values of the whole image [batch, C, height, width].
    """
    n = width + 1
    rows = (image[..., :n, :].diff(dim=-2), image[..., -n:, :].diff(dim=-2))
    columns = (image[..., :n].diff(dim=-1), image[..., -n:].diff(dim=-1))
    sums = [exact_sum(differences.square()) for differences in (*rows, *columns)]
    return torch.stack(sums).sum() / image.numel()


class Loss(Protocol):
    """One term of an objective: a distance that is computed from one layer.

    `name` is unique in an objective, `layer` is the layer it reads, `weight` is what the
    objective multiplies it by; calling it with the layer's activations [batch, C, height, width]
    gives a scalar tensor.
    """

    @property
    def name(self) -> str: ...
    @property
    def layer(self) -> str: ...
    @property
    def weight(self) -> float: ...
    def __call__(self, features: Tensor, /) -> Tensor: ...


@runtime_checkable
class SumLoss(Loss, Protocol):
    """A loss that is a function of sums over positions: it can be computed in tiles, exactly.

    `sums` is what a part of the layer adds to the sums, `value` the loss that follows from the
    sums over a whole layer of (height, width). Calling it is one after the other.
    """

    def sums(self, features: Tensor, part: Part) -> Tensor: ...
    def value(self, sums: Tensor, size: tuple[int, int]) -> Tensor: ...


@dataclass(frozen=True)
class ContentLoss:
    """Squared error of a layer's activations.

    | scaling    | value                                                  |
    | ---------- | ------------------------------------------------------ |
    | `relative` | sum (F - P)^2 / sum P^2: 0 at the photo, 1 for a blank |
    | `gatys`    | 1/2 sum (F - P)^2 (Gatys et al. 2015, eq. 1)           |
    | `lecture`  | mean (F - P)^2                                         |

    floor: the least that the mean of P^2 counts as, with relative scaling. A flat photo of the
    colour that the encoder calls the mean has next to no activations: relative to those, any
    stroke would be a loss beyond all measure.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"
    floor: float = 0.0

    @property
    def name(self) -> str:
        return f"content {self.layer}"

    def __call__(self, features: Tensor) -> Tensor:
        return self._factor * squared_error(features, self.target)

    def sums(self, features: Tensor, part: Part) -> Tensor:
        target = self.target[(..., *part.core)]
        return squared_error(part.core_of(features), target)

    def value(self, sums: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ARG002
        return self._factor * sums

    @property
    def _factor(self) -> float:
        if self.scaling == "gatys":
            return 0.5
        if self.scaling == "lecture":
            return 1 / self.target.numel()
        return min(inverse_energy(self.target), self._most)

    @property
    def _most(self) -> float:
        return 1 / (self.floor * self.target.numel()) if self.floor else math.inf


@dataclass(frozen=True)
class StyleLoss:
    """How far a layer's style is from a painting's: the distance of two statistics.

    | scaling    | value                                                                       |
    | ---------- | --------------------------------------------------------------------------- |
    | `relative` | the distance of the `style`; of Gram matrices, sum (G - A)^2 / sum A^2      |
    | `gatys`    | 1/4 C^-2 sum (G - A)^2 = 1/(4 C^2 N^2) sum (N G - N A)^2 (eq. 4)            |
    | `lecture`  | mean (G/C - A/C)^2: the Gram matrix divided by the number of elements of F  |

    Gatys' eq. 4 is written for a painting as large as the picture, with Gram matrices that are
    sums. With means it reads the same there and stays meaningful when the sizes differ. The
    published scalings are those of Gram matrices only.

    target: the painting's statistic. area: weights [1, 1, height, width] at the layer's
    positions, of mean 1, where only a part of the picture is to have this style; place: its name.

    Raises:
        ImpastoError: a published scaling with another style than Gram matrices.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"
    style: Style = GRAM
    area: Tensor | None = None
    place: str = ""

    def __post_init__(self) -> None:
        if self.scaling != "relative" and not isinstance(self.style, Gram):
            raise ImpastoError(
                f"the scaling {self.scaling!r} is one of Gram matrices; "
                f"use 'relative' with {self.style.name}"
            )

    @property
    def name(self) -> str:
        return f"style {self.layer}" + (f" in {self.place}" if self.place else "")

    @property
    def statistic(self) -> Statistic:
        """What is computed of the layer."""
        return Statistic(self.layer, self.style, self.area)

    def __call__(self, features: Tensor) -> Tensor:
        return self.distance(self.statistic(features))

    def distance(self, statistic: Tensor) -> Tensor:
        """The loss as a function of the statistic alone."""
        if self.scaling == "relative":
            return self.style.distance(statistic, self.target)
        channels = self.target.shape[-1]
        each = 4 * channels**2 if self.scaling == "gatys" else channels**2 * self.target.numel()
        return squared_error(statistic, self.target) / each

    def sums(self, features: Tensor, part: Part) -> Tensor:
        return self.statistic(features, part) * part.positions

    def value(self, sums: Tensor, size: tuple[int, int]) -> Tensor:
        return self.distance((sums / (size[0] * size[1])).to(self.target))


@dataclass(frozen=True)
class TotalVariationLoss:
    """`total_variation` of the image itself."""

    weight: float = 1.0

    name = "total variation"
    layer = IMAGE

    def __call__(self, image: Tensor) -> Tensor:
        return total_variation(image)

    def sums(self, image: Tensor, part: Part) -> Tensor:
        height, width = part.size
        return _squared_steps(image, part, range(height - 1), range(width - 1))

    def value(self, sums: Tensor, size: tuple[int, int]) -> Tensor:
        return sums / (size[0] * size[1])


@dataclass(frozen=True)
class BorderLoss:
    """`border_variation` of the image itself: keeps frames away.

    To the encoder, its zero padding is a sharp edge all around a picture. Style alone makes the
    optimiser answer it with a coloured frame, one to three pixels wide.
    """

    weight: float = 1.0

    name = "border"
    layer = IMAGE

    def __call__(self, image: Tensor) -> Tensor:
        return border_variation(image)

    def sums(self, image: Tensor, part: Part) -> Tensor:
        ends = [[range(n - 1)[:BORDER], range(n - 1)[-BORDER:]] for n in part.size]
        first, last = zip(*ends, strict=True)
        return _squared_steps(image, part, *first) + _squared_steps(image, part, *last)

    def value(self, sums: Tensor, size: tuple[int, int]) -> Tensor:
        return sums / (size[0] * size[1])


def not_in_tiles(name: str) -> ImpastoError:
    """What a loss says that has to see the whole picture at once."""
    return ImpastoError(
        f"{name} is no function of sums over positions, so it cannot be computed in tiles; "
        "allow more memory, or use a smaller size"
    )


def _squared_steps(image: Tensor, part: Part, rows: range, columns: range) -> Tensor:
    """Squared differences from the core's pixels to the next below and right, summed.

    Only those from the given rows down and from the given columns right; divided by channels.
    """
    top, left = (span.start for span in part.crop)
    core_rows, core_columns = part.core
    down = range(max(rows.start, core_rows.start), min(rows.stop, core_rows.stop))
    right = range(max(columns.start, core_columns.start), min(columns.stop, core_columns.stop))
    across = slice(core_columns.start - left, core_columns.stop - left)
    along = slice(core_rows.start - top, core_rows.stop - top)
    total = exact_sum(image.new_zeros(1))
    if down:
        vertical = image[..., down.start - top : down.stop - top + 1, across].diff(dim=-2)
        total = total + exact_sum(vertical.square())
    if right:
        horizontal = image[..., along, right.start - left : right.stop - left + 1].diff(dim=-1)
        total = total + exact_sum(horizontal.square())
    return total / image.shape[1]
