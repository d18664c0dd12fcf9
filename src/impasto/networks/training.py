"""Train a network to repaint any photo in one pass: Johnson, Alahi & Fei-Fei 2016, section 3.

    network repaints crops -> the losses of `stylize` judge the pictures -> their gradient goes back

On a CPU the losses are computed by impasto's compiled kernels, the network by torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto import __version__
from impasto.device import ordinary
from impasto.errors import ImpastoError, fitting
from impasto.networks import files
from impasto.networks.architecture import Architecture
from impasto.networks.files import NetworkFile, Style
from impasto.networks.judge import Judge, Losses
from impasto.networks.photos import Photos
from impasto.networks.transform import Transformer
from impasto.pictures.images import Picture
from impasto.settings import TrainSettings

MINUTES, MINUTES_A_STYLE = 60.0, 10.0
"""How long training lasts if nobody says: of a network, and of new styles for a network."""

WARM_UP = 50
"""The learning rate rises for this many steps."""

FASTER = 10
"""The learning rate of scales and shifts alone, relative to that of a whole network."""

AVERAGED = 0.995
"""The network that is kept is a running mean of the one that learns, with this decay a step."""

VALIDATED, VALIDATION = 100, 16
"""The steps between two measurements of the validation loss, and the crops that it takes, if there
are not more styles."""

PREVIEWS, PREVIEWED, PREVIEW = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0), 5, 256
"""The shares of the training after which held-out photos are painted to be looked at, how many, and
their most pixels a side."""

MOST_GRADIENT = 5.0
"""Gradients of a larger norm are shortened to this one."""

MEASURED = 16
"""Crops on which the style loss of untouched photos is measured, which style is weighed by."""


@dataclass(frozen=True)
class TrainingStep:
    """A step of training.

    step: counted from 1. done: the share of the training that is done, 0..1. losses: of this step's
    crops. validation: of held-out photos, at steps where it was measured.
    """

    step: int
    done: float
    losses: Losses
    validation: Losses | None = None


class Training:
    """A training, as an iterator of `TrainingStep`s; it can be stopped after any of them.

    `network` is what has been learned so far. `state` and `restore` save and continue it.

    Args:
        paintings: one for each style to learn.
        photos: what to repaint.
        base: a network; only scales and shifts for these paintings are learned, and added to it.
            None for a whole new network.
    """

    @ordinary()
    def __init__(
        self,
        paintings: Sequence[Picture],
        photos: Photos,
        settings: TrainSettings,
        base: NetworkFile | None = None,
        architecture: Architecture | None = None,
    ) -> None:
        self.paintings, self.photos, self.settings, self.base = paintings, photos, settings, base
        self.names = files.named([picture.name for picture in paintings], base)
        with fitting("training"):
            self.judge = Judge(paintings, settings)
            self.device = self.judge.device
            crops = photos.crops(0, MEASURED).to(self.device)
            self.judge.weigh(torch.split(crops, settings.batch))
        count = max(VALIDATION, len(paintings))
        self.held_out = photos.validation(count).to(self.device)
        shape = base.architecture if base else architecture or Architecture()
        student = Transformer(shape, len(paintings), settings.seed).to(self.device)
        self.judge.period = 2 * shape.stride
        if base:
            self._begin_from(base, student)
        self.teach(student)
        self.step, self.seconds = 0, 0.0
        self._since: float | None = None  # when the seconds not yet counted began
        self.course: list[tuple[float, ...]] = []
        """A row of step, seconds and training losses for each step."""
        self.validation: list[tuple[float, ...]] = []
        """The same of held-out photos, for each step where they were measured."""
        self.previews: list[tuple[int, Tensor]] = []
        """Steps with what `look` gave there."""

    def teach(self, student: Transformer) -> None:
        """Train this network from now on; its weights that need a gradient are learned."""
        self.student = student
        weights = student.weights()
        self.learned = {name: each for name, each in weights.items() if each.requires_grad}
        self.mean = {name: each.detach().clone() for name, each in self.learned.items()}
        self.best: dict[str, Tensor] = {}
        rate = self.settings.rate
        self.adam = torch.optim.Adam(self.learned.values(), rate, betas=(0.9, 0.99))

    @property
    def done(self) -> float:
        """The share of the training that is done, 0..1."""
        minutes, steps = self.settings.minutes, self.settings.steps
        if minutes is None and steps is None:
            minutes = MINUTES_A_STYLE if self.base else MINUTES
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
            losses = self._learn()
            self._count_seconds()
            self.course.append((self.step, self.seconds, *losses))
            measured = None
            if self.step % VALIDATED == 0 or self.done >= 1:
                measured = self.validate()
            if any(before < share <= self.done for share in PREVIEWS):
                self.previews.append((self.step, self.look()))
        return TrainingStep(self.step, self.done, losses, measured)

    def _learn(self) -> Losses:
        """Make one step of Adam; returns the losses before it."""
        rate = self.settings.rate * (FASTER if self.base else 1)
        rate *= min(1.0, (self.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * self.done))
        self.step += 1
        batch, count = self.settings.batch, len(self.paintings)
        photos = self.photos.crops(self.step, batch).to(self.device)
        random = np.random.default_rng([self.settings.seed, 2, self.step])
        styles = random.integers(count, size=batch).tolist()
        pictures = self._painted(photos, styles)
        judged = self.judge(pictures.detach(), photos, styles)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.zero_grad()
        pictures.backward(judged.gradient)  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.learned.values(), MOST_GRADIENT).item()
        if not math.isfinite(norm + judged.losses.total):  # before it gets into the weights
            raise ImpastoError(
                f"the loss is no number after {self.step - 1} steps; train with a smaller rate "
                f"than {self.settings.rate:g}"
            )
        self.adam.step()
        self.student.smooth()
        decay = min(AVERAGED, self.step / (self.step + 10))  # the first steps count for little
        for name, each in self.learned.items():
            self.mean[name].lerp_(each.detach(), 1 - decay)
        return judged.losses

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - (self._since or now)
        self._since = now

    def _painted(self, photos: Tensor, styles: Sequence[int]) -> Tensor:
        """Photos painted by the student: in half precision on a GPU that has bfloat16."""
        kind = self.device.type
        halved = kind == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(kind, torch.bfloat16) if halved else contextlib.nullcontext():
            pictures: Tensor = self.student(photos, self._shares(styles))
        return pictures

    def _shares(self, styles: Sequence[int]) -> Tensor:
        return torch.eye(len(self.paintings), dtype=torch.float32)[list(styles)].to(self.device)

    def validate(self) -> Losses:
        """Measure the losses of the running mean on held-out photos, and keep the best mean."""
        parts, counts = [], []
        for pictures, photos, styles in self._previews(self.held_out):
            parts.append(self.judge(pictures, photos, styles).losses)
            counts.append(len(photos))
        measured = Losses(*np.average(parts, axis=0, weights=counts).tolist())
        if measured.total <= self._least():
            self.best = {name: each.clone() for name, each in self.mean.items()}
        self._count_seconds()
        self.validation.append((self.step, self.seconds, *measured))
        return measured

    def _least(self) -> float:
        """The lowest validation loss so far."""
        totals = [row[-1] for row in self.validation if math.isfinite(row[-1])]
        return min(totals, default=math.inf)

    @torch.no_grad()
    def _previews(self, photos: Tensor) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        """Photos as the running mean paints them, one style after another, a batch at a time."""
        with self.showing():
            for first in range(0, len(photos), self.settings.batch):
                some = photos[first : first + self.settings.batch]
                styles = [(first + n) % len(self.paintings) for n in range(len(some))]
                yield self.student(some, self._shares(styles)), some, styles

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Meanwhile, the student has the running mean of its weights."""
        learned = {name: each.detach().clone() for name, each in self.learned.items()}
        self._load(self.mean)
        self.student.eval()
        try:
            yield
        finally:
            self._load(learned)
            self.student.train()

    def look(self) -> Tensor:
        """Some held-out photos as the running mean paints them, uint8 [N, 3, side, side]."""
        found = torch.cat([each for each, *_ in self._previews(self.held_out[:PREVIEWED])])
        return (shrunk(found) * 255).round().byte().cpu()

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, own in self.learned.items():
            own.copy_(weights[name])

    @torch.no_grad()
    def _begin_from(self, base: NetworkFile, student: Transformer) -> None:
        """Freeze all but scales and shifts; each new style begins as the old one that suits it."""
        held = {name: torch.from_numpy(each.copy()) for name, each in base.weights.items()}
        whole = Transformer(base.architecture, len(base.styles)).to(self.device)
        whole.take({name: each.to(self.device) for name, each in held.items()})
        photos = torch.split(self.held_out[:4], self.settings.batch)
        totals = np.zeros((len(self.paintings), len(base.styles)))
        for old, some in itertools.product(range(len(base.styles)), photos):
            shares = torch.eye(len(base.styles), dtype=torch.float32)[[old] * len(some)]
            pictures = whole(some, shares.to(self.device))
            for new in range(len(self.paintings)):
                judged = self.judge(pictures, some, [new] * len(some))
                totals[new, old] += judged.losses.total * len(some)
        begins = totals.argmin(1).tolist()
        for name, own in student.weights().items():
            if name.endswith((".scale", ".shift")):
                own.copy_(held[name][begins])
            else:
                own.copy_(held[name])
                own.requires_grad_(False)

    @property
    def network(self) -> NetworkFile:
        """What has been learned: the best running mean, or the latest if none was measured."""
        kept = self.best or self.mean
        arrays = {
            name: kept.get(name, each).detach().cpu().numpy().copy()
            for name, each in self.student.weights().items()
        }
        settings = dataclasses.asdict(self.settings)
        del settings["licence"]
        if settings["weights"] is not None:
            settings["weights"] = Path(settings["weights"]).name
        styles = tuple(
            Style(name, picture.sha256, files.thumbnail(picture.image), settings, self.record)
            for name, picture in zip(self.names, self.paintings, strict=True)
        )
        if self.base is None:
            shape, licence = self.student.architecture, self.settings.licence
            return NetworkFile(shape, styles, arrays, licence)
        arrays = {
            name: np.concatenate([old, arrays[name]])
            if name.endswith((".scale", ".shift"))
            else old
            for name, old in self.base.weights.items()
        }
        told = (*self.base.styles, *styles)
        return dataclasses.replace(self.base, styles=told, weights=arrays, impasto=__version__)

    @property
    def record(self) -> dict[str, Any]:
        """What is known of the training, as values that JSON can hold."""
        least = self._least()
        best = next((row for row in self.validation if row[-1] == least), ())
        return {
            "steps": self.step,
            "seconds": round(self.seconds),
            "stopped": "finished" if self.done >= 1 else "interrupted",
            "kept step": int(best[0]) if best else self.step,
            "photos": len(self.photos.paths),
            "held out": len(self.photos.held_out),
            "validation": dict(zip(Losses._fields, best[2:], strict=True)) if best else {},
            "learned": "scales and shifts" if self.base else "all weights",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
            f"{self._device_name}, torch {torch.__version__}",
        }

    @property
    def _device_name(self) -> str:
        is_cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_cuda else self.device.type

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that `restore` needs to go on: plain values, and tensors."""
        tensors: dict[str, Tensor] = {}
        for name, each in self.learned.items():
            tensors[f"learned {name}"], tensors[f"mean {name}"] = each, self.mean[name]
            for moment, value in self.adam.state.get(each, {}).items():
                tensors[f"{moment} {name}"] = torch.as_tensor(value)
        tensors |= {f"best {name}": each for name, each in self.best.items()}
        tensors["course"] = torch.tensor(self.course, dtype=torch.float64)
        tensors["validation"] = torch.tensor(self.validation, dtype=torch.float64)
        tensors |= {f"preview {step}": pictures for step, pictures in self.previews}
        weight = self.judge.style_weight
        return {"step": self.step, "seconds": self.seconds, "style weight": weight}, tensors

    @torch.no_grad()
    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of a training with the same paintings, photos and settings.

        Raises:
            KeyError, ValueError: the state is that of another network.
        """
        self.step, self.seconds = values["step"], values["seconds"]
        self.judge.style_weight = values["style weight"]
        for name, each in self.learned.items():
            if tensors[f"learned {name}"].shape != each.shape:
                raise ValueError(name)
            each.copy_(tensors[f"learned {name}"])
            self.mean[name].copy_(tensors[f"mean {name}"])
            moments = {
                moment: tensors[f"{moment} {name}"].clone()
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"{moment} {name}" in tensors
            }
            if moments:
                self.adam.state[each] = {
                    moment: value if moment == "step" else value.to(self.device)
                    for moment, value in moments.items()
                }
        self.best = {
            name: tensors[f"best {name}"].to(self.device).clone()
            for name in self.mean
            if f"best {name}" in tensors
        }
        self.course = [tuple(row) for row in tensors["course"].tolist()]
        self.validation = [tuple(row) for row in tensors["validation"].tolist()]
        steps = sorted(int(n.split()[1]) for n in tensors if n.startswith("preview "))
        self.previews = [(step, tensors[f"preview {step}"]) for step in steps]


def shrunk(pictures: Tensor) -> Tensor:
    """Pictures [N, 3, side, side] with at most `PREVIEW` pixels a side."""
    if pictures.shape[-1] <= PREVIEW:
        return pictures
    return F.interpolate(pictures, size=(PREVIEW, PREVIEW), mode="area")
