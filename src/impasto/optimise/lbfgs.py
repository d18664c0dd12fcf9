"""L-BFGS: the curvature is learned from the last steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from impasto.optimise.base import Optimiser, Round, State
from impasto.optimise.line_search import Length
from impasto.optimise.searching import Searching, Trial
from impasto.optimise.variables import Beyond, Spectrum

_KEPT_BYTES = 256 * 2**20  # of the history, in a state


@dataclass(frozen=True)
class Lbfgs(Optimiser):
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.5; as torch has it).

    Line search until the strong Wolfe conditions hold, by cubic interpolation; so an accepted step
    never raises the loss. `history` is how many pairs of past steps it remembers: each takes 8
    bytes for every value of the image, and fewer make it slower.

    Arithmetic and decisions are those of torch.optim.LBFGS. What differs is memory: that keeps up
    to ten vectors as large as the image beside the history, some of them twice, and each is 48 MB
    at 2048 pixels.
    """

    history: int = 20

    vectors: ClassVar[int] = 11
    libraries: ClassVar[int] = 430 * 2**20  # 360 MB and 80 measured on Linux

    def round(
        self, image: Tensor, state: State | None, spectrum: Spectrum, beyond: Beyond
    ) -> Round:
        return _Remembering(image, state, spectrum, beyond, self.history)


class _Remembering(Searching):
    def __init__(
        self,
        image: Tensor,
        state: State | None,
        spectrum: Spectrum,
        beyond: Beyond,
        history: int,
    ) -> None:
        super().__init__(image, state, spectrum, beyond)
        self.history = history
        # Differences of slopes and of variables, and one over their product, oldest first.
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.bend: float | Tensor = 1
        # The last step: its direction, how far it went, and the slope where it began.
        self.gone: tuple[Tensor, Length, Tensor] | None = None
        if state and "d" in state:
            count = len(state["ro"])
            self.pairs = [
                (state[f"old_dirs.{index}"], state[f"old_stps.{index}"], state["ro"][index])
                for index in range(max(0, count - history), count)
            ]
            self.bend = state["H_diag"].float()
            self.gone = state["d"], float(state["t"]), state["prev_flat_grad"]

    def direction(self, here: Trial) -> tuple[Tensor, Length]:
        slope = here.slope
        if self.gone is None and not self.pairs:
            # Of length 1; torch has the gradient's 1-norm for that.
            longest = 1.0 / slope.abs().sum()
            most = longest if longest < 1.0 else 1.0
            return slope.neg(), most * float(slope.abs().sum() / slope.norm())
        direction = self._downhill(slope)
        self.gone = direction, 0.0, slope  # what is interrupted now begins with it again
        return direction, 1.0

    def went(self, direction: Tensor, length: Length, before: Trial) -> None:
        self.gone = direction, length, before.slope

    def _downhill(self, slope: Tensor) -> Tensor:
        """Downhill, by all that is remembered (Nocedal & Wright, algorithm 7.4).

        The last step becomes a pair first, where its vectors lie.
        """
        if self.gone is not None:
            (step, length, before), self.gone = self.gone, None
            difference = before.neg_().add_(slope)
            step.mul_(float(length))
            product = difference.dot(step)
            if product > 1e-10:
                del self.pairs[: max(0, len(self.pairs) + 1 - self.history)]
                self.pairs.append((difference, step, 1.0 / product))
                self.bend = product / difference.dot(difference)
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
            direction, length, slope = self.gone
            state |= {"d": direction, "prev_flat_grad": slope}
            state["t"] = torch.as_tensor(length, dtype=torch.float64)
            state["H_diag"] = torch.as_tensor(self.bend, dtype=torch.float64)
            newest = self.pairs[-max(1, int(_KEPT_BYTES / (8 * self.home.numel()))) :]
            for index, (difference, step, _) in enumerate(newest):
                state |= {f"old_dirs.{index}": difference, f"old_stps.{index}": step}
            factors = [float(factor) for _, _, factor in newest]
            state["ro"] = torch.tensor(factors, dtype=torch.float32)
        return state


lbfgs = Lbfgs()
