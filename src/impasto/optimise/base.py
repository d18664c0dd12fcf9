"""Optimisers that move an image down an objective: L-BFGS, conjugate gradient, Adam.

All three have the same interface and know nothing of what the objective means: it is any function
from an image [batch, channels, height, width] to an `Evaluation`. Pixels stay in [0, 1] *during*
the optimisation: clipping only at the end would throw away what was paid for out there (on a
bright painting, most of the style).
"""

from __future__ import annotations

import contextlib
import inspect
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.objective import Evaluation
from impasto.optimise.line_search import End, Length, Point, strong_wolfe

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Spectrum = Literal["photo", "refined", "painted", "noise"]
Beyond = Literal["mirrored", "repeated"]
Evaluate = Callable[[Tensor], Evaluation]
State = dict[str, Tensor]
Array = npt.NDArray[np.floating]
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

FLAT_STEPS = 20
FLAT_DECREASE = 1e-4
"""The loss has stopped falling when this many steps lowered it by less than this share."""

HISTORY = 20
"""How many pairs of past steps L-BFGS remembers, where there is memory for them."""

_GREY_LEVEL = 1 / 255
_KEPT_BYTES = 256 * 2**20  # of the history, in a state
_LEVEL = 1e-12  # what falls by less along a direction does not fall
_LINE_SEARCH = 25  # evaluations at most for one step
_ENDLESS = 2**31 - 1  # the journal ends a run


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
        state: of the `Step` whose image this is, to go on from there.
        spectrum: what the image begins as, see `_spectral_gains`.
        beyond: what lies beyond the image's borders, to the variables: its mirror image, or the
            image again (one that is to repeat without a seam).

    Raises:
        ImpastoError: the image, the loss or its gradient is not of finite numbers.
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
        state: State | None = None,
        spectrum: Spectrum = "photo",
        beyond: Beyond = "mirrored",
    ) -> Outcome: ...


