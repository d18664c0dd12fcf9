"""How far to go along a direction: a line search for the strong Wolfe conditions.

Nocedal & Wright 2006, algorithms 3.5 and 3.6, by cubic interpolation: step by step what torch's
L-BFGS does (`torch.optim.lbfgs`), so that it ends where that ends. It differs in what it holds:
torch keeps a gradient for both ends of its bracket, and copies of them; here only the lower end
has one, because only there the search can end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

DECREASE, CURVATURE = 1e-4, 0.9
"""c1 and c2 of the strong Wolfe conditions; the second is a line search's own choice."""

LEAST_CHANGE = 1e-9
"""Of a variable: a bracket is not narrowed further."""

Found = TypeVar("Found")
Length = float | Tensor


@dataclass(frozen=True)
class End:
    """Where a line was looked at: the step's length, the loss there and its derivative."""

    length: Length
    loss: float
    along: Tensor


@dataclass(frozen=True)
class Point(Generic[Found]):
    """An end with what was found there, which is large."""

    end: End
    found: Found


def strong_wolfe(
    look: Callable[[Length], Point[Found]],
    start: Point[Found],
    first: Length,
    largest: float,
    most: int,
    curvature: float = CURVATURE,
) -> Point[Found]:
    """Look along a line from `start`, at the length `first` to begin with.

    largest: of the direction, in any of its variables. most: how often to look at most, after the
    first time. curvature: how flat the line has to be where it ends, of its slope at the start.
    The point returned is the lowest that was found, or `start`.
    """
    origin = start.end
    low, high, looks = _bracket(look, start, first, most, curvature)
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
        sufficient = new.end.loss <= origin.loss + DECREASE * length * origin.along
        if not sufficient and new.end.loss >= low.end.loss:
            high = new.end
        elif not sufficient:
            low, high = new, low.end
        elif new.end.loss >= low.end.loss:
            high = new.end
        else:
            if abs(new.end.along) <= -curvature * origin.along:
                high = None
            elif new.end.along * (high.length - low.end.length) >= 0:
                high = low.end
            low = new
        del new
    return low


def _bracket(
    look: Callable[[Length], Point[Found]],
    start: Point[Found],
    first: Length,
    most: int,
    curvature: float,
) -> tuple[Point[Found], End | None, int]:
    """The lower and the higher end of a part of the line that has what is looked for in it.

    No higher end where the lower one is what is looked for. Third, how often was looked.
    """
    origin = start.end
    before, new = start, look(first)
    for looks in range(most):
        sufficient = new.end.loss <= origin.loss + DECREASE * new.end.length * origin.along
        is_past = not sufficient or (looks > 1 and new.end.loss >= before.end.loss)
        if not is_past and abs(new.end.along) <= -curvature * origin.along:
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
    return (start if origin.loss <= new.end.loss else new), None, most


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
