"""What all trainings share: steps, a running mean of the weights, previews, and going on later."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from impasto.device import ordinary
from impasto.errors import fitting
from impasto.networks import critics, files
from impasto.networks.critics import Adversary, Opponent, PatchCritic, Round
from impasto.networks.crops import PaintingCrops
from impasto.networks.files import NetworkFile, Style
from impasto.networks.judge import StyleJudge
from impasto.pictures.images import Picture


@dataclass(frozen=True)
class TrainingStep:
    """A step of training.

    step: counted from 1. done: the share of the training that is done, 0..1. losses: of what this
    step made. validation: of held-out photos, at steps where it was measured. round: what the
    adversaries paid, if there are any.
    """

    step: int
    done: float
    losses: Any
    validation: Any = None
    round: Round | None = None


class Learned(NamedTuple):
    """What a step gave: the losses before it, and those of the adversaries."""

    losses: Any
    round: Round | None


class Learning(ABC):
    """A training, as an iterator of `TrainingStep`s; it can be stopped after any of them.

    `network` is what has been learned so far. `state` and `restore` save and continue it.

    judge: the style losses that judge what is made, if any do. looks: the shares of the training
    after which `look` is called. columns: the names of what
    `course` has for each step beside the step and the seconds.
    """

    looks: Sequence[float]
    columns: tuple[str, ...]
    settings: Any
    paintings: Sequence[Picture]
    names: Sequence[str]
    device: torch.device
    judge: StyleJudge | None
    averaged: float
    """The network that is kept is a running mean of the one that learns, with this decay a step."""

    def __init__(self) -> None:
        self.step, self.seconds = 0, 0.0
        self._since: float | None = None  # when the seconds not yet counted began
        self.opponent: Opponent | None = None
        self.course: list[tuple[float, ...]] = []
        """A row of step, seconds and losses for each step."""
        self.validation: list[tuple[float, ...]] = []
        """The same of held-out photos, for each step where they were measured."""
        self.previews: list[tuple[int, Tensor]] = []
        """Steps with what `look` gave there."""
        self.best: dict[str, Tensor] = {}

    def teach(self, student: Any) -> None:
        """Train this network from now on; its weights that need a gradient are learned."""
        self.student = student
        weights = student.weights()
        self.learned = {name: each for name, each in weights.items() if each.requires_grad}
        self.mean = {name: each.detach().clone() for name, each in self.learned.items()}
        self.best = {}
        self.optimizer = self._optimizer(list(self.learned.values()))

    def face(self, adversary: Adversary, rate: float, longer: int) -> None:
        """Let a critic learn beside the student, from crops of the paintings.

        rate: of the critic. longer: the longer side of the paintings in pixels.
        """
        size, seed = self.settings.size, self.settings.seed
        critic = PatchCritic(len(self.paintings), seed=seed, side=size).to(self.device)
        self.opponent = Opponent(adversary, critic, rate, seed)
        self.crops = PaintingCrops(self.paintings, longer, size, seed)
        self.columns += Round._fields

    def told_styles(self) -> tuple[Style, ...]:
        """What a network file says of each painting, and of how it was learned."""
        settings = dataclasses.asdict(self.settings)
        del settings["licence"]
        settings |= self.judge.choices if self.judge else {}
        if settings["weights"] is not None:
            settings["weights"] = Path(settings["weights"]).name
        return tuple(
            Style(name, picture.sha256, files.thumbnail(picture.image), settings, self.record)
            for name, picture in zip(self.names, self.paintings, strict=True)
        )

    @abstractmethod
    def _optimizer(self, weights: Sequence[Tensor]) -> torch.optim.Optimizer: ...

    @abstractmethod
    def _learn(self) -> Learned:
        """Make one step; returns the losses before it."""

    @abstractmethod
    def look(self) -> Tensor:
        """What the running mean makes, to be looked at: uint8 [N, 3, height, width]."""

    @property
    @abstractmethod
    def network(self) -> NetworkFile:
        """What has been learned so far."""

    @property
    @abstractmethod
    def usual_minutes(self) -> float:
        """How long the training lasts if nobody says."""

    @property
    def styles(self) -> list[str]:
        """The names of all styles that the network will know."""
        return [*self.names]

    @property
    def is_worth_keeping(self) -> bool:
        """Whether there is a network to save after an error."""
        return bool(self.best)

    @property
    def done(self) -> float:
        """The share of the training that is done, 0..1."""
        minutes, steps = self.settings.minutes, self.settings.steps
        if minutes is None and steps is None:
            minutes = self.usual_minutes
        by_time = 0.0 if minutes is None else self.seconds / (60 * minutes)
        return min(1.0, max(by_time, 0.0 if steps is None else self.step / steps))

    def __iter__(self) -> Iterator[TrainingStep]:
        while self.done < 1:
            yield self.advance()

    @ordinary()
    def advance(self) -> TrainingStep:
        """Make a step, whether or not the training is done.

        Raises:
            ImpastoError: the loss is no number any more, or memory is short.
        """
        before = self.done
        self._since = self._since or time.monotonic()
        with fitting("training"):
            losses, paid = self._learn()
            self._count_seconds()
            self.course.append((self.step, self.seconds, *losses, *(paid or ())))
            measured = self._measured()
            if any(before < share <= self.done for share in self.looks):
                self.previews.append((self.step, self.look()))
        return TrainingStep(self.step, self.done, losses, measured, paid)

    def _measured(self) -> Any:
        """What held-out photos give, at steps where they are measured."""
        return None

    def _average(self) -> None:
        """Let the running mean follow; the first steps count for little."""
        decay = min(self.averaged, self.step / (self.step + 10))
        for name, each in self.learned.items():
            self.mean[name].lerp_(each.detach(), 1 - decay)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - (self._since or now)
        self._since = now

    def rest(self) -> None:
        """Count no time until the next step."""
        self._since = None

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Meanwhile, the student has the running mean of its weights."""
        learned = {name: each.detach().clone() for name, each in self.learned.items()}
        self._load(self.mean)
        try:
            self._show()
            self.student.eval()
            yield
        finally:
            self._load(learned)
            self.student.train()

    def _show(self) -> None:  # noqa: B027 # most students have nothing to do
        """Make the student, which has the running mean, ready for use."""

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, own in self.learned.items():
            own.copy_(weights[name])

    @property
    def record(self) -> dict[str, Any]:
        """What is known of the training, as values that JSON can hold."""
        return {
            "steps": self.step,
            "seconds": int(self.seconds),
            "stopped": "finished" if self.done >= 1 else "interrupted",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
            f"{self._device_name}, torch {torch.__version__}",
        }

    @property
    def _device_name(self) -> str:
        is_cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_cuda else self.device.type

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that `restore` needs to go on: plain values, and tensors."""
        tensors = critics.learned(self.learned, self.optimizer)
        tensors |= {f"mean {name}": each for name, each in self.mean.items()}
        tensors |= {f"best {name}": each for name, each in self.best.items()}
        tensors["course"] = torch.tensor(self.course, dtype=torch.float64)
        tensors["validation"] = torch.tensor(self.validation, dtype=torch.float64)
        tensors |= {f"preview {step}": pictures for step, pictures in self.previews}
        values: dict[str, Any] = {"step": self.step, "seconds": self.seconds}
        if self.opponent:
            values["critic"], theirs = self.opponent.state()
            tensors |= {f"critic {name}": each for name, each in theirs.items()}
        return values, tensors

    @torch.no_grad()
    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of a training with the same inputs and settings.

        Raises:
            KeyError, ValueError: the state is that of another network.
        """
        self.step, self.seconds = values["step"], values["seconds"]
        critics.learn_on(self.learned, self.optimizer, tensors)
        for name in self.learned:
            self.mean[name].copy_(tensors[f"mean {name}"])
        self.best = {
            name: tensors[f"best {name}"].to(self.device).clone()
            for name in self.mean
            if f"best {name}" in tensors
        }
        if self.opponent:
            theirs = {
                name.removeprefix("critic "): each
                for name, each in tensors.items()
                if name.startswith("critic ")
            }
            self.opponent.restore(values["critic"], theirs)
        self.course = [tuple(row) for row in tensors["course"].tolist()]
        self.validation = [tuple(row) for row in tensors["validation"].tolist()]
        steps = sorted(int(n.split()[1]) for n in tensors if n.startswith("preview "))
        self.previews = [(step, tensors[f"preview {step}"]) for step in steps]
