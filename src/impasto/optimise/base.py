"""Optimisers: objects that move an image down any function of it, step by step.

They know nothing of what the function means: it takes an image [1, channels, height, width] and
gives an `Evaluation`.

    for step in Lbfgs(history=10).start(objective, image, steps=100):
        ...
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.optimise.variables import Beyond, Spectrum

FLAT_STEPS = 20
FLAT_DECREASE = 1e-4
"""The loss has stopped falling when this many steps lowered it by less than this share."""

State = dict[str, Tensor]
"""What an optimiser has learned; from an image and its state another run can go on."""


@dataclass(frozen=True)
class Evaluation:
    """What an objective says of images.

    loss: the weighted sum. gradient: its derivative, shaped like the images. parts: each term's
    own value before weighting, by name, summed over the images. losses: the loss of each image.
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
    [1, channels, height, width] in 0..1 and is not changed afterwards. `state`, called before the
    next step, gives what the optimiser has learned: from there another run can go on. After the
    next step, or once the run is over, it is empty: whoever keeps steps keeps pictures, and not
    the optimiser's memory. `done` is about how much of the work of a whole painting is done, 0..1,
    `planned` how many steps it takes at most, and `size` the (width, height) that it has at its
    end.
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
Reason = Literal["budget", "flat"]


@dataclass(frozen=True)
class Outcome:
    """The last step, and why there was none after it.

    `"budget"`: the steps or evaluations asked for were made. `"flat"`: the loss stopped falling.
    """

    final: Step
    reason: Reason


@dataclass(frozen=True)
class Found:
    """A point that a round has settled on."""

    loss: float
    parts: Mapping[str, float]
    image: Tensor


class Round(Protocol):
    """One start of an optimiser, with nothing learned, or with what an earlier run has.

    `points` goes on until it has nothing lower to offer; its start is the first of them. It spends
    evaluations by way of `evaluate`, which may end it. `state` is what was learned up to the last
    point, even in the middle of finding the next one.
    """

    def points(self, evaluate: Evaluator) -> Iterator[Found]: ...
    def state(self) -> State: ...


class RunOver(Exception):
    """The evaluations asked for are spent."""


class RoundOver(Exception):
    """The evaluations of a round are spent."""


class Evaluator:
    """Evaluates the objective, counts, and ends rounds and runs when their budget is spent."""

    def __init__(self, objective: Evaluate, most: int | None, restart: int | None) -> None:
        self.objective = objective
        self.most = math.inf if most is None else most
        self.restart = restart or math.inf
        self.count = self.in_round = 0

    def __call__(self, image: Tensor) -> Evaluation:
        """Value and gradient at an image.

        Raises:
            ImpastoError: the image, the loss or its gradient is not of finite numbers.
        """
        if self.in_round >= self.restart:
            raise RoundOver
        if self.count >= self.most:
            raise RunOver
        self.count += 1
        evaluation = self.objective(image)
        _check_finite(image, evaluation, self.count)
        self.in_round += 1
        return evaluation

    def begin_round(self) -> None:
        """Count a round's evaluations anew."""
        self.in_round = 0


class Descent(Iterator[Step]):
    """One run of an optimiser: to iterate is to optimise. See `Optimiser.start`."""

    def __init__(
        self,
        begin: Callable[[Tensor, State | None], Round],
        evaluate: Evaluator,
        image: Tensor,
        steps: int,
        state: State | None,
    ) -> None:
        self.last: Step | None = None
        self.reason: Reason = "budget"
        self._begin = begin
        self._evaluate = evaluate
        self._steps = steps
        self._losses: list[float] = []
        self._start: tuple[Tensor, State | None] | None = (image.detach(), state)
        self._round: Round | None = None
        self._points: Iterator[Found] | None = None
        self._made = 0  # in this round

    @ordinary()
    def __next__(self) -> Step:
        while True:
            if self._is_over():
                self.close()
            if self._start is None and self._points is None:
                raise StopIteration
            try:
                found = self._next_point()
            except RunOver:
                self.close()
                continue
            if found is None:
                if self._made <= 1:  # a whole round found nothing lower
                    self.reason = "flat"
                    self.close()
                    continue
                assert self.last
                self._drop_round()
                self._start = self.last.image, None
                continue
            self._made += 1
            if self._made > 1 or not self._losses:  # the start of a later round is no step
                return self._accepted(found)

    def _next_point(self) -> Found | None:
        """The next point of this round; none: there is no more."""
        if self._points is None:
            assert self._start is not None
            image, state = self._start
            self._start = None
            self._evaluate.begin_round()
            self._made = 0
            self._round = self._begin(image, state)
            self._points = self._round.points(self._evaluate)
        try:
            return next(self._points, None)
        except RoundOver:
            return None

    def _accepted(self, found: Found) -> Step:
        self._losses.append(found.loss)
        assert self._round
        state = _Learned(self._round, self)
        self.last = Step(
            len(self._losses) - 1,
            self._evaluate.count,
            found.loss,
            found.parts,
            found.image,
            state,
        )
        return self.last

    def _is_over(self) -> bool:
        if not self._losses:
            return False
        if len(self._losses) > self._steps:
            return True
        if self._losses[-1] == 0 or self._is_flat():
            self.reason = "flat"
            return True
        return False

    def _is_flat(self) -> bool:
        if len(self._losses) <= FLAT_STEPS:
            return False
        before, since = min(self._losses[:-FLAT_STEPS]), min(self._losses[-FLAT_STEPS:])
        return since > before - FLAT_DECREASE * abs(before)

    @property
    def outcome(self) -> Outcome:
        """Where it has got to, and why it is over.

        Raises:
            ImpastoError: there was no step.
        """
        if self.last is None:
            raise ImpastoError("an optimiser needs at least one evaluation; allow it more")
        return Outcome(self.last, self.reason)

    def state(self) -> State:
        """What was learned up to the last step, even if something was raised after it."""
        return self._round.state() if self._round and self.last else {}

    def close(self) -> None:
        """Let go of all the optimiser's memory; there is no further step."""
        self._start = None
        self._drop_round()

    def _drop_round(self) -> None:
        self._round = self._points = None


