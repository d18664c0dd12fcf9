"""A picture being painted, level by level; each iteration makes one step.

painting = stylizer.start("photo.jpg")
for step in painting:
    ...
painting.artwork.save("painted.png")
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from impasto import device as machine
from impasto.device import ordinary
from impasto.errors import ImpastoError, fitting
from impasto.kernels import ops
from impasto.losses.base import Loss
from impasto.losses.objective import Objective
from impasto.losses.smoothness import TotalVariationLoss
from impasto.optimise.base import Beyond, Callback, Descent, Optimiser, Spectrum, State, Step
from impasto.paint import checkpoints
from impasto.paint.artworks import Artwork, Interrupted, Stopped
from impasto.paint.checkpoints import Checkpoint, Keeper, Progress
from impasto.paint.levels import Level, enlarged
from impasto.paint.studio import Studio
from impasto.pictures import images
from impasto.pictures.images import PathLike
from impasto.settings import CHECKPOINT_EVERY

_LEARNED = "learned."


class Problem(ABC):
    """What is painted, with which studio, and at which levels (the coarsest first).

    size: (width, height) of the finished picture. name: what error messages call it. record: what
    is known of it before it is painted. tv: weight of the total variation. restart: see `Settings`.
    spectrum (`refined` at later levels), beyond: see `Optimiser.start`. looks_back: the losses of a
    level depend on the image that it began with.
    """

    studio: Studio
    levels: Sequence[Level]
    size: tuple[int, int]
    name: str
    record: Mapping[str, Any]
    tv: float
    restart: int | None = None
    spectrum: ClassVar[Spectrum] = "photo"
    refined: ClassVar[Spectrum] = "refined"
    beyond: ClassVar[Beyond] = "mirrored"
    looks_back: ClassVar[bool] = False

    @abstractmethod
    def content(self, level: Level) -> Tensor:
        """The photo at a level, [1, C, height, width]."""

    @abstractmethod
    def losses(self, level: Level, content: Tensor, begun: Tensor) -> list[Loss]:
        """The losses to minimise at a level, except the total variation.

        begun: the image that the level began with, shaped like the content.
        """

    def objective(
        self, level: Level, content: Tensor, begun: Tensor
    ) -> tuple[Objective, Optimiser]:
        """The sum of all losses at a level, and the optimiser that minimises it."""
        losses = self.losses(level, content, begun)
        if self.tv:
            losses.append(TotalVariationLoss(self.tv))
        return self.studio.objective(losses, content)

    def start(self, level: Level, content: Tensor) -> Tensor:  # noqa: ARG002
        """The image that the first level begins with."""
        return content

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:  # noqa: ARG002
        """The image that a level begins with, made of what the level before painted."""
        return enlarged(painted, (level.size[1], level.size[0]))

    def show(self, level: Level, image: Tensor) -> Tensor:  # noqa: ARG002
        """The RGB or RGBA image to show for an image that is being optimised."""
        return image


class Painting(Iterator[Step], contextlib.AbstractContextManager["Painting", None]):
    """A picture being painted: an iterator that paints and gives every step, the start (0) first.

    The caller may stop after any step, and then `close` it or leave its `with` block. After any
    exception in `next`, KeyboardInterrupt included, it closes itself. Either way the checkpoint is
    written and `artwork` has the picture of the last step. Another thread can end it with `stop`.

    Raises:
        ImpastoError: in `next`: the picture does not fit into memory, or the loss is no number.
    """

    def __init__(self, problem: Problem, keeper: Keeper | None = None) -> None:
        self.name, self.size = problem.name, problem.size
        self.planned = sum(level.steps for level in problem.levels)
        self.last: Step | None = None
        self.stopped: Stopped = "interrupted"
        self._problem, self._keeper = problem, keeper
        self._levels = problem.levels
        self._progress = Progress()
        self._image: Tensor | None = None
        self._begun: Tensor | None = None  # the image that this level began with
        self._learned: State = {}
        self._descent: Descent | None = None
        self._counted = 0  # evaluations of this descent, as far as they are in `_progress`
        self._since: float | None = None  # when the seconds not yet counted began
        self._stopping = threading.Event()
        self._is_open = True

    def go_on_from(self, saved: Checkpoint) -> Self:
        """Continue an earlier run; to be called before the first step."""
        tensors = dict(saved.tensors)
        self._progress, self._image = saved.progress, tensors.pop("image")
        self._begun = tensors.pop("begun", None)
        self._learned = {name.removeprefix(_LEARNED): each for name, each in tensors.items()}
        return self

    def kept_at(self, path: PathLike, every: float = CHECKPOINT_EVERY) -> Self:
        """Keep checkpoints at `path`, and go on from the one there if the same run left it.

        Unlike `resume`, this needs the run begun again with its inputs. A checkpoint of any other
        run, or a damaged one, is replaced. To be called before the first step.
        """
        run = json.loads(json.dumps(self._problem.record, default=str))
        begun = Checkpoint({}, {}, [], [], {"run": run})
        self._keeper = Keeper(Path(path), begun, every)
        with contextlib.suppress(ImpastoError):
            record, tensors = checkpoints.read_parts(path)
            with checkpoints.of_this_version(path):
                if record["note"].get("run") == run and "image" in tensors:
                    progress = Progress(**record["progress"])
                    self.go_on_from(dataclasses.replace(begun, progress=progress, tensors=tensors))
        return self

    def __next__(self) -> Step:
        step = None
        if self._is_open and not self._stopping.is_set():
            self._since = self._since or time.perf_counter()
            width, height = self.size
            try:
                with ordinary(), fitting(f"{self.name} at {width} x {height} pixels"):
                    step = self._next_step()
            except BaseException:
                self.close()
                raise
        if step is None:
            self.close()
            raise StopIteration
        self.last = step
        if self._keeper:
            self._keeper.keep(self._state)
        return step

    def stop(self) -> None:
        """End the painting before its next step; any thread may call this."""
        self._stopping.set()

    def close(self) -> None:
        """Write the checkpoint, if one is kept and the run is unfinished, and free all memory."""
        if not self._is_open:
            return
        self._count_seconds()
        # A second Ctrl-C may end this: the last checkpoint is intact, and the picture is in memory.
        with contextlib.suppress(KeyboardInterrupt):
            if self._keeper and self.stopped == "interrupted" and self.last is not None:
                self._keeper.keep(self._state, now=True)
        with contextlib.suppress(KeyboardInterrupt):
            if self._descent:
                self._descent.close()
                self._descent = None
            ops.clear()
            machine.give_back()
        self._is_open, self._since = False, None

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    @property
    def checkpoint(self) -> Path | None:
        """The path of the run's checkpoint, if one is kept."""
        return self._keeper.path if self._keeper else None

    @property
    def artwork(self) -> Artwork:
        """The picture so far, at its final size; available after the first step."""
        step, progress = self.last, self._progress
        assert step, "nothing is painted yet"
        self._count_seconds()
        record = {
            **self._problem.record,
            "levels": [list(size) for size in dict.fromkeys(each.size for each in self._levels)],
            "stopped": self.stopped,
            "steps": step.step,
            "evaluations": step.evaluations,
            "parts": dict(step.parts),
            "losses": list(progress.losses),
            **self._problem.studio.limits(),
        }
        image = images.resize(images.to_image(step.image), self.size)
        return Artwork(
            image,
            list(progress.losses),
            step.parts,
            step.evaluations,
            self.stopped,
            progress.seconds,
            record,
            self.checkpoint,
        )

    def _count_seconds(self) -> None:
        if self._since is not None:
            now = time.perf_counter()
            self._progress.seconds += now - self._since
            self._since = now

    def _state(self) -> tuple[Progress, dict[str, Tensor]]:
        assert self._image is not None
        self._count_seconds()
        learned = self._descent.state() if self._descent else self._learned
        tensors = {f"{_LEARNED}{name}": tensor for name, tensor in learned.items()}
        if self._begun is not None:
            tensors["begun"] = self._begun
        return self._progress, tensors | {"image": self._image}

    # No generator: it and this object would hold each other, and so keep pictures in memory.

    def _next_step(self) -> Step | None:
        """The next step, of this level or the next; None at the end."""
        progress = self._progress
        while not self._stopping.is_set():  # levels may pass without a step
            if self._descent is None:
                self._descent = self._begin_level()
            for found in self._descent:
                self._learned = {}  # the optimiser holds it now, and drops it in time
                is_start = found.step == 0 and bool(progress.losses)
                shown = self._noted(found, is_start)
                if not is_start:
                    return shown
                self.last = shown  # no step: a later level or a continued run starts
            reason = self._descent.outcome.reason
            self._descent = None
            machine.give_back()  # so that this memory is free for the next level
            before, *later = self._levels[progress.level :]
            most = self._problem.studio.settings.evaluations
            is_spent = bool(most) and progress.evaluations >= (most or 0)
            # At another size, one more evaluation is needed to have the picture.
            if not later or (is_spent and later[0].size == self.size == before.size):
                self.stopped = "budget" if later else reason
                return None
            level = later[0]
            assert self._image is not None
            self._image, self._begun = self._problem.refine(before, level, self._image), None
            progress.level += 1
            progress.level_steps = progress.level_evaluations = 0
        return None

    def _begin_level(self) -> Descent:
        problem, progress = self._problem, self._progress
        level, image = self._levels[progress.level], self._image
        content = problem.content(level)
        start = problem.start(level, content) if image is None else image.to(content)
        begun = start if self._begun is None else self._begun.to(content)
        self._begun = begun if problem.looks_back else None
        del image
        objective, optimiser = problem.objective(level, content, begun)
        del begun
        del content  # frees a picture, unless the optimiser begins with it
        machine.give_back()
        self._counted = 0
        steps, evaluations = self._left()
        return optimiser.start(
            objective,
            start,
            steps=steps,
            evaluations=evaluations,
            restart=problem.restart,
            state=self._learned,
            spectrum=problem.refined if progress.level else problem.spectrum,
            beyond=problem.beyond,
        )

    def _left(self) -> tuple[int, int | None]:
        """The steps and evaluations left for this level; the last also gets what others left."""
        progress, count = self._progress, len(self._levels)
        budget = self._problem.studio.settings.evaluations
        if progress.level == count - 1:
            steps = self.planned - max(0, len(progress.losses) - 1)
            spent = progress.evaluations
        else:
            steps = self._levels[progress.level].steps - progress.level_steps
            spent = progress.level_evaluations
            budget = budget and budget * self._levels[progress.level].steps // self.planned
        return steps, None if budget is None else max(1, budget - spent)

    def _noted(self, step: Step, is_start: bool) -> Step:
        """Count a step of this level, and return it as a step of the whole painting."""
        progress, level = self._progress, self._levels[self._progress.level]
        progress.evaluations += step.evaluations - self._counted
        progress.level_evaluations += step.evaluations - self._counted
        progress.level_steps += step.step > 0
        self._counted, self._image = step.evaluations, step.image
        if not is_start:
            progress.losses.append(step.loss)
        work = [each.steps * each.cost for each in self._levels]
        done = sum(work[: progress.level]) + progress.level_steps * level.cost
        return dataclasses.replace(
            step,
            step=len(progress.losses) - 1,
            evaluations=progress.evaluations,
            image=self._problem.show(level, step.image),
            done=min(1.0, done / (sum(work) or 1.0)),
            planned=self.planned,
            size=self.size,
        )


def finish(painting: Painting, callback: Callback | None = None) -> Artwork:
    """Paint to the end; `callback` is called with every step.

    Raises:
        Interrupted: Ctrl-C was pressed after the first evaluation; it carries the picture so far.
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
    # Raised outside of `except`: the traceback of Ctrl-C would keep the optimiser in memory.
    raise Interrupted(painting.artwork)
