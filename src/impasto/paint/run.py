"""A picture on its way: painted level by level, and able to go on from wherever it was left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from impasto import device as machine
from impasto.losses.objective import Objective
from impasto.optimise.base import Beyond, Callback, Optimiser, Outcome, Spectrum, State, Step
from impasto.paint.levels import STROKES, Level, Pyramid, enlarged, share_out


class Scene(Protocol):
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


class Painting:
    """The progress of one picture: at which level, after how many steps, and what came of them.

    losses: at every step of all levels, the start first; a new level's own start is no step.
    evaluations: spent in all.
    """

    def __init__(self, scene: Scene, levels: Sequence[Level], evaluations: int | None) -> None:
        self.scene = scene
        self.levels = levels
        self.budgets: list[int] | None = None
        if evaluations is not None:
            self.budgets = share_out(evaluations, len(levels), scene.pyramid)
        self.level = 0
        self.level_steps = 0
        self.level_evaluations = 0
        self.evaluations = 0
        self.losses: list[float] = []
        self.image: Tensor | None = None
        self.learned: Callable[[], State] = dict
        self.last: Step | None = None

    def paint(self, callback: Callback, restart: int | None = None) -> Outcome:
        """Go on to the end; `callback` is called with every step, shown in colour."""
        while True:
            outcome = self._paint_level(callback, restart)
            machine.give_back()  # what this level took shall not count at the next
            if self.level == len(self.levels) - 1:
                return outcome
            self.image = self._refined(outcome.final.image)
            del outcome
            self.learned = dict
            self.level += 1
            self.level_steps = self.level_evaluations = 0

    def _refined(self, painted: Tensor) -> Tensor:
        """What the next level begins with."""
        before, level = self.levels[self.level :][:2]
        return self.scene.refine(before, level, painted)

    def _paint_level(self, callback: Callback, restart: int | None) -> Outcome:
        level, final = self.levels[self.level], self.level == len(self.levels) - 1
        content = self.scene.content(level)
        image = self.image
        start = self.scene.start(level, content) if image is None else image.to(content)
        del image
        objective, optimiser = self.scene.objective(level, content)
        del content  # and with it a picture, unless the optimiser begins there
        machine.give_back()
        learned = self.learned()
        return optimiser(
            objective,
            start,
            steps=self._steps_left(final),
            evaluations=self._evaluations_left(final),
            restart=restart,
            callback=self._reporting(level, callback, learned),
            state=learned,
            spectrum=self.scene.refined if self.level else self.scene.spectrum,
            beyond=self.scene.beyond,
        )

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside `record`."""
        assert self.image is not None
        learned = {f"learned.{name}": value for name, value in self.learned().items()}
        return {"image": self.image, **learned}

    def record(self) -> dict[str, Any]:
        """The numbers of a checkpoint."""
        return {name: getattr(self, name) for name in _NUMBERS}

    @staticmethod
    def check(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raise a KeyError or TypeError where a checkpoint lacks what `restore` needs."""
        _ = [record[name] for name in _NUMBERS], tensors["image"]

    def restore(self, record: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
        """Be where a checkpoint was. Its tensors are taken over: nothing else is to keep them."""
        for name in _NUMBERS:
            setattr(self, name, record[name])
        self.image = tensors["image"]
        prefix = "learned."
        learned = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        self.learned = lambda: learned
        tensors.clear()

    def _reporting(self, level: Level, callback: Callback, learned: State) -> Callback:
        steps_before, spent_before = self.level_steps, self.level_evaluations
        total = sum(level.steps * level.cost for level in self.levels) or 1.0
        done_before = sum(level.steps * level.cost for level in self.levels[: self.level])

        def report(step: Step) -> None:
            learned.clear()  # the optimiser has it, and forgets it in time
            self.evaluations += spent_before + step.evaluations - self.level_evaluations
            self.level_steps = steps_before + step.step
            self.level_evaluations = spent_before + step.evaluations
            self.image, self.learned = step.image, step.state
            is_new = step.step > 0 or not self.losses
            if is_new:
                self.losses.append(step.loss)
            self.last = dataclasses.replace(
                step,
                step=len(self.losses) - 1,
                evaluations=self.evaluations,
                image=self.scene.show(level, step.image),
                done=min(1.0, (done_before + self.level_steps * level.cost) / total),
                planned=sum(level.steps for level in self.levels),
                size=self.levels[-1].size,
            )
            if is_new:
                callback(self.last)

        return report

    def _steps_left(self, final: bool) -> int:
        """What a level before stopped short of is left to the last."""
        if not final:
            return self.levels[self.level].steps - self.level_steps
        return sum(level.steps for level in self.levels) - max(0, len(self.losses) - 1)

    def _evaluations_left(self, final: bool) -> int | None:
        if self.budgets is None:
            return None
        if final:
            return max(1, sum(self.budgets) - self.evaluations)
        return max(1, self.budgets[self.level] - self.level_evaluations)


_NUMBERS = ("level", "level_steps", "level_evaluations", "evaluations", "losses")
