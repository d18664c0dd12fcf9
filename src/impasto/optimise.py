"""Optimisers that move an image down an objective: L-BFGS, conjugate gradient, Adam.

All three have the same interface and know nothing of what the objective means: it is any function
from an image to an `Evaluation`. Pixels stay in [0, 1] *during* the optimisation: clipping only at
the end would throw away what was paid for out there (on a bright painting, most of the style).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.objective import Evaluation

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Evaluate = Callable[[Tensor], Evaluation]
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

FLAT_STEPS = 20
FLAT_DECREASE = 1e-4
"""The loss has stopped falling when this many steps lowered it by less than this share."""

_GREY_LEVEL = 1 / 255
_ENDLESS = 2**31 - 1  # the journal ends a run


@dataclass(frozen=True)
class Step:
    """Where an optimiser has got to; step 0 is the start.

    `evaluations` counts the values and gradients spent so far, trial points included. `image` is
    [1, channels, height, width] in 0..1 and is not changed afterwards.
    """

    step: int
    evaluations: int
    loss: float
    parts: Mapping[str, float]
    image: Tensor


Callback = Callable[[Step], None]


@dataclass(frozen=True)
class Outcome:
    """The last step, and why there was none after it.

    `"budget"`: the steps or evaluations asked for were made. `"flat"`: the loss stopped falling.
    """

    final: Step
    reason: Literal["budget", "flat"]


class Optimiser(Protocol):
    """Moves `image` down `objective` for at most `steps` accepted steps.

    Args:
        objective: image -> `Evaluation`.
        image: the start, [1, channels, height, width] in 0..1.
        steps: how many steps to accept at most.
        evaluations: how many values and gradients to spend at most; none for no limit.
        restart: forget what was learned of the curvature after so many evaluations.
        callback: called with every `Step`, the start (step 0) included; what it raises ends
            the run.

    Raises:
        ImpastoError: the loss or its gradient is not a finite number.
    """

    def __call__(
        self,
        objective: Evaluate,
        image: Tensor,
        *,
        steps: int,
        evaluations: int | None = None,
        restart: int | None = None,
        callback: Callback | None = None,
    ) -> Outcome: ...


def lbfgs(
    objective: Evaluate,
    image: Tensor,
    *,
    steps: int,
    evaluations: int | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
) -> Outcome:
    """L-BFGS within bounds (SciPy's L-BFGS-B; Byrd, Lu, Nocedal & Zhu 1995), see `Optimiser`.

    Line search by Moré & Thuente: bracket, then narrow, until the strong Wolfe conditions hold; so
    an accepted step never raises the loss.
    """
    from scipy.optimize import Bounds, minimize

    journal = _Journal(steps, evaluations, callback)
    # Its first trial step is the gradient itself.
    descent = _Descent(objective, image, _PIXELS, journal, restart, gradient_length=1)
    bounds = Bounds(0.0, descent.per_unit)

    def round_(start: Vector) -> None:
        minimize(
            descent.evaluate,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            callback=descent.accept,
            options={"maxcor": 20, "maxiter": _ENDLESS, "maxfun": _ENDLESS, "ftol": 0, "gtol": 0},
        )

    return descent.run(round_)


def cg(
    objective: Evaluate,
    image: Tensor,
    *,
    steps: int,
    evaluations: int | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
) -> Outcome:
    """Nonlinear conjugate gradient (SciPy's CG: Polak & Ribière), see `Optimiser`.

    Strong Wolfe line search; an accepted step never raises the loss. The method knows no bounds:
    it moves angles whose cosine is the pixel, so that every angle is a pixel in range.
    """
    from scipy.optimize import minimize

    journal = _Journal(steps, evaluations, callback)
    # Its first trial step has length 1, later ones at most that of the gradient, which would hold
    # it back (four evaluations a step instead of two) if the gradient were not made long.
    descent = _Descent(objective, image, _ANGLES, journal, restart, gradient_length=1e4)

    def round_(start: Vector) -> None:
        minimize(
            descent.evaluate,
            start,
            jac=True,
            method="CG",
            callback=descent.accept,
            options={"maxiter": _ENDLESS, "gtol": 0},
        )

    return descent.run(round_)


def adam(
    objective: Evaluate,
    image: Tensor,
    *,
    steps: int,
    evaluations: int | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
    learning_rate: float = 0.02,
) -> Outcome:
    """Adam (Kingma & Ba 2014, arXiv:1412.6980), each step followed by clipping to [0, 1].

    See `Optimiser`. One evaluation a step, no line search: the loss may rise on the way.
    `learning_rate` is about how far a pixel moves in a step, in 0..1.
    """
    pixels = image.detach().clone().requires_grad_(True)
    journal = _Journal(steps, evaluations, callback)
    learned = restart or steps + 1
    try:
        for step in range(steps + 1):
            if step % learned == 0:
                optimiser = torch.optim.Adam([pixels], lr=learning_rate)
            journal.spend()
            evaluation = objective(pixels)
            _check_finite(evaluation, journal.evaluations)
            journal.accept(evaluation.loss, evaluation.parts, pixels.detach().clone())
            pixels.grad = evaluation.gradient
            optimiser.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
    except _Stop:
        pass
    return journal.outcome()


OPTIMISERS: dict[str, Optimiser] = {"lbfgs": lbfgs, "cg": cg, "adam": adam}


class _Stop(Exception):
    """The run is over."""


class _Restart(Exception):
    """The round is over, the run is not."""


@dataclass
class _Journal:
    """Counts, reports, and says when a run is over."""

    steps: int
    evaluation_budget: int | None
    callback: Callback | None
    evaluations: int = 0
    losses: list[float] = field(default_factory=list)
    last: Step | None = None
    reason: Literal["budget", "flat"] = "budget"

    def spend(self) -> None:
        """Note that an evaluation is about to be made."""
        if self.evaluations == self.evaluation_budget:
            raise _Stop
        self.evaluations += 1

    def accept(self, loss: float, parts: Mapping[str, float], image: Tensor) -> None:
        """Note a step, report it, and stop if it was the last."""
        self.losses.append(loss)
        self.last = Step(len(self.losses) - 1, self.evaluations, loss, parts, image)
        if self.callback:
            self.callback(self.last)
        if self.last.step == self.steps:
            raise _Stop
        if loss == 0 or self._is_flat():
            self.reason = "flat"
            raise _Stop

    def _is_flat(self) -> bool:
        if len(self.losses) <= FLAT_STEPS:
            return False
        before, since = min(self.losses[:-FLAT_STEPS]), min(self.losses[-FLAT_STEPS:])
        return since > before - FLAT_DECREASE * abs(before)

    def outcome(self) -> Outcome:
        if self.last is None:
            raise ImpastoError("an optimiser needs at least one evaluation; allow it more")
        return Outcome(self.last, self.reason)


class _Map(NamedTuple):
    """A change of variables u -> pixel in [0, 1], its inverse and its derivative.

    Starts are drawn inwards by `margin`, so that no pixel begins where the derivative is zero.
    """

    pixels: Callable[[Vector], Vector]
    variables: Callable[[Vector], Vector]
    slope: Callable[[Vector], Vector | float]
    margin: float


_PIXELS = _Map(lambda u: u, lambda x: x, lambda _: 1.0, margin=0.0)

# pixel = (1 - cos(pi u)) / 2, flat at black and white. Rounding to 8 bits undoes the margin.
_ANGLES = _Map(
    lambda u: (1 - np.cos(np.pi * u)) / 2,
    lambda x: np.arccos(1 - 2 * x) / np.pi,
    lambda u: np.pi / 2 * np.sin(np.pi * u),
    margin=0.499 * _GREY_LEVEL,
)


class _Descent:
    """What SciPy sees of an objective: a function of a float64 vector, scaled.

    SciPy's methods begin with a step of length 1. Variables are scaled so that this moves pixels
    by one grey level (root mean square), the loss so that its gradient begins with
    `gradient_length`. Unscaled, the first trial can be far below the float32 resolution of the
    loss, or far out of range, and the line search gives up at once.
    """

    def __init__(
        self,
        objective: Evaluate,
        image: Tensor,
        change: _Map,
        journal: _Journal,
        restart: int | None,
        *,
        gradient_length: float,
    ) -> None:
        self.objective = objective
        self.image = image
        self.change = change
        self.journal = journal
        self.restart = restart or math.inf
        self.gradient_length = gradient_length
        self.per_unit = 1 / (_GREY_LEVEL * math.sqrt(image.numel()))
        self.round_evaluations = 0
        self.loss_scale = 1.0
        # What was evaluated since the last accepted step, by its scaled loss.
        self.trials: dict[float, tuple[float, Mapping[str, float], Tensor]] = {}

    def run(self, round_: Callable[[Vector], None]) -> Outcome:
        """Call `round_` with a start until the run is over.

        A round ends of itself when its line search finds nothing lower. With a fresh history the
        next may; when that can't make a single step either, there is no more to be had.
        """
        while True:
            steps_before = len(self.journal.losses)
            self.round_evaluations = 0
            self.trials.clear()
            last = self.journal.last
            margin = 0.0 if last else self.change.margin
            pixels = (last.image if last else self.image).detach().cpu().double().numpy().ravel()
            inside = pixels.clip(margin, 1 - margin)
            try:
                round_(self.change.variables(inside) * self.per_unit)
            except _Stop:
                return self.journal.outcome()
            except _Restart:
                pass
            if len(self.journal.losses) <= max(steps_before, 1):
                self.journal.reason = "flat"
                return self.journal.outcome()

    def evaluate(self, variables: Vector) -> tuple[float, Vector]:
        """The scaled loss and its gradient with respect to the scaled variables."""
        if self.round_evaluations >= self.restart:
            raise _Restart
        self.journal.spend()
        self.round_evaluations += 1
        u = variables / self.per_unit
        pixels = torch.from_numpy(self.change.pixels(u)).to(self.image.dtype)
        image = pixels.view(self.image.shape).to(self.image.device)
        evaluation = self.objective(image)
        _check_finite(evaluation, self.journal.evaluations)
        gradient: Vector = evaluation.gradient.cpu().double().numpy().ravel()
        gradient = gradient * self.change.slope(u) / self.per_unit
        if self.round_evaluations == 1:
            length = float(np.linalg.norm(gradient))
            self.loss_scale = self.gradient_length / length if length > 0 else 1.0
        loss = evaluation.loss * self.loss_scale
        self.trials[loss] = (evaluation.loss, evaluation.parts, image)
        if self.journal.last is None:
            self.journal.accept(evaluation.loss, evaluation.parts, image)
        return loss, gradient * self.loss_scale

    # SciPy looks at the name of this parameter to know what to pass.
    def accept(self, intermediate_result: OptimizeResult) -> None:
        """Report the point that the line search has settled on."""
        accepted = self.trials[float(intermediate_result.fun)]
        self.trials.clear()
        self.journal.accept(*accepted)


def _check_finite(evaluation: Evaluation, evaluations: int) -> None:
    if not (math.isfinite(evaluation.loss) and bool(evaluation.gradient.isfinite().all())):
        raise ImpastoError(
            f"the loss is not a finite number after {evaluations} evaluations; "
            "use smaller weights, or pictures without such values"
        )
