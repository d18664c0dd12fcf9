"""L-BFGS (Nocedal & Wright 2006, algorithm 7.5), as torch computes it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from impasto.optimise.base import Beyond, Optimiser, Rounds, Spectrum, State
from impasto.optimise.line_search import Search
from impasto.optimise.variables import Basis

_KEPT_BYTES = 256 * 2**20  # of the history in a state, at most
_LEAST_PRODUCT = 1e-10  # of a pair's differences: above it, the loss curves upwards


@dataclass(frozen=True)
class Lbfgs(Optimiser):
    """L-BFGS: an accepted step never raises the loss.

    Each line search goes on until the strong Wolfe conditions hold. `history` is how many pairs of
    past steps are remembered: each takes 8 bytes for every value of the image, and fewer pairs make
    it slower.

    Arithmetic and decisions are those of torch.optim.LBFGS, but torch needs more memory: up to ten
    vectors as large as the image besides the history, some of them twice, each of 48 MB at 2048
    pixels.
    """

    history: int = 20
    vectors: ClassVar[int] = 11

    def rounds(self, shape: torch.Size, spectrum: Spectrum, beyond: Beyond) -> Rounds:
        return partial(_Round, self.history, Basis(shape, spectrum, beyond))


lbfgs = Lbfgs()


class _Round(Search):
    def __init__(self, history: int, basis: Basis, image: Tensor, state: State | None) -> None:
        super().__init__(basis, image, state)
        # Difference of slopes, difference of variables, and 1 / their product; oldest first.
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=history)
        self.bend: float | Tensor = 1
        if state and self.gone:
            self.pairs.extend(
                (state[f"old_dirs.{index}"], state[f"old_stps.{index}"], factor)
                for index, factor in enumerate(state["ro"])
            )
            self.bend = state["H_diag"].float()

    def _direction(self, slope: Tensor) -> Tensor | None:
        """Downhill, from all that is remembered (Nocedal & Wright, algorithm 7.4).

        First, the last step becomes a pair, in the memory of its own vectors.
        """
        if self.gone is not None:
            (step, length, before), self.gone = self.gone, None
            difference = before.neg_().add_(slope)
            step.mul_(float(length))
            product = difference.dot(step)
            if product > _LEAST_PRODUCT:
                self.pairs.append((difference, step, 1.0 / product))
                self.bend = product / difference.dot(difference)
        elif not self.pairs:
            return None
        direction = slope.neg()
        shares = []
        for difference, step, factor in reversed(self.pairs):
            share = step.dot(direction) * factor
            direction.add_(difference, alpha=-float(share))
            shares.append(share)
        direction.mul_(self.bend)
        for (difference, step, factor), share in zip(self.pairs, reversed(shares), strict=True):
            direction.add_(step, alpha=float(share - difference.dot(direction) * factor))
        return direction

    def state(self) -> State:
        state = super().state()
        if self.gone is not None:
            state["H_diag"] = torch.as_tensor(self.bend, dtype=torch.float64)
            newest = [*self.pairs][-max(1, int(_KEPT_BYTES / (8 * self.home.numel()))) :]
            for index, (difference, step, _) in enumerate(newest):
                state |= {f"old_dirs.{index}": difference, f"old_stps.{index}": step}
            factors = [float(factor) for _, _, factor in newest]
            state["ro"] = torch.tensor(factors, dtype=torch.float32)
        return state
