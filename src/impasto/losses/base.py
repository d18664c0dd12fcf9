"""What a loss is, and the kind of loss that can be computed in tiles.

Symbols in this package: F, the features of one layer [C, N], N = height * width positions; P, the
photo's features; G = F F^T / N, the picture's Gram matrix; A, the painting's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from impasto.encoders.tiles import Part


class Loss(Protocol):
    """One term of an objective: a distance computed from the activations of some layers.

    `name` is unique in an objective, `layers` are the layers that the loss reads, and the objective
    multiplies the loss by `weight`. Calling a loss with the activations of its layers,
    [batch, C, height, width] each, gives a value for each picture, [batch], or a scalar for one.
    """

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Sequence[str]: ...
    @property
    def weight(self) -> float: ...
    def __call__(self, *features: Tensor) -> Tensor: ...


class SumLoss(ABC):
    """A loss that is a function of sums over a layer's positions, so it can be computed in tiles.

    `sums` gives what a part of the layer adds to the sums, [batch, ...] in float64 on the CPU.
    `value` turns the sums over a whole layer of (channels, height, width) into the loss, [batch].
    Calling the loss does both for a whole layer, so that tiles give the same value.
    """

    layer: str
    weight: float

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique in an objective."""

    @property
    def layers(self) -> tuple[str]:
        return (self.layer,)

    @abstractmethod
    def sums(self, features: Tensor, part: Part) -> Tensor: ...

    @abstractmethod
    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor: ...

    def __call__(self, *features: Tensor) -> Tensor:
        (whole,) = features
        _, channels, height, width = whole.shape
        each = self.value(self.sums(whole, Part.whole(whole)), (channels, height, width))
        return each[0] if len(each) == 1 else each


def exact_sum(x: Tensor) -> Tensor:
    """Sum each entry of x [batch, ...]; returns [batch] in float64 on the CPU."""
    # A line search compares losses that differ in the seventh digit. Rows are summed on the device
    # of x, then these sums in float64, which some devices lack.
    return x.sum(-1).cpu().double().flatten(1).sum(1)


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Sum the squared differences of each entry, as `exact_sum` does."""
    return exact_sum((x - target).square())


def relative(distance: Tensor, energy: Tensor, least: float = 0.0) -> Tensor:
    """Divide a distance by the energy of its target, or by `least` if that is larger.

    An energy of 0 (a layer that stays silent) counts as 1.
    """
    return energy.where(energy > 0, 1.0).clamp_min(least).reciprocal() * distance
