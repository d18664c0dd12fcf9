"""Steps along a line, as far as the strong Wolfe conditions ask for.

The line search is Nocedal & Wright 2006, algorithms 3.5 and 3.6, by cubic interpolation: step by
step what torch's L-BFGS does (`torch.optim.lbfgs`), so that it ends where that ends. It differs in
what it holds: torch keeps a gradient for both ends of its bracket, and copies of them; here only
the lower end has one, because only there the search can end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from impasto.optimise.base import Evaluate, Found, Round, RoundOver, State
from impasto.optimise.variables import Basis, Variables

DECREASE, CURVATURE = 1e-4, 0.9
"""c1 and c2 of the strong Wolfe conditions."""

LEAST_CHANGE = 1e-9
"""Of a variable: a bracket is not narrowed further."""

MOST_LOOKS = 25
"""Evaluations for one step."""

LEVEL = 1e-12
"""What falls by less along a direction does not fall."""

Seen = TypeVar("Seen")
Length = float | Tensor


@dataclass(frozen=True)
class End:
    """Where a line was looked at: the step's length, the loss there and its derivative."""

    length: Length
    loss: float
    along: Tensor


@dataclass(frozen=True)
class Point(Generic[Seen]):
    """An end with what was seen there, which is large."""

    end: End
    seen: Seen


@dataclass(frozen=True)
class _Trial:
    """What was found at a point of a line: the slope is with respect to the variables, scaled."""

    found: Found
    slope: Tensor


