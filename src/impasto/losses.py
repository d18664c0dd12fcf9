"""How far a picture is from the photo in content and from the painting in style.

A style *statistic* is a mean over positions of a function of the features; a style *loss* is a
function of that statistic and the painting's. The two are kept apart, so that a statistic can be
summed over parts of a picture or mixed over several paintings without the loss knowing.

Symbols: F features of one layer [C, N], N = height * width positions; P the photo's features;
G = F F^T / N the picture's Gram matrix, A the painting's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from impasto import compiled
from impasto.errors import ImpastoError
from impasto.settings import Scaling
from impasto.tiles import Part
from impasto.vgg import IMAGE

BORDER = 3
"""How many pixels of each side `border_variation` looks at."""

Statistic = Callable[[Tensor], Tensor]
_MEANS: set[Callable[..., Tensor]] = set()
_Declared = TypeVar("_Declared", bound=Callable[..., Tensor])


def mean_over_positions(statistic: _Declared) -> _Declared:
    """Declare that a statistic is a mean over positions of a function of the features there.

    Its mean over a picture then follows from its means over tiles. A decorator.
    """
    _MEANS.add(statistic)
    return statistic


@mean_over_positions
def gram(features: Tensor, part: Part | None = None) -> Tensor:
    """Gram matrices [batch, C, C] of features [batch, C, height, width]: G = F F^T / N.

    Which channels are active together, wherever that is: positions are summed out. Gatys et al.
    2015, eq. 3, divided by the number of positions so that it does not grow with the picture.
    With `part`, of its core alone.
    """
    if compiled.suits(features) and features.shape[1] >= 64:
        return compiled.gram(features, part.core_in_crop if part else None)
    if part:
        features = part.core_of(features)
    # Positions first: the layout in which channels-last features lie in memory.
    f = features.flatten(2).transpose(1, 2)
    return f.transpose(1, 2) @ f / f.shape[1]


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences, a scalar tensor in float64 on the CPU."""
    return _sum((x - target).square())


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of an image [batch, C, height, width].

    Mahendran & Vedaldi 2015 (arXiv:1412.0035), section 3, with exponent beta = 2. A picture of
    one row or column has no neighbours in that direction; they count as zero.
    """
    vertical, horizontal = image.diff(dim=-2), image.diff(dim=-1)
    return (_sum(vertical.square()) + _sum(horizontal.square())) / image.numel()


def border_variation(image: Tensor, width: int = BORDER) -> Tensor:
    """The part of `total_variation` that lies across the outermost `width` pixels of each side.

    Squared differences of neighbours along the normal of the side, summed, divided by the number
    of values of the whole image [batch, C, height, width].
    """
    n = width + 1
    rows = (image[..., :n, :].diff(dim=-2), image[..., -n:, :].diff(dim=-2))
    columns = (image[..., :n].diff(dim=-1), image[..., -n:].diff(dim=-1))
    sums = [_sum(differences.square()) for differences in (*rows, *columns)]
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
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"

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
        return _inverse_energy(self.target)


@dataclass(frozen=True)
class StyleLoss:
    """Squared error of a statistic of a layer's activations, by default of their Gram matrix.

    | scaling    | value                                                                       |
    | ---------- | --------------------------------------------------------------------------- |
    | `relative` | sum (G - A)^2 / sum A^2                                                     |
    | `gatys`    | 1/4 C^-2 sum (G - A)^2 = 1/(4 C^2 N^2) sum (N G - N A)^2 (eq. 4)            |
    | `lecture`  | mean (G/C - A/C)^2: the Gram matrix divided by the number of elements of F  |

    Gatys' eq. 4 is written for a painting as large as the picture, with Gram matrices that are
    sums. With means it reads the same there and stays meaningful when the sizes differ.

    In tiles, `statistic` has to be a `mean_over_positions`.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"
    statistic: Statistic = gram

    @property
    def name(self) -> str:
        return f"style {self.layer}"

    def __call__(self, features: Tensor) -> Tensor:
        return self.distance(self.statistic(features))

    def distance(self, statistic: Tensor) -> Tensor:
        """The loss as a function of the statistic alone."""
        return self._factor * squared_error(statistic, self.target)

    def sums(self, features: Tensor, part: Part) -> Tensor:
        if self.statistic not in _MEANS:
            name = getattr(self.statistic, "__name__", "statistic")
            raise not_in_tiles(f"{self.name} with {name}")
        if self.statistic is gram:  # which need not have the core cut out
            return gram(features, part) * part.positions
        return self.statistic(part.core_of(features)) * part.positions

    def value(self, sums: Tensor, size: tuple[int, int]) -> Tensor:
        return self.distance((sums / (size[0] * size[1])).to(self.target))

    @property
    def _factor(self) -> float:
        channels = self.target.shape[-1]
        if self.scaling == "gatys":
            return 1 / (4 * channels**2)
        if self.scaling == "lecture":
            return 1 / (channels**2 * self.target.numel())
        return _inverse_energy(self.target)


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
    total = _sum(image.new_zeros(1))
    if down:
        vertical = image[..., down.start - top : down.stop - top + 1, across].diff(dim=-2)
        total = total + _sum(vertical.square())
    if right:
        horizontal = image[..., along, right.start - left : right.stop - left + 1].diff(dim=-1)
        total = total + _sum(horizontal.square())
    return total / image.shape[1]


def _inverse_energy(target: Tensor) -> float:
    """1 / sum target^2; a target of zeros (a layer that stays silent) is compared as it is."""
    energy = _sum(target.square()).item()
    return 1 / energy if energy > 0 else 1.0


def _sum(x: Tensor) -> Tensor:
    # A line search compares losses that differ in the seventh digit: rows are summed where they
    # are, their sums in float64, which some devices know only on the CPU.
    return x.sum(-1).cpu().double().sum()
