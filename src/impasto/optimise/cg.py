"""Nonlinear conjugate gradient of Polak and Ribière (Nocedal & Wright 2006, algorithm 5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from impasto.optimise.base import Beyond, Optimiser, Rounds, Spectrum, State
from impasto.optimise.line_search import Length, Search
from impasto.optimise.variables import Basis


@dataclass(frozen=True)
class ConjugateGradient(Optimiser):
    """Conjugate gradient: an accepted step never raises the loss.

    The share of the last direction is Polak and Ribière's if that is positive, else 0 (eq. 5.45).
    The line search is stricter than that of L-BFGS, and derives its first length from how much the
    last step lowered the loss, as SciPy's `minimize(method="CG")` does.
    """

    vectors: ClassVar[int] = 11

    def rounds(self, shape: torch.Size, spectrum: Spectrum, beyond: Beyond) -> Rounds:
        return partial(_Round, Basis(shape, spectrum, beyond))


cg = ConjugateGradient()


class _Round(Search):
    curvature = 0.4

    def _direction(self, slope: Tensor) -> Tensor | None:
        if self.gone is None:
            return None
        (direction, _, before), self.gone = self.gone, None
        share = (slope.dot(slope) - slope.dot(before)) / before.dot(before)
        direction.mul_(float(share.clamp(min=0))).sub_(slope)
        return direction if slope.dot(direction) < 0 else slope.neg()

    def _first_length(self, along: Tensor) -> Length:
        # On a parabola, this length would lower the loss as much as the last step did.
        return min(1.0, 1.01 * 2 * self.change / float(along))

    def state(self) -> State:
        state = super().state()
        if self.gone is not None:
            state["change"] = torch.tensor(self.change, dtype=torch.float64)
        return state
