"""Adam: no line search, one evaluation a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from impasto.optimise.base import Evaluator, Found, Optimiser, Round, RoundOver, State
from impasto.optimise.variables import Beyond, Spectrum


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam (Kingma & Ba 2014, arXiv:1412.6980), each step followed by clipping to [0, 1].

    The loss may rise on the way. learning_rate: about how far a pixel moves in a step, in 0..1.
    """

    learning_rate: float = 0.02

    vectors: ClassVar[int] = 6
    libraries: ClassVar[int] = 475 * 2**20  # it needs a good deal of torch

    def round(
        self, image: Tensor, state: State | None, spectrum: Spectrum, beyond: Beyond
    ) -> Round:
        del spectrum, beyond
        return _Moments(image, state, self.learning_rate)


class _Moments:
    def __init__(self, image: Tensor, state: State | None, learning_rate: float) -> None:
        self.pixels = image.clone().requires_grad_(True)
        self.learning_rate = learning_rate
        self._forget()
        if state:
            self.optimiser.state[self.pixels] = {
                name: value.to(image.device) if value.dim() else value
                for name, value in state.items()
            }

    def points(self, evaluate: Evaluator) -> Iterator[Found]:
        while True:
            try:
                evaluation = evaluate(self.pixels)
            except RoundOver:  # what was learned, not where it has got to
                self._forget()
                evaluate.begin_round()
                continue
            yield Found(evaluation.loss, evaluation.parts, self.pixels.detach().clone())
            self.pixels.grad = evaluation.gradient
            del evaluation
            self.optimiser.step()
            with torch.no_grad():
                self.pixels.clamp_(0, 1)

    def state(self) -> State:
        moments = self.optimiser.state[self.pixels]
        return {name: value.detach().clone() for name, value in moments.items()}

    def _forget(self) -> None:
        self.optimiser = torch.optim.Adam([self.pixels], lr=self.learning_rate)


adam = Adam()
