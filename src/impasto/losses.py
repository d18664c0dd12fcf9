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
from typing import Protocol

import torch
from torch import Tensor

from impasto import compiled
from impasto.settings import Scaling
from impasto.vgg import IMAGE


def gram(features: Tensor) -> Tensor:
    """Gram matrices [batch, C, C] of features [batch, C, height, width]: G = F F^T / N.

    Which channels are active together, wherever that is: positions are summed out. Gatys et al.
    2015, eq. 3, divided by the number of positions so that it does not grow with the picture.
    """
    if compiled.suits(features) and features.shape[1] >= 64:
        return compiled.gram(features)
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


def border_variation(image: Tensor, width: int = 3) -> Tensor:
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
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"
    statistic: Callable[[Tensor], Tensor] = gram

    @property
    def name(self) -> str:
        return f"style {self.layer}"

    def __call__(self, features: Tensor) -> Tensor:
        return self.distance(self.statistic(features))

    def distance(self, statistic: Tensor) -> Tensor:
        """The loss as a function of the statistic alone."""
        return self._factor * squared_error(statistic, self.target)

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


def _inverse_energy(target: Tensor) -> float:
    """1 / sum target^2; a target of zeros (a layer that stays silent) is compared as it is."""
    energy = _sum(target.square()).item()
    return 1 / energy if energy > 0 else 1.0


def _sum(x: Tensor) -> Tensor:
    # A line search compares losses that differ in the seventh digit: rows are summed where they
    # are, their sums in float64, which some devices know only on the CPU.
    return x.sum(-1).cpu().double().sum()
