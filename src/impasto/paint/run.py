"""A picture on its way: painted level by level, step by step, for whoever iterates.

painting = stylizer.start("photo.jpg")
for step in painting:
    ...
painting.artwork.save("painted.png")
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from torch import Tensor

from impasto import device as machine
from impasto.device import ordinary
from impasto.kernels import ops
from impasto.losses.objective import Objective
from impasto.optimise.base import Beyond, Callback, Descent, Optimiser, Spectrum, State, Step
from impasto.paint.artworks import Artwork, Interrupted, Stopped
from impasto.paint.checkpoints import Checkpoint, Keeper, Progress
from impasto.paint.levels import STROKES, Level, Pyramid, enlarged, share_out
from impasto.pictures import images


class Problem(Protocol):
    """What is to be painted, at any size.

    `content` is the photo at a level, [1, C, height, width]; `objective` what its painting is to
    minimise; `start` where to begin, at the first level; `refine` what a level begins with, from
    what was painted at the one before; `show` makes an RGB image of `Level.size` of one that is
    being optimised. `spectrum`, at later levels `refined`, and `beyond` are what the optimiser is
    told of the start.
    """

    pyramid: Pyramid = STROKES
    spectrum: Spectrum = "photo"
    refined: Spectrum = "refined"
    beyond: Beyond = "mirrored"

    def content(self, level: Level) -> Tensor: ...
    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]: ...
    def start(self, level: Level, content: Tensor) -> Tensor: ...

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:
        del before
        return enlarged(painted, (level.size[1], level.size[0]))

    def show(self, level: Level, image: Tensor) -> Tensor:
        del level
        return image

    def limits(self) -> Mapping[str, Any]:
        """What a record has to tell of how the work was cut to the memory there was."""
        return {}


class Painting(Iterator[Step]):
    """One picture on its way; to iterate is to paint, the start (step 0) first.

    Whoever iterates may stop after any step: what was painted is in `artwork`, and `close` (or
    leaving a `with` block) writes the checkpoint, if one is kept, and gives all memory back. `stop`
    has another thread end it. Whatever is raised on the way, KeyboardInterrupt for one, the
    picture of the last step is in `artwork`, and the checkpoint is written.

    Args:
        problem: what to paint. levels: at which sizes. size: (width, height) of what is shown.
        name: what errors call the picture. record: what is known of it before it is painted.
        evaluations: how many to spend at most. restart: see `Settings`.
        keeper: keeps the checkpoint; `begun` is one of the run before its first step.
        saved: a checkpoint to go on from; its tensors are taken out of it.

    Raises:
        ImpastoError: on the way: it does not fit into memory, or the loss is no number.
    """

    def __init__(
        self,
        problem: Problem,
        levels: Sequence[Level],
        name: str,
        record: Mapping[str, Any],
        *,
        size: tuple[int, int] | None = None,
        evaluations: int | None = None,
        restart: int | None = None,
        keeper: Keeper | None = None,
        begun: Checkpoint | None = None,
        saved: Checkpoint | None = None,
    ) -> None:
        self.name = name
        self.size = size or levels[-1].size
        self.planned = sum(level.steps for level in levels)
        self.last: Step | None = None
        self.stopped: Stopped = "interrupted"
        self._problem = problem
        self._levels = levels
        self._record = record
        self._restart = restart
        self._keeper, self._begun = keeper, begun
        self._progress = Progress()
        self._image: Tensor | None = None
        self._learned: State = {}
        self._descent: Descent | None = None
        if saved:
            self._progress = saved.progress
            self._image = saved.tensors.pop("image")
            self._learned = {name.removeprefix(_LEARNED): t for name, t in saved.tensors.items()}
            saved.tensors.clear()
        self._budgets: list[int] | None = None
        if evaluations is not None:
            self._budgets = share_out(evaluations, len(levels), problem.pyramid)
        self._earlier = self._progress.seconds
        self._began: float | None = None
        self._stopping = threading.Event()
        self._before = (0, 0)  # steps and evaluations of this level, when the descent began
        self._is_open = True

    def __next__(self) -> Step:
        if self._began is None:
            self._began = time.perf_counter()
        if self._stopping.is_set():
            self.close()
        if not self._is_open:
            raise StopIteration
        try:
            width, height = self.size
            with ordinary(), machine.fitting(f"{self.name} at {width} x {height} pixels"):
                step = self._next_step()
        except BaseException:
            self.close()
            raise
        if step is None:
            self.close()
            raise StopIteration
        self.last = step
        self._keep()
        return step

    def stop(self) -> None:
        """End it before its next step, from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Write the checkpoint of a run that is not at its end, and give all memory back."""
        if not self._is_open:
            return
        self._count_seconds()
        # Pressed once more: the checkpoint before this one is whole, and the picture is here.
        with contextlib.suppress(KeyboardInterrupt):
            if self.stopped == "interrupted" and self.last is not None:
                self._keep(now=True)
        with contextlib.suppress(KeyboardInterrupt):
            if self._descent is not None:
                self._descent.close()
            self._descent = None
            ops.clear()
            machine.give_back()
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    @property
    def checkpoint(self) -> Path | None:
        """The file that the run is kept in, if any."""
        return self._keeper.path if self._keeper else None

    @property
    def artwork(self) -> Artwork:
        """The picture as it is now, as large as was asked for; after the first step."""
        step = self.last
        assert step, "nothing is painted yet"
        self._count_seconds()
        record = {
            **self._record,
            "levels": [list(level.size) for level in self._levels],
            "stopped": self.stopped,
            "steps": step.step,
            "evaluations": step.evaluations,
            "parts": dict(step.parts),
            "losses": list(self._progress.losses),
            **self._problem.limits(),
        }
        return Artwork(
            images.resize(images.to_image(step.image), self.size),
            list(self._progress.losses),
            step.parts,
            step.evaluations,
            self.stopped,
            self._progress.seconds,
            record,
            self.checkpoint,
        )

    def _count_seconds(self) -> None:
        if self._is_open and self._began is not None:
            self._progress.seconds = self._earlier + time.perf_counter() - self._began

    def _keep(self, *, now: bool = False) -> None:
        if self._keeper:
            self._keeper.keep(self._state, now=now)

    def _state(self) -> Checkpoint:
        assert self._begun
        assert self._image is not None
        self._count_seconds()
        learned = self._descent.state() if self._descent else self._learned
        tensors = {f"{_LEARNED}{name}": tensor for name, tensor in learned.items()}
        tensors["image"] = self._image
        return dataclasses.replace(self._begun, progress=self._progress, tensors=tensors)

    # A generator would read better, and hold this, which holds it: a circle that keeps pictures.

    def _next_step(self) -> Step | None:
        """The next step, be it of the next level; none: it is done."""
        progress = self._progress
        while True:
            if self._descent is None:
                self._descent = self._begin_level()
            found = next(self._descent, None)
            if found is not None:
                self._learned = {}  # the optimiser has it, and forgets it in time
                is_start = found.step == 0 and bool(progress.losses)
                shown = self._noted(found, is_start)
                if not is_start:
                    return shown
                self.last = shown  # the start of a later level, or of going on, is no step
                continue
            reason = self._descent.outcome.reason
            self._descent.close()
            self._descent = None
            machine.give_back()  # what this level took shall not count at the next
            if progress.level == len(self._levels) - 1:
                self.stopped = reason
                return None
            before, level = self._levels[progress.level :][:2]
            assert self._image is not None
            self._image = self._problem.refine(before, level, self._image)
            progress.level += 1
            progress.level_steps = progress.level_evaluations = 0

    def _begin_level(self) -> Descent:
        problem, progress = self._problem, self._progress
        level, final = self._levels[progress.level], progress.level == len(self._levels) - 1
        content = problem.content(level)
        image = self._image
        start = problem.start(level, content) if image is None else image.to(content)
        del image
        objective, optimiser = problem.objective(level, content)
        del content  # and with it a picture, unless the optimiser begins there
        machine.give_back()
        self._before = progress.level_steps, progress.level_evaluations
        return optimiser.start(
            objective,
            start,
            steps=self._steps_left(final),
            evaluations=self._evaluations_left(final),
            restart=self._restart,
            state=self._learned,
            spectrum=problem.refined if progress.level else problem.spectrum,
            beyond=problem.beyond,
        )

    def _noted(self, step: Step, is_start: bool) -> Step:
        """A step of this level as one of the whole painting."""
        progress = self._progress
        steps, spent = self._before
        progress.evaluations += spent + step.evaluations - progress.level_evaluations
        progress.level_steps = steps + step.step
        progress.level_evaluations = spent + step.evaluations
        self._image = step.image
        if not is_start:
            progress.losses.append(step.loss)
        return self._shown(self._levels[progress.level], step)

    def _shown(self, level: Level, step: Step) -> Step:
        """A step of a level as one of the whole painting, in colour."""
        progress = self._progress
        total = sum(each.steps * each.cost for each in self._levels) or 1.0
        done = sum(each.steps * each.cost for each in self._levels[: progress.level])
        return dataclasses.replace(
            step,
            step=len(progress.losses) - 1,
            evaluations=progress.evaluations,
            image=self._problem.show(level, step.image),
            done=min(1.0, (done + progress.level_steps * level.cost) / total),
            planned=self.planned,
            size=self.size,
        )

    def _steps_left(self, final: bool) -> int:
        """What a level before stopped short of is left to the last."""
        progress = self._progress
        if not final:
            return self._levels[progress.level].steps - progress.level_steps
        return self.planned - max(0, len(progress.losses) - 1)

    def _evaluations_left(self, final: bool) -> int | None:
        if self._budgets is None:
            return None
        if final:
            return max(1, sum(self._budgets) - self._progress.evaluations)
        return max(1, self._budgets[self._progress.level] - self._progress.level_evaluations)


_LEARNED = "learned."


def finish(painting: Painting, callback: Callback | None = None) -> Artwork:
    """Paint to the end; `callback` is called with every step.

    Raises:
        Interrupted: Ctrl-C came after the first evaluation; it carries the picture as it is.
    """
    try:
        with painting:
            for step in painting:
                if callback:
                    callback(step)
                del step
        return painting.artwork
    except KeyboardInterrupt:
        if painting.last is None:
            raise
    # Raised out here, it does not carry Ctrl-C's own traceback, and with that the optimiser.
    raise Interrupted(painting.artwork)
