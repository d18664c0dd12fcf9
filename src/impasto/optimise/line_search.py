"""Line search by cubic interpolation, until the strong Wolfe conditions hold.

Nocedal & Wright 2006, algorithms 3.5 and 3.6. It does step by step what torch's L-BFGS does
(`torch.optim.lbfgs`), and finds the same point, but takes less memory: torch keeps a gradient for
both ends of its bracket, and copies of them; here only the lower end has one, because the search
can end only there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from impasto.optimise.base import Evaluate, Found, Round, RoundOver, State
from impasto.optimise.variables import Basis, Variables

_DECREASE = 1e-4  # c1 of the strong Wolfe conditions; c2 is `Search.curvature`
_LEAST_CHANGE = 1e-9  # of a variable: the search ends at a narrower bracket
_LEVEL = 1e-12  # a direction with less slope does not lead down
_LOOKS = 25  # evaluations for one step, at most

Length = float | Tensor


class End(NamedTuple):
    """A point of the line: the length of the step, the loss there and its derivative."""

    length: Length
    loss: float
    along: Tensor


@dataclass(frozen=True)
class Trial:
    """What was found at a point; `slope` is the scaled gradient with respect to the variables."""

    found: Found
    slope: Tensor


class Point(NamedTuple):
    """An end with what was computed there, which is large."""

    end: End
    seen: Trial


class Search(Round):
    """A round whose steps are line searches on the variables of an image; none raises the loss.

    The round ends when a line search finds nothing lower. The next round, which remembers nothing,
    may still find something; if it makes no step either, the run is over.
    """

    curvature: ClassVar[float] = 0.9

    def __init__(self, basis: Basis, image: Tensor, state: State | None) -> None:
        self.variables = Variables(image, basis, state["angles"] if state else None)
        self.home = torch.zeros(image.numel(), dtype=torch.float32)
        self.here: Trial | Tensor = image  # the image, until it is evaluated
        # The last step: its direction, how far it went, and the slope where it began.
        self.gone: tuple[Tensor, Length, Tensor] | None = None
        self.change = 0.0  # of the scaled loss, in that step
        if state:
            self.variables.scale = float(state["scale"])
            if "d" in state:
                self.gone = state["d"], float(state["t"]), state["prev_flat_grad"]
                self.change = float(state.get("change", 0.0))

    @abstractmethod
    def _direction(self, slope: Tensor) -> Tensor | None:
        """The direction of the next search, made from `gone`; None if only the slope is known."""

    def _first_length(self, along: Tensor) -> Length:
        """The first length to try; `along` is the derivative along the direction."""
        del along
        return 1.0

    def step(self, evaluate: Evaluate) -> Found:
        if isinstance(self.here, Tensor):
            self.here = self._started(self.here, evaluate)
            return self.here.found
        here, slope = self.here, self.here.slope
        loss = here.found.loss * self.variables.scale
        if not slope.any():
            raise RoundOver
        if self.gone and self.gone[1] == 0:  # that step was interrupted: try it again
            direction: Tensor | None = self.gone[0]
        else:
            direction = self._direction(slope)
        if direction is None:
            direction = slope.neg()
            along = slope.dot(direction)
            # A step of length 1; torch divides by the gradient's 1-norm instead.
            total = slope.abs().sum()
            most = 1.0 / total if total > 1.0 else 1.0
            length: Length = most * float(total / slope.norm())
        else:
            along = slope.dot(direction)
            length = self._first_length(along)
            self.gone = direction, 0.0, slope  # until it is made
        if along > -_LEVEL:
            raise RoundOver
        known: WeakValueDictionary[bytes, Trial] = WeakValueDictionary()
        known[_place(self.home)] = here

        def look(length: Length) -> Point:
            z = torch.add(self.home, direction, alpha=float(length))
            place = _place(z)
            trial = known.get(place)  # if float32 cannot tell it from an earlier one
            if trial is None:
                image = self.variables.image_at(z)
                del z
                evaluation = evaluate(image)
                z = torch.add(self.home, direction, alpha=float(length))
                slope = self.variables.slope_at(z, evaluation.gradient)
                trial = Trial(Found(evaluation.loss, evaluation.parts, image), slope)
                known[place] = trial
            loss = trial.found.loss * self.variables.scale
            return Point(End(length, loss, trial.slope.dot(direction)), trial)

        start, largest = Point(End(0.0, loss, along), here), float(direction.abs().max())
        point = strong_wolfe(look, start, length, largest, self.curvature)
        if point.seen.found.loss >= here.found.loss:
            raise RoundOver
        self.home.add_(direction, alpha=float(point.end.length))
        self.gone, self.change = (direction, point.end.length, slope), point.end.loss - loss
        self.here = point.seen
        return point.seen.found

    def _started(self, image: Tensor, evaluate: Evaluate) -> Trial:
        # The image itself, without the margin of `Variables`: it may be the minimum.
        evaluation = evaluate(image)
        if self.variables.scale == 1.0:
            length = float(self.variables.slope_at(self.home, evaluation.gradient).norm())
            # Conjugate gradient's later first trials are no longer than the slope: it must be long.
            self.variables.scale = 1e4 / length if length > 0 else 1.0
        slope = self.variables.slope_at(self.home, evaluation.gradient)
        return Trial(Found(evaluation.loss, evaluation.parts, image), slope)

    def state(self) -> State:
        """See `Round.state`. Nothing is copied: the next step changes these tensors."""
        state = {
            "angles": self.variables.angles_at(self.home),
            "scale": torch.tensor(self.variables.scale, dtype=torch.float64),
        }
        if self.gone is not None:
            direction, length, slope = self.gone
            state |= {"d": direction, "prev_flat_grad": slope}
            state["t"] = torch.as_tensor(length, dtype=torch.float64)
        return state


def _place(z: Tensor) -> bytes:
    """A key that tells points of a line apart: some of their coordinates."""
    return z[:: max(1, z.numel() // 1024)].numpy().tobytes()


def strong_wolfe(
    look: Callable[[Length], Point], start: Point, first: Length, largest: float, curvature: float
) -> Point:
    """Search along a line from `start`; `first` is the first length to try.

    largest: the direction's largest absolute component. curvature: c2. Returns a point that meets
    the conditions, or else the lowest one found, which may be `start`.
    """
    origin = start.end
    # Once there is a `high`, the end with the higher loss, the point is between `low` and `high`.
    low, length, stuck = start, first, False
    high: End | None = None
    for looks in range(1, _LOOKS + 1):
        new = look(length)
        end = new.end
        if high is None and looks == _LOOKS:
            return start if origin.loss <= end.loss else new
        is_low = bool(end.loss <= origin.loss + _DECREASE * end.length * origin.along)
        is_higher = end.loss >= low.end.loss
        is_past = not is_low or (is_higher and (high is not None or looks > 2))
        if not is_past and abs(end.along) <= -curvature * origin.along:
            return new
        if high is None and not (is_past or end.along >= 0):
            bounds = end.length + 0.01 * (end.length - low.end.length), end.length * 10
            length = _cubic_minimum(low.end, end, *bounds)
            low = new
            del new  # the search cannot come back to it
            continue
        if is_higher:
            high = end
        elif high is None or not is_low:
            low, high = new, low.end
        else:
            high = low.end if end.along * (high.length - low.end.length) >= 0 else high
            low = new
        del new
        shortest, longest = low.end.length, high.length
        if shortest > longest:
            shortest, longest = longest, shortest
        if (longest - shortest) * largest < _LEAST_CHANGE:
            break
        length = _cubic_minimum(low.end, high, shortest, longest)
        # Too close to an end there is little progress: allowed once, but not twice.
        least = 0.1 * (longest - shortest)
        is_close = bool(longest - length < least) or bool(length - shortest < least)
        is_at_end = bool(length <= shortest) or bool(length >= longest)
        is_moved = is_close and (stuck or is_at_end)
        if is_moved:
            is_upper = bool(longest - length < length - shortest)
            length = longest - least if is_upper else shortest + least
        stuck = is_close and not is_moved
    return low


def _cubic_minimum(one: End, other: End, least: Length, most: Length) -> Length:
    """The length, within bounds, where the cubic through two ends is lowest.

    Nocedal & Wright 2006, eq. 3.59.
    """
    near, far = (one, other) if one.length <= other.length else (other, one)
    d1 = near.along + far.along - 3 * (near.loss - far.loss) / (near.length - far.length)
    squared = d1**2 - near.along * far.along
    if not squared >= 0:  # it may be NaN
        return (least + most) / 2.0
    d2 = squared.sqrt()
    share = (far.along + d2 - d1) / (far.along - near.along + 2 * d2)
    length = far.length - (far.length - near.length) * share
    if length <= least:
        return least
    return most if length >= most else length
