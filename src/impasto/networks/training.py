"""Train a network to repaint any photo in one pass: Johnson, Alahi & Fei-Fei 2016, section 3.

    network repaints crops -> the losses of `stylize` judge the pictures -> their gradient goes back

On a CPU the losses are computed by impasto's compiled kernels, the network by torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from impasto.device import ordinary
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
"""The steps between two measurements of the validation loss, and the most crops that it takes."""

PREVIEWS, PREVIEWED = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0), 5
"""The shares of the training after which held-out photos are painted to be looked at, and how
many."""

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
        self.judge = Judge(paintings, settings)
        self.device = self.judge.device
        self.judge.weigh(photos.crops(0, MEASURED).to(self.device))
        count = min(VALIDATION, max(8, len(paintings)))
        self.held_out = photos.validation(count).to(self.device)
        shape = base.architecture if base else architecture or Architecture()
        student = Transformer(shape, len(paintings), settings.seed).to(self.device)
        if base:
            self._begin_from(base, student)
        self.teach(student)
        self.step, self.seconds = 0, 0.0
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
        """Make a step, whether or not the training is done."""
        began, before = time.monotonic(), self.done
        rate = self.settings.rate * (FASTER if self.base else 1)
        rate *= min(1.0, (self.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * before))
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
        nn.utils.clip_grad_norm_(self.learned.values(), MOST_GRADIENT)
        self.adam.step()
        decay = min(AVERAGED, self.step / (self.step + 10))  # the first steps count for little
        for name, each in self.learned.items():
            self.mean[name].lerp_(each.detach(), 1 - decay)
        self.seconds += time.monotonic() - began
        self.course.append((self.step, self.seconds, *judged.losses))
        measured = None
        if self.step % VALIDATED == 0 or self.done >= 1:
            measured = self.validate()
        if any(before < share <= self.done for share in PREVIEWS):
            self.previews.append((self.step, self.look()))
        return TrainingStep(self.step, self.done, judged.losses, measured)

    def _painted(self, photos: Tensor, styles: Sequence[int]) -> Tensor:
        shares = torch.eye(len(self.paintings), dtype=torch.float32)[list(styles)]
        kind = self.device.type
        halved = kind == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(kind, torch.bfloat16) if halved else contextlib.nullcontext():
            pictures: Tensor = self.student(photos, shares.to(self.device))
        return pictures.float()

    def validate(self) -> Losses:
        """Measure the losses of the running mean on held-out photos, and keep the best mean."""
        began = time.monotonic()
        count = len(self.held_out)
        pictures, styles = (
            self.preview(self.held_out),
            [n % len(self.paintings) for n in range(count)],
        )
        parts = [
            self.judge(pictures[n : n + 4], self.held_out[n : n + 4], styles[n : n + 4]).losses
            for n in range(0, count, 4)
        ]
        sizes = [min(4, count - n) for n in range(0, count, 4)]
        measured = Losses(*np.average(parts, axis=0, weights=sizes).tolist())
        if measured.total <= min((row[-1] for row in self.validation), default=math.inf):
            self.best = {name: each.clone() for name, each in self.mean.items()}
        self.seconds += time.monotonic() - began
        self.validation.append((self.step, self.seconds, *measured))
        return measured

    @torch.no_grad()
    def preview(self, photos: Tensor) -> Tensor:
        """Photos repainted by the running mean, in one style after another."""
        learned = {name: each.detach().clone() for name, each in self.learned.items()}
        try:
            self._load(self.mean)
            styles = [n % len(self.paintings) for n in range(len(photos))]
            parts = [
                self._painted(photos[n : n + 4], styles[n : n + 4])
                for n in range(0, len(photos), 4)
            ]
            return torch.cat(parts)
        finally:
            self._load(learned)

    def look(self) -> Tensor:
        """Some held-out photos as the running mean paints them, uint8 [N, 3, size, size]."""
        return (self.preview(self.held_out[:PREVIEWED]) * 255).round().byte().cpu()

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
        photos = self.held_out[:4]
        pictures = [
            whole(photos, torch.eye(len(base.styles))[[n] * len(photos)].to(self.device))
            for n in range(len(base.styles))
        ]
        begins = []
        for style in range(len(self.paintings)):
            losses = [self.judge(old, photos, [style] * len(photos)).losses for old in pictures]
            begins.append(int(np.argmin([each.total for each in losses])))
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
            name: kept.get(name, each).detach().cpu().numpy()
            for name, each in self.student.weights().items()
        }
        settings = dataclasses.asdict(self.settings)
        del settings["licence"]
        settings["weights"] = None if settings["weights"] is None else str(settings["weights"])
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
        return dataclasses.replace(self.base, styles=(*self.base.styles, *styles), weights=arrays)

    @property
    def record(self) -> dict[str, Any]:
        """What is known of the training, as values that JSON can hold."""
        best = min(self.validation, key=lambda row: row[-1], default=())
        return {
            "steps": self.step,
            "seconds": round(self.seconds),
            "stopped": "finished" if self.done >= 1 else "interrupted",
            "kept step": best[0] if best else self.step,
            "photos": len(self.photos.paths),
            "held out": len(self.photos.held_out),
            "validation": dict(zip(Losses._fields, best[2:], strict=True)) if best else {},
            "learned": "scales and shifts" if self.base else "all weights",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
            f"{self.device.type}, torch {torch.__version__}",
        }

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
        return {"step": self.step, "seconds": self.seconds}, tensors

    @torch.no_grad()
    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of a training with the same paintings, photos and settings."""
        self.step, self.seconds = values["step"], values["seconds"]
        for name, each in self.learned.items():
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