@ordinary()
def lbfgs(
    objective: Evaluate,
    image: Tensor,
    *,
    steps: int,
    evaluations: int | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
    state: State | None = None,
    spectrum: Spectrum = "photo",
    beyond: Beyond = "mirrored",
    history: int = HISTORY,
) -> Outcome:
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.5; as torch has it), see `Optimiser`.

    Line search until the strong Wolfe conditions hold, by cubic interpolation; so an accepted step
    never raises the loss. `history` is how many pairs of past steps it remembers: each takes 8
    bytes for every value of the image, and fewer make it slower.
    """
    journal = _Journal(steps, evaluations, callback)
    basis = _Basis(image.shape, torch.float32, spectrum, beyond)
    return _Lbfgs(objective, journal, restart, basis, history).run(image.detach(), state)


@ordinary()
def cg(
    objective: Evaluate,
    image: Tensor,
    *,
    steps: int,
    evaluations: int | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
    state: State | None = None,
    spectrum: Spectrum = "photo",
    beyond: Beyond = "mirrored",
) -> Outcome:
    """Nonlinear conjugate gradient (SciPy's CG: Polak & Ribière), see `Optimiser`.

    Strong Wolfe line search, likewise: an accepted step never raises the loss. It keeps no
    `state` beyond the image.
    """
    del state
    journal = _Journal(steps, evaluations, callback)
    basis = _Basis(image.shape, torch.float64, spectrum, beyond)
    return _ConjugateGradient(objective, image, journal, restart, basis).run()


@ordinary()
def adam(
    objective: Evaluate,
    image: Tensor,
    *,
    steps: int,
    evaluations: int | None = None,
    restart: int | None = None,
    callback: Callback | None = None,
    state: State | None = None,
    spectrum: Spectrum = "photo",
    beyond: Beyond = "mirrored",
    learning_rate: float = 0.02,
) -> Outcome:
    """Adam (Kingma & Ba 2014, arXiv:1412.6980), each step followed by clipping to [0, 1].

    See `Optimiser`. One evaluation a step, no line search: the loss may rise on the way.
    `learning_rate` is about how far a pixel moves in a step, in 0..1.
    """
    del spectrum, beyond
    pixels = image.detach().clone().requires_grad_(True)
    journal = _Journal(steps, evaluations, callback)
    learned = restart or steps + 1
    moments = _restored_moments(pixels, state)

    def keep() -> State:
        return {name: value.detach().clone() for name, value in optimiser.state[pixels].items()}

    try:
        for step in range(steps + 1):
            if step % learned == 0:
                optimiser = torch.optim.Adam([pixels], lr=learning_rate)
                if step == 0 and moments:
                    optimiser.state[pixels] = moments
            journal.spend()
            evaluation = objective(pixels)
            _check_finite(pixels, evaluation, journal.evaluations)
            journal.accept(evaluation.loss, evaluation.parts, pixels.detach().clone(), keep)
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

    def accept(
        self,
        loss: float,
        parts: Mapping[str, float],
        image: Tensor,
        keep: Callable[[], State] | None = None,
    ) -> None:
        """Note a step, report it, and stop if it was the last."""
        self.losses.append(loss)
        state = dict if keep is None else _Learned(keep, self)
        self.last = Step(len(self.losses) - 1, self.evaluations, loss, parts, image, state)
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


class _Learned:
    """`Step.state`: what an optimiser has learned, until its next step.

    It holds neither optimiser nor journal. They hold it, by way of the last step, and would keep
    one another, and hundreds of megabytes, until Python looks for such circles.
    """

    def __init__(self, keep: Callable[[], State], journal: _Journal) -> None:
        self.step = len(journal.losses)
        self.journal = weakref.ref(journal)
        self.keep = weakref.WeakMethod(keep) if inspect.ismethod(keep) else weakref.ref(keep)

    def __call__(self) -> State:
        keep, journal = self.keep(), self.journal()
        if keep is None or journal is None or len(journal.losses) != self.step:
            return {}
        return keep()


class _Basis:
    """The waves that variables are amplitudes of, and how much each is weighed: P.

    P is symmetric, so that it serves variables and gradients alike. Waves are those of luminance
    and two opponent colours; cosines where the image is mirrored beyond its borders, so that
    nothing wraps around, and Fourier's where it is repeated, so that all of it does.
    """

    def __init__(
        self, shape: torch.Size, dtype: torch.dtype, spectrum: Spectrum, beyond: Beyond
    ) -> None:
        _, channels, height, width = shape
        if beyond == "mirrored":
            ramps = (torch.arange(n, dtype=torch.float32, device="cpu") for n in (height, width))
            rows, columns = (ramp / (2 * len(ramp)) for ramp in ramps)
        else:
            rows, columns = (
                torch.fft.fftfreq(n, dtype=torch.float32, device="cpu") for n in (height, width)
            )
        frequency: Array = torch.hypot(rows[:, None], columns).double().numpy()
        frequency[0, 0] = 1 / (2 * max(height, width))  # the mean counts as the longest wave
        self.dtype = dtype
        gains = torch.from_numpy(_spectral_gains(channels, frequency, spectrum))
        self.gains: Array = gains.to(dtype).numpy()
        self.beyond = beyond
        self.opponents = _OPPONENTS.to(dtype) if channels == 3 and spectrum != "photo" else None

    def weighed(self, x: Tensor) -> Tensor:
        """P x for x [1, channels, height, width] on the CPU."""
        if self.opponents is not None:
            x = torch.tensordot(self.opponents, x[0], dims=1)[None]
        transform = self._mirrored if self.beyond == "mirrored" else self._repeated
        result = torch.from_numpy(transform(x.numpy()))
        if self.opponents is not None:
            result = torch.tensordot(self.opponents.T, result[0], dims=1)[None]
        return result

    def _mirrored(self, x: Array) -> Array:
        from scipy.fft import dctn, idctn

        workers = torch.get_num_threads()
        spectrum = dctn(x, axes=(-2, -1), norm="ortho", workers=workers)
        spectrum *= self.gains
        result: Array = idctn(
            spectrum, axes=(-2, -1), norm="ortho", workers=workers, overwrite_x=True
        )
        return result

    def _repeated(self, x: Array) -> Array:
        from scipy.fft import irfft2, rfft2

        workers = torch.get_num_threads()
        spectrum = rfft2(x, workers=workers)
        spectrum *= self.gains[..., : spectrum.shape[-1]]
        result: Array = irfft2(spectrum, x.shape[-2:], workers=workers, overwrite_x=True)
        return result


class _Variables:
    """The variables z that stand for an image while it is optimised, without bounds.

        pixel = (1 - cos(pi u)) / 2,    u = u0 + P z / s

    The cosine keeps every pixel in range, whatever z is. P weighs spatial frequencies, of
    luminance and of colour, so that the loss bends about alike for all (`_Basis`). s and
    the scale of the loss are such that a step of length 1 moves pixels by about a grey level:
    unscaled, an optimiser's first step can be far below the float32 resolution of the loss, or far
    out of range, and the line search gives up at once.
    """

    def __init__(self, image: Tensor, basis: _Basis, angles: Tensor | None = None) -> None:
        self.shape, self.dtype, self.device = image.shape, image.dtype, image.device
        self.basis = basis
        self.per_unit = 1 / (_GREY_LEVEL * math.sqrt(image.numel()))
        if angles is None:
            # At black and white the cosine is flat and a pixel would be stuck: they begin half a
            # grey level inside, which rounding to 8 bits undoes.
            margin = 0.499 * _GREY_LEVEL
            pixels = image.detach().cpu().to(basis.dtype).clamp(margin, 1 - margin)
            angles = (1 - pixels.mul_(2)).acos_().div_(math.pi)
        self.angles = angles
        self.scale = 1.0

    def angles_at(self, z: Tensor) -> Tensor:
        """u, shaped like the image."""
        return self._weighed(z.view(self.shape)).add_(self.angles)

    def image_at(self, z: Tensor) -> Tensor:
        """The image that z stands for."""
        pixels = self.angles_at(z).mul_(math.pi).cos_().neg_().add_(1).mul_(0.5)
        return pixels.to(self.device, self.dtype)

    def slope_at(self, z: Tensor, gradient: Tensor) -> Tensor:
        """The scaled gradient with respect to z, flat."""
        slope = self.angles_at(z).mul_(math.pi).sin_().mul_(0.5 * math.pi * self.scale)
        return self._weighed(slope.mul_(gradient.to(slope))).view(-1)

    def scale_by(self, slope: Tensor) -> None:
        """Choose the scale of the loss, from its first gradient."""
        # CG's later first trials are at most as long as the gradient: it must not begin short.
        length = float(slope.norm())
        self.scale *= 1e4 / length if length > 0 else 1.0

    def _weighed(self, x: Tensor) -> Tensor:
        """P x / s."""
        return self.basis.weighed(x).div_(self.per_unit)


@dataclass(frozen=True)
class _Trial:
    """What was found at a point of a line: the slope is with respect to the variables, scaled."""

    evaluation: Evaluation
    image: Tensor
    slope: Tensor


class _Lbfgs:
    """Rounds of L-BFGS on the variables of an image.

    A round ends of itself when its line search finds nothing lower. With a fresh history the next
    may; when that can't make a single step either, there is no more to be had.

    Arithmetic and decisions are those of torch.optim.LBFGS. What differs is memory: that keeps up
    to ten vectors as large as the image beside the history, some of them twice, and each is 48 MB
    at 2048 pixels.
    """

    def __init__(
        self,
        objective: Evaluate,
        journal: _Journal,
        restart: int | None,
        basis: _Basis,
        history: int,
    ) -> None:
        self.objective = objective
        self.journal = journal
        self.basis = basis
        self.restart = restart or math.inf
        self.history = history

    def run(self, image: Tensor, state: State | None) -> Outcome:
        """Optimise until the run is over."""
        try:
            while True:
                steps_before = len(self.journal.losses)
                self._begin_round(image, state)
                with contextlib.suppress(_RoundOver):
                    self.here = self._start(image)
                    del image, state
                    while True:
                        self._step()
                if len(self.journal.losses) <= max(steps_before, 1):
                    self.journal.reason = "flat"
                    break
                assert self.journal.last
                image, state = self.journal.last.image, None
        except _Stop:
            pass
        return self.journal.outcome()

    def _begin_round(self, image: Tensor, state: State | None) -> None:
        angles = state["angles"] if state else None
        self.variables = _Variables(image, self.basis, angles)
        self.home = torch.zeros(image.numel(), dtype=torch.float32, device="cpu")
        self.round_evaluations = 0
        # Differences of slopes and of variables, and one over their product, oldest first.
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.curvature: float | Tensor = 1
        # The last step: its direction, how far it went, and the slope where it began.
        self.gone: tuple[Tensor, Length, Tensor] | None = None
        if state:
            self._restore(state)

    def _start(self, image: Tensor) -> _Trial:
        """Evaluate the start of a round."""
        # The image itself, without the margin: it may be the minimum.
        evaluation = self._evaluate(image)
        if self.variables.scale == 1.0:
            self.variables.scale_by(self.variables.slope_at(self.home, evaluation.gradient))
        slope = self.variables.slope_at(self.home, evaluation.gradient)
        if self.journal.last is None:
            self.journal.accept(evaluation.loss, evaluation.parts, image, self._keep)
        return _Trial(_without_gradient(evaluation), image, slope)

    def _step(self) -> None:
        """One accepted step, or the end of the round."""
        slope, loss = self.here.slope, self.here.evaluation.loss * self.variables.scale
        if not slope.any():
            raise _RoundOver
        if is_first := self.gone is None and not self.pairs:
            direction = slope.neg()
            # Of length 1; torch has the gradient's 1-norm for that.
            longest = 1.0 / slope.abs().sum()
            most = longest if longest < 1.0 else 1.0
            length: Length = most * float(slope.abs().sum() / slope.norm())
        else:
            direction, length = self._direction(slope), 1.0
        along = slope.dot(direction)
        if not is_first:  # what is interrupted now begins with this direction again
            self.gone = direction, 0.0, slope
        if along > -_LEVEL:
            raise _RoundOver
        start = Point(End(0.0, loss, along), self.here)
        del slope
        known: WeakValueDictionary[bytes, _Trial] = WeakValueDictionary()
        known[self._place(self.home)] = self.here

        def look(length: Length) -> Point[_Trial]:
            z = torch.add(self.home, direction, alpha=float(length))
            place = self._place(z)
            trial = known.get(place)  # too close to another for float32 to tell them apart
            if trial is None:
                image = self.variables.image_at(z)
                del z
                evaluation = self._evaluate(image)
                z = torch.add(self.home, direction, alpha=float(length))
                slope = self.variables.slope_at(z, evaluation.gradient)
                trial = _Trial(_without_gradient(evaluation), image, slope)
                known[place] = trial
            end = End(
                length, trial.evaluation.loss * self.variables.scale, trial.slope.dot(direction)
            )
            return Point(end, trial)

        largest = float(direction.abs().max())
        point = strong_wolfe(look, start, length, largest, _LINE_SEARCH - 1)
        del start
        assert self.journal.last
        trial = point.found
        if trial.evaluation.loss >= self.journal.last.loss:
            raise _RoundOver
        self.home.add_(direction, alpha=float(point.end.length))
        self.gone = direction, point.end.length, self.here.slope
        self.here = trial
        evaluation, image = trial.evaluation, trial.image
        self.journal.accept(evaluation.loss, evaluation.parts, image, self._keep)

    def _direction(self, slope: Tensor) -> Tensor:
        """Downhill, by all that is remembered (Nocedal & Wright, algorithm 7.4).

        The last step becomes a pair first, where its vectors lie.
        """
        if self.gone is not None:
            (step, length, before), self.gone = self.gone, None
            difference = before.neg_().add_(slope)
            step.mul_(float(length))
            product = difference.dot(step)
            if product > 1e-10:
                del self.pairs[: max(0, len(self.pairs) + 1 - self.history)]
                self.pairs.append((difference, step, 1.0 / product))
                self.curvature = product / difference.dot(difference)
        direction = slope.neg()
        shares = []
        for difference, step, factor in reversed(self.pairs):
            share = step.dot(direction) * factor
            direction.add_(difference, alpha=-float(share))
            shares.append(share)
        direction.mul_(self.curvature)
        for (difference, step, factor), share in zip(self.pairs, reversed(shares), strict=True):
            direction.add_(step, alpha=float(share - difference.dot(direction) * factor))
        return direction

    def _evaluate(self, image: Tensor) -> Evaluation:
        if self.round_evaluations >= self.restart:
            raise _RoundOver
        self.journal.spend()
        evaluation = self.objective(image)
        _check_finite(image, evaluation, self.journal.evaluations)
        self.round_evaluations += 1
        return evaluation

    @staticmethod
    def _place(z: Tensor) -> bytes:
        """What tells one point of a line from another: some of its coordinates."""
        return z[:: max(1, z.numel() // 1024)].numpy().tobytes()

    def _keep(self) -> State:
        """What it takes to go on from the last accepted step as if nothing had happened.

        Even in the middle of the next one, where Ctrl-C may come. Nothing is copied: what there
        is changes with the next step.
        """
        state = {
            "angles": self.variables.angles_at(self.home),
            "scale": torch.tensor(self.variables.scale, dtype=torch.float64),
        }
        if self.gone is not None:
            direction, length, slope = self.gone
            state |= {"d": direction, "prev_flat_grad": slope}
            state["t"] = torch.as_tensor(length, dtype=torch.float64)
            state["H_diag"] = torch.as_tensor(self.curvature, dtype=torch.float64)
            newest = self.pairs[-max(1, int(_KEPT_BYTES / (8 * self.home.numel()))) :]
            for index, (difference, step, _) in enumerate(newest):
                state |= {f"old_dirs.{index}": difference, f"old_stps.{index}": step}
            factors = [float(factor) for _, _, factor in newest]
            state["ro"] = torch.tensor(factors, dtype=torch.float32)
        return state

    def _restore(self, state: State) -> None:
        self.variables.scale = float(state["scale"])
        if "d" not in state:
            return
        count = len(state["ro"])
        self.pairs = [
            (state[f"old_dirs.{index}"], state[f"old_stps.{index}"], state["ro"][index])
            for index in range(max(0, count - self.history), count)
        ]
        self.curvature = state["H_diag"].float()
        self.gone = state["d"], float(state["t"]), state["prev_flat_grad"]


def _without_gradient(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, gradient=torch.empty(0, dtype=torch.float32, device="cpu"))


class _ConjugateGradient:
    """Rounds of SciPy's conjugate gradient on the variables of an image, in float64."""

    def __init__(
        self,
        objective: Evaluate,
        image: Tensor,
        journal: _Journal,
        restart: int | None,
        basis: _Basis,
    ) -> None:
        self.objective = objective
        self.image: Tensor | None = image.detach()
        self.journal = journal
        self.basis = basis
        self.restart = restart or math.inf
        self.round_evaluations = 0
        # What was evaluated since the last accepted step, by its scaled loss. Not where: that is
        # as large as the picture, and SciPy tells.
        self.trials: dict[float, tuple[float, Mapping[str, float]]] = {}

    def run(self) -> Outcome:
        """Optimise until the run is over."""
        from threadpoolctl import ThreadpoolController

        # SciPy's BLAS keeps its idle threads spinning, on the very cores that torch works on:
        # one and a half times the time an evaluation, on two cores.
        with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
            return self._rounds()

    def _rounds(self) -> Outcome:
        from scipy.optimize import minimize

        while True:
            steps_before = len(self.journal.losses)
            if self.journal.last:
                self.image = self.journal.last.image
            assert self.image is not None
            self.variables = _Variables(self.image, self.basis)
            self.round_evaluations = 0
            self.trials.clear()
            try:
                minimize(
                    self.evaluate,
                    np.zeros(self.image.numel()),
                    jac=True,
                    method="CG",
                    callback=self.accept,
                    options={"maxiter": _ENDLESS, "gtol": 0},
                )
            except _Stop:
                return self.journal.outcome()
            except _RoundOver:
                pass
            if len(self.journal.losses) <= max(steps_before, 1):
                self.journal.reason = "flat"
                return self.journal.outcome()

    def evaluate(self, variables: Vector) -> tuple[float, Vector]:
        """The scaled loss and its gradient with respect to the variables."""
        if self.round_evaluations >= self.restart:
            raise _RoundOver
        self.journal.spend()
        z = torch.from_numpy(variables)
        # The start itself, without the margin: it may be the minimum.
        image, self.image = self.image, None
        if image is None:
            image = self.variables.image_at(z)
        evaluation = self.objective(image)
        _check_finite(image, evaluation, self.journal.evaluations)
        if self.journal.last is not None:
            del image
        slope = self.variables.slope_at(z, evaluation.gradient)
        if self.round_evaluations == 0:
            self.variables.scale_by(slope)
            slope = slope * self.variables.scale
        self.round_evaluations += 1
        loss = evaluation.loss * self.variables.scale
        self.trials[loss] = evaluation.loss, evaluation.parts
        if self.journal.last is None:
            self.journal.accept(evaluation.loss, evaluation.parts, image)
        return loss, slope.numpy()

    # SciPy looks at the name of this parameter to know what to pass.
    def accept(self, intermediate_result: OptimizeResult) -> None:
        """Report the point that the line search has settled on."""
        loss, parts = self.trials[float(intermediate_result.fun)]
        self.trials.clear()
        if self.journal.last and loss > self.journal.last.loss:
            raise _RoundOver  # what rounding errors defeat
        image = self.variables.image_at(torch.from_numpy(intermediate_result.x))
        self.journal.accept(loss, parts, image)


def _restored_moments(pixels: Tensor, state: State | None) -> State | None:
    """Adam's, for these pixels."""
    if not state:
        return None
    return {
        name: value.to(pixels.device) if value.dim() else value for name, value in state.items()
    }


# Orthonormal: luminance, red against blue, green against both.
_OPPONENTS = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float32, device="cpu")
_OPPONENTS /= _OPPONENTS.norm(dim=1, keepdim=True)

