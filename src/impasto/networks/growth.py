"""Train a generator: from noise to pictures of some paintings' kind.

    noise -> the generator makes pictures -> a critic, a style loss, or both judge them

Jetchev, Bergmann & Vollgraf 2016 (arXiv:1611.08207) learn from a critic alone, Ulyanov et al. 2016
(arXiv:1603.03417) from Gram matrices alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from impasto import catalog, device as machine
from impasto.device import ordinary
from impasto.errors import ImpastoError, fitting
from impasto.networks import files
from impasto.networks.critics import HASTE, Adversary, Round, balanced
from impasto.networks.files import NetworkFile
from impasto.networks.judge import StyleJudge
from impasto.networks.learning import Learned, Learning
from impasto.networks.pyramid import Pyramid
from impasto.networks.synthesis import Noise, Synthesizer, sampled
from impasto.pictures.images import Picture
from impasto.settings import GenerateSettings

MINUTES_A_STYLE = 20.0
"""How long training lasts if nobody says, for each painting."""

RATE = 3e-3
"""The learning rate by a style loss alone."""

FALLING = 2 / 3
"""After this share of the training the learning rate falls, to zero at the end."""

FRAMES, SHEET = 48, 8
"""How often a film of the training looks, at growing intervals, and a contact sheet."""

LOOKED = 256
"""The side of the pictures that are looked at, in pixels."""

_STYLE, _PICTURES, _SHOWN, _SAMPLES, _SETTLING = range(1, 6)  # what random numbers are for
_FIRST = 1e-3  # share of the training at the first look


class GrowthLosses(NamedTuple):
    """The mean style loss of the pictures of a step, if there is a style loss."""

    style: float


class Growth(Learning):
    """The training of a generator; see `Learning`.

    Args:
        paintings: one for each style.
        pyramid: the shape of the generator.

    Raises:
        ImpastoError: a painting is too small.
    """

    looks = tuple(_FIRST ** (1 - n / (FRAMES - 1)) for n in range(FRAMES))
    averaged = 0.99

    @ordinary()
    def __init__(
        self,
        paintings: Sequence[Picture],
        settings: GenerateSettings,
        pyramid: Pyramid | None = None,
    ) -> None:
        super().__init__()
        self.paintings, self.settings = paintings, settings
        self.names = files.named([picture.name for picture in paintings])
        self.pyramid = pyramid or Pyramid()
        if settings.size % self.pyramid.stride:
            raise ImpastoError(
                f"size is {settings.size}; give a multiple of {self.pyramid.stride}, the stride of "
                "the generator"
            )
        longer, seed = settings.painting_size, settings.seed
        with fitting("training"):
            self.judge = StyleJudge(paintings, settings, longer) if settings.style_loss else None
            self.device = (
                self.judge.device if self.judge else machine.choose_device(settings.device)
            )
            self.adversary: Adversary | None = None
            self.columns: tuple[str, ...] = GrowthLosses._fields if self.judge else ()
            if settings.adversary:
                self.adversary = catalog.ADVERSARIES[settings.adversary].load()()
                self.face(self.adversary, self.rate, longer)
            self.teach(Synthesizer(self.pyramid, len(paintings), seed).to(self.device))
        side = max(LOOKED, self.pyramid.stride)
        self.shown = sampled(
            self.pyramid, 1, side - side % self.pyramid.stride, self._random(_SHOWN, 1), self.device
        )
        """The noise of the pictures that are looked at."""

    @property
    def rate(self) -> float:
        """The learning rate before it falls."""
        if self.settings.rate is not None:
            return float(self.settings.rate)
        return HASTE * self.adversary.rate if self.adversary else RATE

    def _optimizer(self, weights: Sequence[Tensor]) -> torch.optim.Optimizer:
        if self.adversary:
            return self.adversary.optimizer(weights, self.rate)
        return torch.optim.Adam(weights, self.rate, betas=(0.5, 0.9))

    @property
    def is_worth_keeping(self) -> bool:
        """Whether there is a network to save after an error."""
        return self.step > 1

    @property
    def usual_minutes(self) -> float:
        """How long the training lasts if nobody says."""
        return MINUTES_A_STYLE * len(self.paintings)

    def _random(self, *numbers: int) -> np.random.Generator:
        """Random numbers for a purpose, and for a step and a turn of it.

        The purpose comes first: NumPy takes numbers that differ by zeros at the end for the same.
        """
        return np.random.default_rng([self.settings.seed, 5, *numbers])

    def _learn(self) -> Learned:
        self.step += 1
        rate = self.rate * min(1.0, (1 - self.done) / (1 - FALLING))
        for optimizer in [self.optimizer, *([self.opponent.optimizer] if self.opponent else [])]:
            for group in optimizer.param_groups:
                group["lr"] = rate
        style = int(self._random(_STYLE, self.step).integers(len(self.paintings)))
        paid = self._critic(style) if self.opponent else (0.0, 0.0)
        pictures = self._made(style, self._random(_PICTURES, self.step, 1))
        loss, gradient = self._judged(pictures.detach(), style)
        self.optimizer.zero_grad()
        pictures.backward(gradient)  # type: ignore[no-untyped-call]
        if not math.isfinite(sum(loss) + sum(paid) + gradient.norm().item()):
            raise ImpastoError(
                f"the loss is no number after {self.step - 1} steps; train with a smaller rate "
                f"than {self.rate:g}"
            )
        self.optimizer.step()
        self.student.smooth()
        self._average()
        round_ = Round(loss[1], *paid) if self.opponent else None
        return Learned(GrowthLosses(loss[0]) if self.judge else (), round_)

    def _critic(self, style: int) -> tuple[float, float]:
        """The critic's steps; returns the loss and the estimate of the last one."""
        assert self.opponent
        steps = self.settings.critic_steps or self.opponent.adversary.critic_steps
        styles, paid = [style] * self.settings.batch, (0.0, 0.0)
        for number in range(steps):
            with torch.no_grad():
                made = self._made(style, self._random(_PICTURES, self.step, 2 + number))
            real = self.crops(styles, self.step, number).to(self.device)
            paid = self.opponent.learn(real, made, self._number(style))
        return paid

    def _judged(self, pictures: Tensor, style: int) -> tuple[tuple[float, float], Tensor]:
        """The style loss, the generator's loss, and the gradient of both together."""
        ours = theirs = None
        style_loss = adversarial = 0.0
        if self.judge:
            style_loss, ours = self.judge.style(pictures, style)
        if self.opponent:
            adversarial, theirs = self.opponent.judge(pictures, self._number(style))
        if ours is not None and theirs is not None:
            return (style_loss, adversarial), ours + balanced(
                theirs, ours, self.settings.adversary_weight
            )
        gradient = theirs if ours is None else ours
        assert gradient is not None
        return (style_loss, adversarial), gradient

    def _number(self, style: int) -> Tensor:
        return torch.full((self.settings.batch,), style, device=self.device)

    def _made(self, style: int, random: np.random.Generator) -> Tensor:
        settings = self.settings
        noise = sampled(self.pyramid, settings.batch, settings.size, random, self.device)
        return self._from(noise, style)

    def _from(self, noise: Noise, style: int) -> Tensor:
        shares = torch.eye(len(self.paintings), dtype=torch.float32)[[style] * len(noise[0])]
        made: Tensor = self.student(noise, shares.to(self.device))
        return made

    @torch.no_grad()
    def samples(self, style: int, count: int, seed: int = 0) -> Tensor:
        """Pictures in one style by the running mean, [count, 3, size, size]."""
        random = self._random(_SAMPLES, 1 + seed)
        with self.showing():
            noise = sampled(self.pyramid, count, self.settings.size, random, self.device)
            return self._from(noise, style)

    @torch.no_grad()
    def look(self) -> Tensor:
        """A picture in each style, of the same noise each time: uint8 [styles, 3, side, side]."""
        with self.showing():
            made = [self._from(self.shown, style) for style in range(len(self.paintings))]
        return (torch.cat(made) * 255).round().byte().cpu()

    def _show(self) -> None:
        side = -(-128 // self.pyramid.stride) * self.pyramid.stride
        self.student.take(self.student.settled(side, self._random(_SETTLING, 1)))

    @property
    def network(self) -> NetworkFile:
        """What has been learned so far: the running mean."""
        with self.showing():
            arrays = {
                name: each.detach().cpu().numpy().copy()
                for name, each in self.student.weights().items()
            }
        return NetworkFile(self.pyramid, self.told_styles(), arrays, self.settings.licence)

    @property
    def record(self) -> dict[str, Any]:
        """What is known of the training, as values that JSON can hold."""
        if not self.course:
            return super().record
        reached = np.mean([row[2:] for row in self.course[-100:]], axis=0).tolist()
        return {**super().record, "reached": dict(zip(self.columns, reached, strict=True))}
