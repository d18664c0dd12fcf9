"""Smoothness of the image itself: what holds speckle and frames back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from impasto.encoders.base import IMAGE
from impasto.encoders.tiles import Part
from impasto.losses.base import SumLoss, exact_sum

BORDER = 3
"""How many pixels of each side `border_variation` looks at."""


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of images [batch, C, height, width].

    Mahendran & Vedaldi 2015 (arXiv:1412.0035), section 3, with exponent beta = 2. A picture of
    one row or column has no neighbours in that direction; they count as zero.
    """
    return TotalVariationLoss()(image)


def border_variation(image: Tensor) -> Tensor:
    """The part of `total_variation` that lies across the outermost 3 pixels of each side.

    Squared differences of neighbours along the normal of the side, summed, divided by the number
    of values of the whole image.
    """
    return BorderLoss()(image)


class _Variation(SumLoss):
    """Squared differences of neighbours, divided by the number of values of the image."""

    layer = IMAGE

    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor:
        channels, height, width = shape
        return sums / (channels * height * width)


@dataclass(frozen=True)
class TotalVariationLoss(_Variation):
    """`total_variation` of the image itself."""

    weight: float = 1.0

    @property
    def name(self) -> str:
        return "total variation"

    def sums(self, image: Tensor, part: Part) -> Tensor:
        height, width = part.size
        return _squared_steps(image, part, range(height - 1), range(width - 1))


@dataclass(frozen=True)
class BorderLoss(_Variation):
    """`border_variation` of the image itself: keeps frames away.

    To the encoder, its zero padding is a sharp edge all around a picture. Style alone makes the
    optimiser answer it with a coloured frame, one to three pixels wide.
    """

    weight: float = 1.0

    @property
    def name(self) -> str:
        return "border"

    def sums(self, image: Tensor, part: Part) -> Tensor:
        ends = [[range(n - 1)[:BORDER], range(n - 1)[-BORDER:]] for n in part.size]
        first, last = zip(*ends, strict=True)
        return _squared_steps(image, part, *first) + _squared_steps(image, part, *last)


def _squared_steps(image: Tensor, part: Part, rows: range, columns: range) -> Tensor:
    """Squared differences from the core's pixels to the next below and right, summed.

    Only those from the given rows down and from the given columns right.
    """
    top, left = (span.start for span in part.crop)
    core_rows, core_columns = part.core
    down = range(max(rows.start, core_rows.start), min(rows.stop, core_rows.stop))
    right = range(max(columns.start, core_columns.start), min(columns.stop, core_columns.stop))
    across = slice(core_columns.start - left, core_columns.stop - left)
    along = slice(core_rows.start - top, core_rows.stop - top)
    total = exact_sum(image.new_zeros(len(image), 1, 1))
    if down:
        rows_read = slice(down.start - top, down.stop - top + 1)
        total = total + exact_sum(_cut(image, rows_read, across).diff(dim=-2).square())
    if right:
        columns_read = slice(right.start - left, right.stop - left + 1)
        total = total + exact_sum(_cut(image, along, columns_read).diff(dim=-1).square())
    return total


def _cut(image: Tensor, rows: slice, columns: slice) -> Tensor:
    """A part of an image; all of it as it is, which saves a copy of its gradient."""
    height, width = image.shape[-2:]
    is_whole = (rows, columns) == (slice(0, height), slice(0, width))
    return image if is_whole else image[..., rows, columns]
