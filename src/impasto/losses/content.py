"""Content: the activations themselves, position by position."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from impasto.encoders.tiles import Part
from impasto.losses.base import SumLoss, exact_sum, relative, squared_error
from impasto.settings import Scaling


@dataclass(frozen=True)
class ContentLoss(SumLoss):
    """Squared error of a layer's activations.

    | scaling    | value                                                  |
    | ---------- | ------------------------------------------------------ |
    | `relative` | sum (F - P)^2 / sum P^2: 0 at the photo, 1 for a blank |
    | `gatys`    | 1/2 sum (F - P)^2 (Gatys et al. 2015, eq. 1)           |
    | `lecture`  | mean (F - P)^2                                         |

    target: [1 or batch, C, height, width]. floor: with relative scaling, the mean of P^2 counts as
    at least this. A flat photo near the encoder's mean colour has next to no activations: relative
    to them, every stroke would cost far too much.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"
    floor: float = 0.0

    @property
    def name(self) -> str:
        return f"content {self.layer}"

    def sums(self, features: Tensor, part: Part) -> Tensor:
        return squared_error(part.core_of(features), self.target[(..., *part.core)])

    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor:  # noqa: ARG002
        values = self.target[0].numel()
        if self.scaling == "gatys":
            return 0.5 * sums
        if self.scaling == "lecture":
            return 1 / values * sums
        return relative(sums, exact_sum(self.target.square()), self.floor * values)