class Search(Round):
    """Rounds of steps along a line each, on the variables of an image.

    An accepted step never raises the loss. A round ends of itself when its line search finds
    nothing lower. With nothing remembered the next may; when that can't make a single step either,
    there is no more to be had.
    """

    curvature: ClassVar[float] = CURVATURE

    def __init__(self, basis: Basis, image: Tensor, state: State | None) -> None:
        self.image: Tensor | None = image  # where it begins, until that is evaluated
        self.variables = Variables(image, basis, state["angles"] if state else None)
        self.home = torch.zeros(image.numel(), dtype=torch.float32)
        self.here: _Trial | None = None
        # The last step: its direction, how far it went, and the slope where it began.
        self.gone: tuple[Tensor, Length, Tensor] | None = None
        self.change = 0.0  # of the scaled loss, in that step
        if state:
            self.variables.scale = float(state["scale"])
            if "d" in state:
                self.gone = state["d"], float(state["t"]), state["prev_flat_grad"]

    @abstractmethod
    def _direction(self, slope: Tensor) -> Tensor | None:
        """Where to go from here; none where nothing is known but the slope."""

    @abstractmethod
    def _first_length(self, along: Tensor) -> Length:
        """How far along that direction to look first, where the loss bends so much."""

    def step(self, evaluate: Evaluate) -> Found:
        """See `Round.step`."""
        if self.here is None:
            return self._start(evaluate)
        here, slope = self.here, self.here.slope
        loss = here.found.loss * self.variables.scale
        if not slope.any():
            raise RoundOver
        direction = self._direction(slope)
        length: Length
        if direction is None:
            direction = slope.neg()
            # Of length 1; torch has the gradient's 1-norm for that.
            longest = 1.0 / slope.abs().sum()
            most = longest if longest < 1.0 else 1.0
            length = most * float(slope.abs().sum() / slope.norm())
            along = slope.dot(direction)
        else:
            along = slope.dot(direction)
            length = self._first_length(along)
            self.gone = direction, 0.0, slope  # interrupted now, it begins with this once more
        if along > -LEVEL:
            raise RoundOver
        known: WeakValueDictionary[bytes, _Trial] = WeakValueDictionary()
        known[_place(self.home)] = here

        def look(length: Length) -> Point[_Trial]:
            z = torch.add(self.home, direction, alpha=float(length))
            place = _place(z)
            trial = known.get(place)  # too close to another for float32 to tell them apart
            if trial is None:
                image = self.variables.image_at(z)
                del z
                evaluation = evaluate(image)
                z = torch.add(self.home, direction, alpha=float(length))
                slope = self.variables.slope_at(z, evaluation.gradient)
                trial = _Trial(Found(evaluation.loss, evaluation.parts, image), slope)
                known[place] = trial
            loss = trial.found.loss * self.variables.scale
            return Point(End(length, loss, trial.slope.dot(direction)), trial)

        point = strong_wolfe(
            look,
            Point(End(0.0, loss, along), here),
            length,
            largest=float(direction.abs().max()),
            most=MOST_LOOKS - 1,
            curvature=self.curvature,
        )
        if point.seen.found.loss >= here.found.loss:
            raise RoundOver
        self.home.add_(direction, alpha=float(point.end.length))
        self.gone, self.change = (direction, point.end.length, slope), point.end.loss - loss
        self.here = point.seen
        return self.here.found

    def _start(self, evaluate: Evaluate) -> Found:
        # The image itself, without the margin: it may be the minimum.
        assert self.image is not None
        evaluation = evaluate(self.image)
        if self.variables.scale == 1.0:
            self.variables.scale_by(self.variables.slope_at(self.home, evaluation.gradient))
        slope = self.variables.slope_at(self.home, evaluation.gradient)
        self.here = _Trial(Found(evaluation.loss, evaluation.parts, self.image), slope)
        self.image = None
        return self.here.found

    def state(self) -> State:
        """Nothing is copied: what there is changes with the next step."""
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
    """What tells one point of a line from another: some of its coordinates."""
    return z[:: max(1, z.numel() // 1024)].numpy().tobytes()


def strong_wolfe(
    look: Callable[[Length], Point[Seen]],
    start: Point[Seen],
    first: Length,
    *,
    largest: float,
    most: int,
    decrease: float = DECREASE,
    curvature: float = CURVATURE,
) -> Point[Seen]:
    """Look along a line from `start`, at the length `first` to begin with.

    largest: of the direction, in any of its variables. most: how often to look at most, after the
    first time. decrease, curvature: c1 and c2. The point returned is the lowest that was found,
    or `start`.
    """
    wolfe = _Conditions(start.end, decrease, curvature)
    low, high, looks = _bracket(look, start, first, most, wolfe)
    del start
    stuck = False
    while high is not None and looks < most:
        looks += 1
        shortest, longest = _in_order(low.end.length, high.length)
        if (longest - shortest) * largest < LEAST_CHANGE:
            break
        length = _cubic_minimum(low.end, high)
        # Too close to an end there is little progress: once may be, not twice.
        least = 0.1 * (longest - shortest)
        is_close = bool(longest - length < least) or bool(length - shortest < least)
        is_at_end = bool(length <= shortest) or bool(length >= longest)
        if is_close and (stuck or is_at_end):
            is_upper = bool(longest - length < length - shortest)
            length = longest - least if is_upper else shortest + least
            stuck = False
        else:
            stuck = is_close
        new = look(length)
        is_low = wolfe.is_low(new.end)
        if new.end.loss >= low.end.loss:
            high = new.end
        elif not is_low:
            low, high = new, low.end
        else:
            if wolfe.is_level(new.end):
                high = None
            elif new.end.along * (high.length - low.end.length) >= 0:
                high = low.end
            low = new
        del new
    return low


@dataclass(frozen=True)
class _Conditions:
    """Those of Wolfe, for points of a line that begins at `origin`."""

    origin: End
    decrease: float
    curvature: float

    def is_low(self, end: End) -> bool:
        bound = self.origin.loss + self.decrease * end.length * self.origin.along
        return bool(end.loss <= bound)

    def is_level(self, end: End) -> bool:
        return bool(abs(end.along) <= -self.curvature * self.origin.along)


def _bracket(
    look: Callable[[Length], Point[Seen]],
    start: Point[Seen],
    first: Length,
    most: int,
    wolfe: _Conditions,
) -> tuple[Point[Seen], End | None, int]:
    """The lower and the higher end of a part of the line that has what is looked for in it.

    No higher end where the lower one is what is looked for. Third, how often was looked.
    """
    before, new = start, look(first)
    for looks in range(most):
        is_past = not wolfe.is_low(new.end) or (looks > 1 and new.end.loss >= before.end.loss)
        if not is_past and wolfe.is_level(new.end):
            return new, None, looks
        if is_past or new.end.along >= 0:
            if before.end.loss <= new.end.loss:
                return before, new.end, looks
            return new, before.end, looks
        span = new.end.length - before.end.length
        bounds = new.end.length + 0.01 * span, new.end.length * 10
        length = _cubic_minimum(before.end, new.end, *bounds)
        before = new
        del new  # nothing is kept that the search cannot come back to
        new = look(length)
    return (start if start.end.loss <= new.end.loss else new), None, most


def _cubic_minimum(
    one: End, other: End, least: Length | None = None, most: Length | None = None
) -> Length:
    """Where the cubic through two ends, with their derivatives, is lowest within bounds.

    Nocedal & Wright 2006, eq. 3.59. Without bounds between the two.
    """
    near, far = (one, other) if one.length <= other.length else (other, one)
    least, most = near.length if least is None else least, far.length if most is None else most
    d1 = near.along + far.along - 3 * (near.loss - far.loss) / (near.length - far.length)
    squared = d1**2 - near.along * far.along
    if not squared >= 0:  # which may be no number
        return (least + most) / 2.0
    d2 = squared.sqrt()
    share = (far.along + d2 - d1) / (far.along - near.along + 2 * d2)
    length = far.length - (far.length - near.length) * share
    if length <= least:
        return least
    return most if length >= most else length


def _in_order(one: Length, other: Length) -> tuple[Length, Length]:
    return (one, other) if one <= other else (other, one)