# How much the default loss bends along waves of each frequency, in cycles a pixel, for each of the
# opponents: measured on half-painted samples (docs/design.md). Only the ratios matter.
_FREQUENCIES = (0.004, 0.012, 0.023, 0.045, 0.09, 0.16, 0.25, 0.35, 0.45, 0.625)
_CURVATURES = (
    (0.94, 1.68, 3.4, 7.2, 13.7, 13.7, 7.6, 3.2, 1.4, 1.1),
    (5.1, 6.0, 11.3, 13.0, 5.7, 1.0, 0.55, 0.66, 0.8, 1.06),
    (7.4, 11.5, 24.2, 25.0, 8.8, 1.44, 0.56, 0.63, 0.8, 1.05),
)


_FINE_COLOUR = 0.06
"""Colours that change faster, in cycles a pixel, are held back in a painting."""


def _spectral_gains(channels: int, frequency: Array, spectrum: Spectrum) -> Array:
    """How much waves of a frequency [height, width], in cycles a pixel, are weighed.

    [1 or channels, height, width], of mean square 1.

    From a photo, f^-1/2: style and content losses bend far more for high frequencies than for
    broad changes of colour, and without it the optimiser spends its first fifty steps on finding
    that out. From what a coarser level has painted (`"refined"`), f^-1/4 times the measured
    curvature to the power -1/4: broad changes are made, and the bends that are left hold up the
    rest. In a painting (`"painted"`) fine changes of colour are held back beyond that, by f^-2:
    layers hardly see them, so that they would appear as speckle and hardly go again. From noise,
    f^-0.15, a little less for colours: fine detail is as far from noise as everything else is, and
    what layers see least of.
    """
    if spectrum in ("refined", "painted"):
        along = np.log(frequency)
        known = np.log(_FREQUENCIES)
        bends = [np.interp(along, known, np.log(row)) for row in _CURVATURES[:channels]]
        gains = frequency**-0.25 * np.exp(-0.25 * np.stack(bends))
        if spectrum == "painted":
            gains[1:] /= 1 + (frequency / _FINE_COLOUR) ** 2
    elif spectrum == "noise":
        colours = np.array([1.0, 0.8, 0.8])[:channels]
        gains = frequency**-0.15 * colours[:, None, None]
    else:
        gains = frequency[None] ** -0.5
    normalised: Array = gains / np.sqrt(np.square(gains).mean())
    return normalised


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
