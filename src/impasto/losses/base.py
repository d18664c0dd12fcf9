"""What a loss is, and the kind that can be computed in tiles.

Symbols here and beside: F features of one layer [C, N], N = height * width positions; P the
photo's features; G = F F^T / N the picture's Gram matrix, A the painting's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from impasto.encoders.tiles import Part
from impasto.errors import ImpastoError


class Loss(Protocol):
    """One term of an objective: a distance that is computed from the activations of some layers.

    `name` is unique in an objective, `layers` are those it reads, `weight` is what the objective
    multiplies it by. Calling it with the activations of its layers, [batch, C, height, width]
    each, gives a loss for every entry, [batch], or a scalar where there is one.
    """

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Sequence[str]: ...
    @property
    def weight(self) -> float: ...
    def __call__(self, *features: Tensor) -> Tensor: ...


class SumLoss(ABC):
    """A loss that is a function of sums over a layer's positions: it can be computed in tiles.

    `sums` is what a part of the layer adds to the sums, [batch, ...] in float64 on the CPU;
    `value` the loss, [batch], that follows from the sums over the whole of a layer of
    (channels, height, width). Calling it is one after the other, so that tiles give the same.
    """

    layer: str
    weight: float

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique in an objective."""

    @property
    def layers(self) -> tuple[str]:
        """The layer it reads."""
        return (self.layer,)

    @abstractmethod
    def sums(self, features: Tensor, part: Part) -> Tensor: ...

    @abstractmethod
    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor: ...

    def __call__(self, *features: Tensor) -> Tensor:
        """The loss of the activations of a whole layer: of each entry, a scalar where it is one."""
        (whole,) = features
        _, channels, height, width = whole.shape
        each = self.value(self.sums(whole, Part.whole(whole)), (channels, height, width))
        return each[0] if len(each) == 1 else each


def exact_sum(x: Tensor) -> Tensor:
    """The sum of each entry of x [batch, ...], [batch] in float64 on the CPU."""
    # A line search compares losses that differ in the seventh digit: rows are summed where they
    # are, their sums in float64, which some devices know only on the CPU.
    return x.sum(-1).cpu().double().flatten(1).sum(1)


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """The sum of squared differences of each entry, as `exact_sum`."""
    return exact_sum((x - target).square())


def relative(distance: Tensor, energy: Tensor, least: float = 0.0) -> Tensor:
    """A distance relative to the energy of its target, or to `least` where that is less.

    Where the target has none (a layer that stays silent), the distance as it is.
    """
    return energy.where(energy > 0, 1.0).clamp_min(least).reciprocal() * distance


def check_batch(loss: Loss, count: int) -> None:
    """Raise an `ImpastoError` unless a loss has a target for each of so many pictures, or one."""
    for name in ("target", "area"):
        tensor = getattr(loss, name, None)
        if isinstance(tensor, Tensor) and len(tensor) not in (1, count):
            raise ImpastoError(
                f"{loss.name} has {len(tensor)} entries in its {name}, and there are {count} "
                "pictures; give one for each, or one for all"
            )
