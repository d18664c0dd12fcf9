"""Optimisers that move an image down an objective: L-BFGS, conjugate gradient, Adam.

All three have the same interface and know nothing of what the objective means: it is any function
from an image [batch, channels, height, width] to an `Evaluation`. Pixels stay in [0, 1] *during*
the optimisation: clipping only at the end would throw away what was paid for out there (on a
bright painting, most of the style).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.objective import Evaluation

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Evaluate = Callable[[Tensor], Evaluation]
Array = npt.NDArray[np.float64]
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
    """L-BFGS (SciPy's L-BFGS-B; Byrd, Lu, Nocedal & Zhu 1995) with 20 pairs, see `Optimiser`.

    Line search by Moré & Thuente: bracket, then narrow, until the strong Wolfe conditions hold; so
    an accepted step never raises the loss.
    """
    descent = _Descent(objective, image, _Journal(steps, evaluations, callback), restart)
    return descent.run("L-BFGS-B", maxcor=20, maxiter=_ENDLESS, maxfun=_ENDLESS, ftol=0, gtol=0)


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

    Strong Wolfe line search, likewise: an accepted step never raises the loss.
    """
    descent = _Descent(objective, image, _Journal(steps, evaluations, callback), restart)
    return descent.run("CG", maxiter=_ENDLESS, gtol=0)


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


class _RoundOver(Exception):
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


class _Descent:
    """What SciPy sees of an objective: a function of a float64 vector z without bounds.

        pixel = (1 - cos(pi u)) / 2,    u = u0 + P z / s

    The cosine keeps every pixel in range, whatever z is. P damps high spatial frequencies by
    f^-1/2: style and content losses bend far more for these than for broad changes of colour, and
    without it the optimiser spends its first fifty steps on finding that out. s and the scale of
    the loss are such that SciPy's first step, which has length 1, moves pixels by about a grey
    level: unscaled, it can be far below the float32 resolution of the loss, or far out of range,
    and the line search gives up at once.
    """

    def __init__(
        self, objective: Evaluate, image: Tensor, journal: _Journal, restart: int | None
    ) -> None:
        self.objective = objective
        self.image = image.detach()
        self.journal = journal
        self.restart = restart or math.inf
        self.per_unit = 1 / (_GREY_LEVEL * math.sqrt(image.numel()))
        self.gain = _spectral_gain(image.shape[-2], image.shape[-1])
        self.angles: Array = np.empty(0)
        self.round_evaluations = 0
        self.loss_scale = 1.0
        # What was evaluated since the last accepted step, by its scaled loss.
        self.trials: dict[float, tuple[float, Mapping[str, float], Tensor]] = {}

    def run(self, method: Literal["L-BFGS-B", "CG"], **options: float) -> Outcome:
        """Minimise in rounds until the run is over.

        A round ends of itself when its line search finds nothing lower. With a fresh history the
        next may; when that can't make a single step either, there is no more to be had.
        """
        from scipy.optimize import minimize
        from threadpoolctl import ThreadpoolController

        # SciPy's BLAS keeps its idle threads spinning, on the very cores that torch works on:
        # one and a half times the time an evaluation, on two cores.
        with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
            return self._rounds(minimize, method, options)

    def _rounds(
        self, minimize: Callable[..., object], method: str, options: dict[str, float]
    ) -> Outcome:
        while True:
            steps_before = len(self.journal.losses)
            self._begin_round()
            try:
                minimize(
                    self.evaluate,
                    np.zeros(self.image.numel()),
                    jac=True,
                    method=method,
                    callback=self.accept,
                    options=options,
                )
            except _Stop:
                return self.journal.outcome()
            except _RoundOver:
                pass
            if len(self.journal.losses) <= max(steps_before, 1):
                self.journal.reason = "flat"
                return self.journal.outcome()

    def _begin_round(self) -> None:
        if self.journal.last:
            self.image = self.journal.last.image
        # At black and white the cosine is flat and a pixel would be stuck: they begin half a grey
        # level inside, which rounding to 8 bits undoes.
        margin = 0.499 * _GREY_LEVEL
        pixels = self.image.cpu().double().numpy().clip(margin, 1 - margin)
        self.angles = np.arccos(1 - 2 * pixels) / np.pi
        self.round_evaluations = 0
        self.trials.clear()

    def evaluate(self, variables: Vector) -> tuple[float, Vector]:
        """The scaled loss and its gradient with respect to the variables."""
        if self.round_evaluations >= self.restart:
            raise _RoundOver
        self.journal.spend()
        self.round_evaluations += 1
        angles = self.angles + self._filtered(variables)
        if self.round_evaluations == 1:
            image = self.image  # the start itself, without the margin: it may be the minimum
        else:
            pixels = torch.from_numpy((1 - np.cos(np.pi * angles)) / 2)
            image = pixels.to(self.image.dtype).to(self.image.device)
        evaluation = self.objective(image)
        _check_finite(evaluation, self.journal.evaluations)
        slope = np.pi / 2 * np.sin(np.pi * angles)
        gradient = self._filtered(evaluation.gradient.cpu().double().numpy() * slope)
        if self.round_evaluations == 1:
            # CG's later first trials are at most as long as the gradient: it must not begin short.
            length = float(np.linalg.norm(gradient))
            self.loss_scale = 1e4 / length if length > 0 else 1.0
        loss = evaluation.loss * self.loss_scale
        self.trials[loss] = (evaluation.loss, evaluation.parts, image)
        if self.journal.last is None:
            self.journal.accept(evaluation.loss, evaluation.parts, image)
        return loss, gradient.ravel() * self.loss_scale

    # SciPy looks at the name of this parameter to know what to pass.
    def accept(self, intermediate_result: OptimizeResult) -> None:
        """Report the point that the line search has settled on."""
        accepted = self.trials[float(intermediate_result.fun)]
        self.trials.clear()
        if self.journal.last and accepted[0] > self.journal.last.loss:
            raise _RoundOver  # how L-BFGS-B ends a line search that rounding errors defeat
        self.journal.accept(*accepted)

    def _filtered(self, x: Array) -> Array:
        """P x / s, which is symmetric: it serves variables and gradients alike."""
        from scipy.fft import dctn, idctn

        # The cosine transform mirrors a picture at its borders, so none wraps around.
        spectrum = dctn(x.reshape(self.image.shape), axes=(-2, -1), norm="ortho")
        filtered: Array = idctn(self.gain * spectrum, axes=(-2, -1), norm="ortho")
        return filtered / self.per_unit


def _spectral_gain(height: int, width: int) -> Array:
    """f^-1/2 for every cosine [height, width], of mean square 1; f in cycles a pixel."""
    vertical = np.arange(height)[:, None] / (2 * height)
    horizontal = np.arange(width)[None] / (2 * width)
    frequency = np.hypot(vertical, horizontal)
    frequency[0, 0] = 1 / (2 * max(height, width))  # the mean counts as the longest wave
    gain = frequency**-0.5
    normalised: Array = gain / np.sqrt(np.square(gain).mean())
    return normalised


def _check_finite(evaluation: Evaluation, evaluations: int) -> None:
    if not (math.isfinite(evaluation.loss) and bool(evaluation.gradient.isfinite().all())):
        raise ImpastoError(
            f"the loss is not a finite number after {evaluations} evaluations; "
            "use smaller weights, or pictures without such values"
        )
