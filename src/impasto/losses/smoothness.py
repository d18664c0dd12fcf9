"""Smoothness of the image itself, which holds back speckle and frames."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from torch import Tensor

from impasto.encoders.base import IMAGE
from impasto.encoders.tiles import Part
from impasto.losses.base import SumLoss, exact_sum

BORDER = 3
"""How many differences from each side `border_variation` adds up."""


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of images [batch, C, height, width].

    Mahendran & Vedaldi 2015 (arXiv:1412.0035), section 3, with exponent beta = 2. A picture of
    one row or column has no neighbours in that direction; they count as zero.
    """
    return TotalVariationLoss()(image)


def border_variation(image: Tensor) -> Tensor:
    """The part of `total_variation` across each side, from the three differences nearest to it."""
    return BorderLoss()(image)


class _Variation(SumLoss):
    """Squared differences of neighbours, divided by the number of values of the image."""

    layer = IMAGE

    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor:
        return sums / math.prod(shape)


@dataclass(frozen=True)
class TotalVariationLoss(_Variation):
    """`total_variation` of the image itself."""

    weight: float = 1.0

    name = "total variation"

    def sums(self, image: Tensor, part: Part) -> Tensor:
        return _squared_steps(image, part, slice(None))


@dataclass(frozen=True)
class BorderLoss(_Variation):
    """`border_variation` of the image itself, which keeps frames away.

    The encoder's zero padding is a sharp edge all around the picture. With style alone, the
    optimiser answers this edge with a coloured frame, one to three pixels wide.
    """

    weight: float = 1.0

    name = "border"

    def sums(self, image: Tensor, part: Part) -> Tensor:
        first, last = slice(BORDER), slice(-BORDER, None)
        return _squared_steps(image, part, first) + _squared_steps(image, part, last)


def _squared_steps(image: Tensor, part: Part, counted: slice) -> Tensor:
    """Sum the squared differences from the core's pixels to the next ones below and to the right.

    Those below start only from the `counted` rows, those to the right only from such columns.
    """
    total = exact_sum(image.new_zeros(len(image), 1, 1))
    for axis, (side, core) in enumerate(zip(part.size, part.core, strict=True)):
        along = range(side - 1)[counted]
        first, stop = max(along.start, core.start), min(along.stop, core.stop)
        if first < stop:
            rows, columns = part.core
            both_ends = slice(first, stop + 1)
            read = (rows, both_ends) if axis else (both_ends, columns)
            pixels = dataclasses.replace(part, core=read).core_of(image)
            total = total + exact_sum(pixels.diff(dim=axis - 2).square())
    return total
