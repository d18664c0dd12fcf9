"""What all optimisers share: evaluations, steps, and when to stop.

An objective is any function from an image [1, channels, height, width] to an `Evaluation`. Pixels
stay in [0, 1] *during* the optimisation: clipping only at the end would throw away what was paid
for out there (on a bright painting, most of the style).
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
"""The loss has stopped falling when this many steps lowered it by less than this share."""


@dataclass(frozen=True)
class Evaluation:
    """What an objective says of an image.

    loss: the weighted sum. gradient: its derivative, shaped like the image. parts: each term's
    own value before weighting, by name. losses: of each entry of a batch.
    """

    loss: float
    gradient: Tensor
    parts: Mapping[str, float]
    losses: tuple[float, ...] = ()


Evaluate = Callable[[Tensor], Evaluation]


@dataclass(frozen=True)
class Step:
    """Where an optimiser has got to; step 0 is the start.

    `evaluations` counts the values and gradients spent so far, trial points included. `image` is
    [1, channels, height, width] in 0..1 and is not changed afterwards. `state` is `Descent.state`
    before the next step, and gives nothing after it, or once the run is over: whoever keeps steps
    keeps pictures, not the optimiser's memory. `done` is about how much of the work of a whole
    painting is done, 0..1, `planned` how many steps it takes at most, and `size` the (width,
    height) that it has at its end.
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
    """The last step, and why there was none after it.

    `"budget"`: the steps or evaluations asked for were made. `"flat"`: the loss stopped falling.
    """

    final: Step
    reason: Literal["budget", "flat"]


class Found(NamedTuple):
    """A point that an optimiser has settled on."""

    loss: float
    parts: Mapping[str, float]
    image: Tensor


class RoundOver(Exception):
    """The round is over, the run may not be."""


class _Spent(Exception):
    """No evaluation is left."""


class Round(ABC):
    """What an optimiser does from one restart to the next. It knows nothing of its descent."""

    @abstractmethod
    def step(self, evaluate: Evaluate) -> Found:
        """The start at first, then one step after another.

        What `evaluate` raises leaves all as it was: the same step can be tried again.

        Raises:
            RoundOver: there is nothing lower to be found.
        """

    @abstractmethod
    def state(self) -> State:
        """What it takes to go on from the last step as if nothing had happened."""

    def end(self, last: Tensor) -> Tensor:
        """Where the next round begins; `last` is the image of the last step."""
        return last


Rounds = Callable[[Tensor, State | None], Round]


class Optimiser(ABC):
    """An object with its own numbers, that moves images down objectives.

    vectors: as large as the image, that it needs beside its history. libraries: bytes that the
    interpreter takes with all libraries of a run, and what the allocator loses between pieces.
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
        """A run that moves `image` down `objective`.

        Args:
            objective: image -> `Evaluation`.
            image: the start, [1, channels, height, width] in 0..1.
            steps: how many steps to accept at most.
            evaluations: how many values and gradients to spend at most; none for no limit.
            restart: forget what was learned of the curvature after so many evaluations.
            state: of the `Step` whose image this is, to go on from there. It is taken over.
            spectrum: what the image begins as, see `variables`.
            beyond: what lies beyond its borders, to the variables: its mirror image, or the image
                again (one that is to repeat without a seam).

        Raises:
            ImpastoError: the image is a batch; or, later, something is no finite number.
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
        """Make a run to its end, as `start` has it; `callback` is called with every step."""
        descent = self.start(objective, image, **how)
        for step in descent:
            if callback:
                callback(step)
        return descent.outcome

    @abstractmethod
    def rounds(self, shape: torch.Size, spectrum: Spectrum, beyond: Beyond) -> Rounds:
        """What begins the rounds of a run, on images of this shape."""


class Descent(Iterator[Step]):
    """One run of an optimiser, an iterator of steps; step 0 is the start.

    To stop is to stop iterating. What is raised in the midst of an evaluation, Ctrl-C say, comes
    out of `next` and changes nothing: `last` and `state()` are still there, and `next` tries the
    same step again. The optimiser's memory goes when the run ends, with `close`, or with this.

    A run is made of rounds, which end by themselves or for a restart; one without a step ends it.
    """

    def __init__(
        self, objective: Evaluate, rounds: Rounds, first: Round, *limits: int | None
    ) -> None:
        self.last: Step | None = None
        self.evaluations = 0
        self._objective, self._rounds = objective, rounds
        self._round: Round | None = first  # none: the run is over
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
        """What the run has come to.

        Raises:
            ImpastoError: not even the start was evaluated.
        """
        if self.last is None:
            raise ImpastoError("an optimiser needs at least one evaluation; allow it more")
        return Outcome(self.last, self._reason)

    def state(self) -> State:
        """What was learned up to the last step; nothing once the run is over.

        Another run, given it and the image of that step, goes on as this one would. The tensors
        are the optimiser's own: its next step may change them.
        """
        with ordinary():
            return self._round.state() if self._round else {}

    def close(self) -> None:
        """End the run, and let go of all that it holds but the last step."""
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
        """The next step, be it in another round; none where there is no more."""
        while True:
            try:
                found = current.step(self._evaluate)
                if self.last is None or found.image is not self.last.image:
                    return found  # else it is where a round began anew
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
        # A sum is finite where all of its terms are. The loss may be so even where the picture is
        # not: a ReLU can take what is no number for zero.
        if not image.detach().sum().isfinite():
            what = f"the picture has values that are no finite numbers {after}"
            raise ImpastoError(f"{what}; start from one without them")
        if not (math.isfinite(evaluation.loss) and evaluation.gradient.sum().isfinite()):
            mend = "use smaller weights, or pictures without such values"
            raise ImpastoError(f"the loss is not a finite number {after}; {mend}")
        return evaluation


def _learned(descent: weakref.ref[Descent], step: int) -> State:
    """`Step.state`: of a descent that it does not keep, as that keeps its last step."""
    its = descent()
    return its.state() if its and its.last and its.last.step == step else {}
