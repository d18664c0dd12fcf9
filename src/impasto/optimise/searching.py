"""What L-BFGS and conjugate gradient have in common: a direction, then a line search along it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from impasto.optimise.base import Evaluation, Evaluator, Found, State
from impasto.optimise.line_search import CURVATURE, End, Length, Point, strong_wolfe
from impasto.optimise.variables import Beyond, Spectrum, Variables

LEVEL = 1e-12
"""What falls by less along a direction does not fall."""

_MOST = 25  # evaluations for one step


@dataclass(frozen=True)
class Trial:
    """What was found at a point of a line: the slope is with respect to the variables, scaled."""

    evaluation: Evaluation
    image: Tensor
    slope: Tensor


class Searching(ABC):
    """A round on the variables of an image; so an accepted step never raises the loss.

    It ends of itself when its line search finds nothing lower.
    """

    curvature: float = CURVATURE

    def __init__(
        self, image: Tensor, state: State | None, spectrum: Spectrum, beyond: Beyond
    ) -> None:
        angles, scale = (state["angles"], float(state["scale"])) if state else (None, 1.0)
        self.image: Tensor | None = image
        self.variables = Variables(image, spectrum, beyond, angles, scale)
        self.home = torch.zeros(image.numel(), dtype=torch.float32, device="cpu")

    @abstractmethod
    def direction(self, here: Trial) -> tuple[Tensor, Length]:
        """Downhill from here, and how far to go at first; the steps before are in it."""

    @abstractmethod
    def went(self, direction: Tensor, length: Length, before: Trial) -> None:
        """Note a step; its vectors may be kept."""

    def state(self) -> State:
        """What it takes to go on from the last accepted step as if nothing had happened.

        Even in the middle of the next one, where Ctrl-C may come. Nothing is copied: what there
        is changes with the next step.
        """
        return {
            "angles": self.variables.angles_at(self.home),
            "scale": torch.tensor(self.variables.scale, dtype=torch.float64),
        }

    def points(self, evaluate: Evaluator) -> Iterator[Found]:
        """The start and every accepted step."""
        # The image itself, without the margin: it may be the minimum.
        image, self.image = self.image, None
        assert image is not None
        evaluation = evaluate(image)
        if self.variables.scale == 1.0:
            self.variables.scale_by(self.variables.slope_at(self.home, evaluation.gradient))
        slope = self.variables.slope_at(self.home, evaluation.gradient)
        self.here = Trial(_without_gradient(evaluation), image, slope)
        del evaluation, slope, image
        while True:
            evaluation = self.here.evaluation
            yield Found(evaluation.loss, evaluation.parts, self.here.image)
            if not self._step(evaluate):
                return

    def _step(self, evaluate: Evaluator) -> bool:
        """One accepted step, if there is one."""
        before = self.here
        if not before.slope.any():
            return False
        direction, length = self.direction(before)
        along = before.slope.dot(direction)
        if along > -LEVEL:
            return False
        scale = self.variables.scale
        start = Point(End(0.0, before.evaluation.loss * scale, along), before)
        del before
        known: WeakValueDictionary[bytes, Trial] = WeakValueDictionary()
        known[self._place(self.home)] = self.here

        def look(length: Length) -> Point[Trial]:
            z = torch.add(self.home, direction, alpha=float(length))
            place = self._place(z)
            trial = known.get(place)  # too close to another for float32 to tell them apart
            if trial is None:
                image = self.variables.image_at(z)
                del z
                evaluation = evaluate(image)
                z = torch.add(self.home, direction, alpha=float(length))
                slope = self.variables.slope_at(z, evaluation.gradient)
                trial = Trial(_without_gradient(evaluation), image, slope)
                known[place] = trial
            end = End(length, trial.evaluation.loss * scale, trial.slope.dot(direction))
            return Point(end, trial)

        largest = float(direction.abs().max())
        point = strong_wolfe(look, start, length, largest, _MOST - 1, self.curvature)
        del start
        if point.found.evaluation.loss >= self.here.evaluation.loss:
            return False
        self.home.add_(direction, alpha=float(point.end.length))
        self.went(direction, point.end.length, self.here)
        self.here = point.found
        return True

    @staticmethod
    def _place(z: Tensor) -> bytes:
        """What tells one point of a line from another: some of its coordinates."""
        return z[:: max(1, z.numel() // 1024)].numpy().tobytes()


def _without_gradient(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, gradient=torch.empty(0, dtype=torch.float32, device="cpu"))
