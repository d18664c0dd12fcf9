"""What all optimisers share: evaluations, steps, and when to stop.

An objective is any function from an image [1, channels, height, width] to an `Evaluation`. Pixels
stay in [0, 1] *during* the optimisation: clipping only at the end would throw away whatever lies
outside (on a bright painting, most of the style).
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from impasto.device import ordinary
from impasto.errors import ImpastoError

Spectrum = Literal["photo", "refined", "painted", "noise"]
Beyond = Literal["mirrored", "repeated"]
State = dict[str, Tensor]

FLAT_STEPS = 20
FLAT_DECREASE = 1e-4
"""The loss is flat if the last `FLAT_STEPS` steps lowered it by less than this share."""


@dataclass(frozen=True)
class Evaluation:
    """The value of an objective at an image.

    loss: the weighted sum. gradient: its derivative, shaped like the image. parts: each term's
    value before weighting, by name. losses: the loss of each entry of a batch.
    """

    loss: float
    gradient: Tensor
    parts: Mapping[str, float]
    losses: tuple[float, ...] = ()


Evaluate = Callable[[Tensor], Evaluation]


@dataclass(frozen=True)
class Step:
    """Where an optimiser has got to; step 0 is the start.

    `evaluations` counts the values and gradients computed so far, trial points included. `image`
    is [1, channels, height, width] in 0..1 and is not changed afterwards. `state()` gives
    `Descent.state` until the next step or the end of the run, then {}: a list of steps holds
    pictures, not the optimiser's memory. Of a whole painting, `done` is about how much of the work
    is done, 0..1, `planned` how many steps it takes at most, and `size` its final (width, height).
    """

    step: int
    evaluations: int
    loss: float
    parts: Mapping[str, float]
    image: Tensor
    state: Callable[[], State] = dict
    done: float = 0.0
    planned: int = 0
    size: tuple[int, int] | None = None


Callback = Callable[[Step], None]


@dataclass(frozen=True)
class Outcome:
    """The last step, and why no other followed.

    `"budget"`: the steps or evaluations asked for were made. `"flat"`: the loss stopped falling.
    """

    final: Step
    reason: Literal["budget", "flat"]


class Found(NamedTuple):
    """A point that an optimiser has accepted."""

    loss: float
    parts: Mapping[str, float]
    image: Tensor


class RoundOver(Exception):
    """Ends the round; the run may continue with another."""


class _Spent(Exception):
    """No evaluation is left."""


class Round(ABC):
    """What an optimiser does from one restart to the next. It does not know its `Descent`."""

    @abstractmethod
    def step(self, evaluate: Evaluate) -> Found:
        """Evaluate the start in the first call, and make a step in each later one.

        An exception from `evaluate` changes nothing: the same step can be tried again.

        Raises:
            RoundOver: no lower point can be found.
        """

    @abstractmethod
    def state(self) -> State:
        """All that another round needs to continue exactly from the last step."""

    def end(self, last: Tensor) -> Tensor:
        """The image where the next round begins; `last` is that of the last step."""
        return last


Rounds = Callable[[Tensor, State | None], Round]


class Optimiser(ABC):
    """An object that changes images to lower objectives, with parameters of the method.

    vectors: how many image-sized vectors it needs besides its history. libraries: how many bytes
    the interpreter takes with all libraries of a run, and the allocator loses to fragmentation.
    """

    vectors: ClassVar[int]
    libraries: ClassVar[int] = 430 * 2**20  # 360 MB and 80, measured on Linux

    def start(
        self,
        objective: Evaluate,
        image: Tensor,
        *,
        steps: int,
        evaluations: int | None = None,
        restart: int | None = None,
        state: State | None = None,
        spectrum: Spectrum = "photo",
        beyond: Beyond = "mirrored",
    ) -> Descent:
        """Begin a run that changes `image` to lower `objective`.

        Args:
            objective: image -> `Evaluation`.
            image: the start, [1, channels, height, width] in 0..1.
            steps: how many steps to make at most.
            evaluations: how many values and gradients to compute at most; None for no limit.
            restart: forget what was learned of the curvature after this many evaluations.
            state: of the `Step` whose image this is, to continue from there; the run changes it.
            spectrum: what the image begins as, see `variables`.
            beyond: what the variables assume beyond its borders: its mirror image, or the image
                again (if it must repeat without a seam).

        Raises:
            ImpastoError: the image is a batch; or, during the run, a number is not finite.
        """
        if image.ndim != 4 or len(image) != 1:
            what = f"one image [1, channels, height, width], not {list(image.shape)}"
            raise ImpastoError(f"an optimiser moves {what}; start a run for each of a batch")
        with ordinary():
            rounds = self.rounds(image.shape, spectrum, beyond)
            first = rounds(image.detach(), state)
        return Descent(objective, rounds, first, steps, evaluations, restart)

    def __call__(
        self, objective: Evaluate, image: Tensor, *, callback: Callback | None = None, **how: Any
    ) -> Outcome:
        """Make a whole run, with the arguments of `start`; `callback` gets every step."""
        descent = self.start(objective, image, **how)
        for step in descent:
            if callback:
                callback(step)
        return descent.outcome

    @abstractmethod
    def rounds(self, shape: torch.Size, spectrum: Spectrum, beyond: Beyond) -> Rounds:
        """A function that begins the rounds of a run on images of this shape."""


class Descent(Iterator[Step]):
    """One run of an optimiser, an iterator of steps; step 0 is the start.

    To stop it, stop iterating. An exception during an evaluation (Ctrl-C, for example) comes out of
    `next` and changes nothing: `last` and `state()` are still there, and `next` tries the same step
    again. The optimiser's memory is freed when the run ends, by `close`, or with this object.

    A run is made of rounds. Each ends by itself or for a restart; one without steps ends the run.
    """

    def __init__(
        self, objective: Evaluate, rounds: Rounds, first: Round, *limits: int | None
    ) -> None:
        self.last: Step | None = None
        self.evaluations = 0
        self._objective, self._rounds = objective, rounds
        self._round: Round | None = first  # None: the run is over
        self._steps, self._most, self._restart = limits
        self._round_evaluations = self._steps_before = 0
        self._losses: list[float] = []
        self._reason: Literal["budget", "flat"] = "budget"

    def __next__(self) -> Step:
        found = None
        if self._round and not self._is_over():
            with ordinary():
                found = self._found(self._round)
        if found is None:
            self.close()
            raise StopIteration
        state = partial(_learned, weakref.ref(self), step := len(self._losses))
        self._losses.append(found.loss)
        self.last = Step(step, self.evaluations, *found, state)
        return self.last

    @property
    def outcome(self) -> Outcome:
        """The last step, and why no other followed.

        Raises:
            ImpastoError: not even the start was evaluated.
        """
        if self.last is None:
            raise ImpastoError("an optimiser needs at least one evaluation; allow it more")
        return Outcome(self.last, self._reason)

    def state(self) -> State:
        """What was learned up to the last step; {} once the run is over.

        Another run, given this and the image of that step, continues as this one would. The tensors
        are the optimiser's own: its next step may change them.
        """
        with ordinary():
            return self._round.state() if self._round else {}

    def close(self) -> None:
        """End the run, and free all that it holds except the last step."""
        if self._round:
            self._round = None
            del self._objective, self._rounds

    def _is_over(self) -> bool:
        if self.last is None or self.last.step == self._steps:
            return self.last is not None
        before, since = self._losses[:-FLAT_STEPS], self._losses[-FLAT_STEPS:]
        is_flat = before and min(since) > min(before) - FLAT_DECREASE * abs(min(before))
        self._reason = "flat" if is_flat or self.last.loss == 0 else "budget"
        return self._reason == "flat"

    def _found(self, current: Round) -> Found | None:
        """The next step, in this round or a new one; None if the run is over."""
        while True:
            try:
                found = current.step(self._evaluate)
                if self.last is None or found.image is not self.last.image:
                    return found  # otherwise it is only the start of a new round
            except _Spent:
                return None
            except RoundOver:
                assert self.last
                image = current.end(self.last.image)
                if image is self.last.image and len(self._losses) <= max(self._steps_before, 1):
                    self._reason = "flat"
                    return None
                current = self._round = self._rounds(image, None)
                self._round_evaluations, self._steps_before = 0, len(self._losses)

    def _evaluate(self, image: Tensor) -> Evaluation:
        if self._restart and self._round_evaluations >= self._restart:
            raise RoundOver
        if self.evaluations == self._most:
            raise _Spent
        evaluation = self._objective(image)
        self.evaluations += 1
        self._round_evaluations += 1
        after = f"after {self.evaluations} evaluations"
        # A sum is finite only if all its terms are. The loss can be finite although the picture is
        # not: a ReLU may turn NaN into zero.
        if not image.detach().sum().isfinite():
            what = f"the picture has values that are no finite numbers {after}"
            raise ImpastoError(f"{what}; start from one without them")
        if not (math.isfinite(evaluation.loss) and evaluation.gradient.sum().isfinite()):
            mend = "use smaller weights, or pictures without such values"
            raise ImpastoError(f"the loss is not a finite number {after}; {mend}")
        return evaluation


def _learned(descent: weakref.ref[Descent], step: int) -> State:
    """`Step.state`. The reference is weak because a descent keeps its last step."""
    its = descent()
    return its.state() if its and its.last and its.last.step == step else {}
