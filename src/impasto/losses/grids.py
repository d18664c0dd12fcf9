"""Grids: patterns that repeat with a network's own period, at the same places everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from impasto.encoders.base import IMAGE


@dataclass(frozen=True)
class GridLoss:
    """How much of an image [batch, C, height, width] repeats every `period` pixels.

    In squares of `across` periods, the mean over all repetitions is a pattern of one period; the
    loss is the variance of its pixels, averaged over squares and channels, [batch]. A network that
    halves a picture several times can make such a pattern by itself, anywhere, and covers calm
    parts of a picture with it. What is left of the picture below and right of the last whole square
    does not count; a picture smaller than one has no grid.
    """

    period: int
    weight: float = 1.0
    across: int = 8

    layers: ClassVar[tuple[str, ...]] = (IMAGE,)

    @property
    def name(self) -> str:
        return f"grid {self.period}"

    def __call__(self, *features: Tensor) -> Tensor:
        """The loss of each image."""
        (image,) = features
        batch, channels, height, width = image.shape
        side = self.period * self.across
        rows, columns = height // side, width // side
        if not rows * columns:
            return image.new_zeros(batch)
        whole = image[..., : rows * side, : columns * side]
        repeats = (rows, self.across, self.period, columns, self.across, self.period)
        # [batch, C, rows, period, columns, period]
        pattern = whole.reshape(batch, channels, *repeats).mean((3, 6))
        centred = pattern - pattern.mean((3, 5), keepdim=True)
        return centred.square().flatten(1).mean(1)
