"""Nonlinear conjugate gradient: less memory than L-BFGS, more evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from impasto.optimise.base import Optimiser, Round, State
from impasto.optimise.line_search import Length
from impasto.optimise.searching import LEVEL, Searching, Trial
from impasto.optimise.variables import Beyond, Spectrum


@dataclass(frozen=True)
class ConjugateGradient(Optimiser):
    """Nonlinear conjugate gradient (Nocedal & Wright 2006, algorithm 5.4 and eq. 5.45: PR+).

    Strong Wolfe line search, as exact as conjugate directions need it: an accepted step never
    raises the loss.
    """

    vectors: ClassVar[int] = 11
    libraries: ClassVar[int] = 430 * 2**20  # as L-BFGS

    def round(
        self, image: Tensor, state: State | None, spectrum: Spectrum, beyond: Beyond
    ) -> Round:
        return _Conjugate(image, state, spectrum, beyond)


class _Conjugate(Searching):
    curvature = 0.4

    def __init__(
        self, image: Tensor, state: State | None, spectrum: Spectrum, beyond: Beyond
    ) -> None:
        super().__init__(image, state, spectrum, beyond)
        # The last step: its direction, the slope where it began, and the loss there.
        self.gone: tuple[Tensor, Tensor, float] | None = None
        if state and "d" in state:
            self.gone = state["d"], state["prev_flat_grad"], float(state["prev_loss"])

    def direction(self, here: Trial) -> tuple[Tensor, Length]:
        slope = here.slope
        if self.gone is None:
            return slope.neg(), 1.01 / float(slope.norm())
        before, slope_before, loss_before = self.gone
        gained = slope.dot(slope) - slope.dot(slope_before)
        share = max(0.0, float(gained / slope_before.dot(slope_before)))
        direction = torch.add(slope.neg(), before, alpha=share)
        along = float(slope.dot(direction))
        if along > -LEVEL:  # no descent: begin with the slope again
            direction, along = slope.neg(), -float(slope.dot(slope))
        # As far as would fall as much as the last step did (eq. 3.60).
        fall = (here.evaluation.loss - loss_before) * self.variables.scale
        length = min(1.0, 1.01 * 2 * fall / along)
        return direction, length if length > 0 else 1.0

    def went(self, direction: Tensor, length: Length, before: Trial) -> None:
        del length
        self.gone = direction, before.slope, before.evaluation.loss

    def state(self) -> State:
        state = super().state()
        if self.gone is not None:
            direction, slope, loss = self.gone
            state |= {"d": direction, "prev_flat_grad": slope}
            state["prev_loss"] = torch.tensor(loss, dtype=torch.float64)
        return state


cg = ConjugateGradient()
