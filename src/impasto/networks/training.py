"""Train a network to repaint any photo in one pass: Johnson, Alahi & Fei-Fei 2016, section 3.

    network repaints crops -> the losses of `stylize` judge the pictures -> their gradient goes back

On a CPU the losses are computed by impasto's compiled kernels, the network by torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto import __version__, catalog
from impasto.device import ordinary
from impasto.errors import ImpastoError, fitting
from impasto.networks import files
from impasto.networks.architecture import Architecture
from impasto.networks.critics import HASTE, Round, balanced
from impasto.networks.files import NetworkFile
from impasto.networks.judge import Judge, Losses
from impasto.networks.learning import Learned, Learning
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


class Training(Learning):
    """The training of a network that repaints photos; see `Learning`.

    Args:
        paintings: one for each style to learn.
        photos: what to repaint.
        base: a network; only scales and shifts for these paintings are learned, and added to it.
            None for a whole new network.
    """

    looks, averaged = PREVIEWS, 0.995
    judge: Judge

    @ordinary()
    def __init__(
        self,
        paintings: Sequence[Picture],
        photos: Photos,
        settings: TrainSettings,
        base: NetworkFile | None = None,
        architecture: Architecture | None = None,
    ) -> None:
        super().__init__()
        self.paintings, self.photos, self.settings, self.base = paintings, photos, settings, base
        self.names = files.named([picture.name for picture in paintings], base)
        with fitting("training"):
            self.judge = Judge(paintings, settings)
            self.device = self.judge.device
            crops = photos.crops(0, MEASURED).to(self.device)
            self.judge.weigh(torch.split(crops, settings.batch))
        count = max(VALIDATION, len(paintings))
        self.held_out = photos.validation(count).to(self.device)
        shape = base.transformer if base else architecture or Architecture()
        student = Transformer(shape, len(paintings), settings.seed).to(self.device)
        self.judge.period = 2 * shape.stride
        if base:
            self._begin_from(base, student)
        self.teach(student)
        self.columns: tuple[str, ...] = Losses._fields
        if settings.adversary:
            adversary = catalog.ADVERSARIES[settings.adversary].load()()
            self.face(adversary, HASTE * adversary.rate, self.judge.longer)

    def _optimizer(self, weights: Sequence[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(weights, self.settings.rate, betas=(0.9, 0.99))

    @property
    def styles(self) -> list[str]:
        """The names of all styles that the network will know."""
        old = [style.name for style in self.base.styles] if self.base else []
        return [*old, *self.names]

    @property
    def usual_minutes(self) -> float:
        """How long the training lasts if nobody says."""
        return MINUTES_A_STYLE if self.base else MINUTES

    def _learn(self) -> Learned:
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
        gradient, paid = judged.gradient, None
        if self.opponent:
            paid, theirs = self._faced(pictures.detach(), styles)
            gradient = gradient + balanced(theirs, gradient, self.settings.adversary_weight)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        pictures.backward(gradient)  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.learned.values(), MOST_GRADIENT).item()
        if not math.isfinite(norm + judged.losses.total):  # before it gets into the weights
            raise ImpastoError(
                f"the loss is no number after {self.step - 1} steps; train with a smaller rate "
                f"than {self.settings.rate:g}"
            )
        self.optimizer.step()
        self.student.smooth()
        self._average()
        return Learned(judged.losses, paid)

    def _faced(self, pictures: Tensor, styles: Sequence[int]) -> tuple[Round, Tensor]:
        """What adversaries pay for pictures, and the gradient of the network's part."""
        assert self.opponent
        about = torch.tensor(styles, device=self.device)
        real = self.crops(styles, self.step).to(self.device)
        critic, estimate = self.opponent.learn(real, pictures, about)
        loss, gradient = self.opponent.judge(pictures, about)
        return Round(loss, critic, estimate), gradient

    def _measured(self) -> Losses | None:
        if self.step % VALIDATED == 0 or self.done >= 1:
            return self.validate()
        return None

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
        # What a critic asks for, the losses do not see: with one, the latest mean is kept.
        if self.opponent or measured.total <= self._least():
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

    def look(self) -> Tensor:
        """Some held-out photos as the running mean paints them, uint8 [N, 3, side, side]."""
        found = torch.cat([each for each, *_ in self._previews(self.held_out[:PREVIEWED])])
        return (shrunk(found) * 255).round().byte().cpu()

    @torch.no_grad()
    def _begin_from(self, base: NetworkFile, student: Transformer) -> None:
        """Freeze all but scales and shifts; each new style begins as the old one that suits it."""
        held = {name: torch.from_numpy(each.copy()) for name, each in base.weights.items()}
        whole = Transformer(base.transformer, len(base.styles)).to(self.device)
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
        styles = self.told_styles()
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
        best = self.validation[-1] if self.opponent and self.validation else best
        return {
            **super().record,
            "kept step": int(best[0]) if best else self.step,
            "photos": len(self.photos.paths),
            "held out": len(self.photos.held_out),
            "validation": dict(zip(Losses._fields, best[2:], strict=True)) if best else {},
            "learned": "scales and shifts" if self.base else "all weights",
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that `restore` needs to go on: plain values, and tensors."""
        values, tensors = super().state()
        return {**values, "style weight": self.judge.style_weight}, tensors

    @torch.no_grad()
    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of a training with the same paintings, photos and settings.

        Raises:
            KeyError, ValueError: the state is that of another network.
        """
        self.judge.style_weight = values["style weight"]
        super().restore(values, tensors)


def shrunk(pictures: Tensor) -> Tensor:
    """Pictures [N, 3, side, side] with at most `PREVIEW` pixels a side."""
    if pictures.shape[-1] <= PREVIEW:
        return pictures
    return F.interpolate(pictures, size=(PREVIEW, PREVIEW), mode="area")