class _Learned:
    """`Step.state`: what an optimiser has learned, until its next step.

    It holds neither run nor round. They hold it, by way of the last step, and would keep one
    another, and hundreds of megabytes, until Python looks for such circles.
    """

    def __init__(self, round_: Round, descent: Descent) -> None:
        self.step = len(descent._losses)
        self.round, self.descent = weakref.ref(round_), weakref.ref(descent)

    def __call__(self) -> State:
        round_, descent = self.round(), self.descent()
        if round_ is None or descent is None or len(descent._losses) != self.step:
            return {}
        return round_.state()


class Optimiser(ABC):
    """Moves an image down an objective; an object with its own numbers.

    vectors: as large as the image, that it needs beside its history. libraries: bytes that the
    interpreter takes with all libraries of a run, and what the allocator loses between pieces.
    """

    vectors: ClassVar[int]
    libraries: ClassVar[int]

    @abstractmethod
    def round(
        self, image: Tensor, state: State | None, spectrum: Spectrum, beyond: Beyond
    ) -> Round:
        """A new round from an image."""

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
        """Begin to move an image down an objective: whoever iterates optimises.

        Args:
            objective: image -> `Evaluation`.
            image: the start, [1, channels, height, width] in 0..1.
            steps: how many steps to accept at most.
            evaluations: how many values and gradients to spend at most; none for no limit.
            restart: forget what was learned of the curvature after so many evaluations.
            state: of the `Step` whose image this is, to go on from there.
            spectrum: what the image begins as, see `variables`.
            beyond: what lies beyond the image's borders, likewise.

        Raises:
            ImpastoError: it is a batch of images; on the way, that something is no number.
        """
        if len(image) != 1:
            raise ImpastoError(
                f"an optimiser moves one picture, and was given {len(image)}; "
                "give them to it one at a time"
            )

        def begin(start: Tensor, learned: State | None) -> Round:
            return self.round(start, learned, spectrum, beyond)

        evaluate = Evaluator(objective, evaluations, restart)
        return Descent(begin, evaluate, image, steps, state or None)

    def __call__(
        self, objective: Evaluate, image: Tensor, *, callback: Callback | None = None, **how: object
    ) -> Outcome:
        """Optimise to the end; `callback` is called with every step. The rest as in `start`."""
        descent = self.start(objective, image, **how)  # type: ignore[arg-type]
        try:
            for step in descent:
                if callback:
                    callback(step)
            return descent.outcome
        finally:
            descent.close()


def _check_finite(image: Tensor, evaluation: Evaluation, evaluations: int) -> None:
    # A sum is finite where all of its terms are.
    if not math.isfinite(image.detach().sum().item()):
        # The loss may well be finite: a ReLU can take what is no number for zero.
        raise ImpastoError(
            f"the picture has values that are no finite numbers after {evaluations} evaluations; "
            "start from one without them"
        )
    if not (math.isfinite(evaluation.loss) and math.isfinite(evaluation.gradient.sum().item())):
        raise ImpastoError(
            f"the loss is not a finite number after {evaluations} evaluations; "
            "use smaller weights, or pictures without such values"
        )
