"""Adam (Kingma & Ba 2014, arXiv:1412.6980)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from impasto.optimise.base import Beyond, Evaluate, Found, Optimiser, Round, Rounds, Spectrum, State

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam, each step followed by clipping to [0, 1].

    One evaluation a step and no line search: the loss may rise on the way. `learning_rate` is about
    how far a pixel moves in a step, in 0..1. `spectrum` and `beyond` have no effect.

    The arithmetic is that of torch.optim.Adam, to the byte on a CPU. Torch's class is not used: it
    loads torch's compiler, and updates its moments before the next image is evaluated, so that a
    step interrupted there could not be tried again.
    """

    learning_rate: float = 0.02
    vectors: ClassVar[int] = 6

    def rounds(self, shape: torch.Size, spectrum: Spectrum, beyond: Beyond) -> Rounds:
        del shape, spectrum, beyond
        return partial(_Round, self.learning_rate)


adam = Adam()


class _Round(Round):
    """`mean` and `square` are the moments of all gradients before the one at `image`."""

    def __init__(self, learning_rate: float, image: Tensor, state: State | None) -> None:
        self.learning_rate = learning_rate
        self.image = image
        self.gradient: Tensor | None = None
        self.count = 0.0
        if state:
            self.count = float(state["step"])
            self.mean, self.square = state["exp_avg"].to(image), state["exp_avg_sq"].to(image)
        else:
            self.mean, self.square = torch.zeros_like(image), torch.zeros_like(image)

    def step(self, evaluate: Evaluate) -> Found:
        image = self.end(self.image)
        evaluation = evaluate(image)
        if self.gradient is not None:
            self.mean, self.square = self._moments(self.gradient)
            self.count += 1
        self.image, self.gradient = image, evaluation.gradient.detach()
        return Found(evaluation.loss, evaluation.parts, image)

    def end(self, last: Tensor) -> Tensor:
        del last
        if self.gradient is None:
            return self.image
        mean, square = self._moments(self.gradient)
        count = self.count + 1
        size = self.learning_rate / (1 - _BETA1**count)
        spread = square.sqrt_().div_((1 - _BETA2**count) ** 0.5).add_(_EPSILON)
        return torch.addcdiv(self.image, mean, spread, value=-size).clamp_(0, 1)

    def state(self) -> State:
        if not self.count:
            return {}
        count = torch.tensor(self.count, dtype=torch.float32)
        return {"step": count, "exp_avg": self.mean, "exp_avg_sq": self.square}

    def _moments(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.lerp(self.mean, gradient, 1 - _BETA1)
        square = (self.square * _BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        return mean, square
