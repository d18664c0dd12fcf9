"""Adversaries: a critic learns to tell real samples from made ones, and a generator to mislead it.

    real samples, made samples -> the critic scores both -> its loss moves the critic
                  made samples -> the critic scores them -> the generator's loss moves the generator

Goodfellow et al. 2014 (arXiv:1406.2661), Arjovsky, Chintala & Bottou 2017 (arXiv:1701.07875) and
Gulrajani et al. 2017 (arXiv:1704.00028), a pair of losses each. A critic is any module that gives
scores [N] or, for patches, [N, h, w] for samples [N, ...]; a generator is any module.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Score = Callable[[Tensor], Tensor]
"""A critic whose other inputs, such as the style, are given already."""


HASTE = 10
"""Where nobody gives a rate, networks learn this many times faster than was published: those
experiments took days."""

_MOMENTS = "step", "exp_avg", "exp_avg_sq", "square_avg"  # of Adam and RMSprop


class Round(NamedTuple):
    """What the two had to pay in a step, before it, and how far apart the critic finds the samples.

    estimate: of the Wasserstein-1 distance, or for `Gan` of the Jensen-Shannon divergence in nats.
    """

    generator: float
    critic: float
    estimate: float


class Adversary(ABC):
    """A pair of losses, with the optimiser and the numbers that were published with it.

    rate: the learning rate of both. critic_steps: of the critic, for a step of the generator.
    Scores of real and of made samples have any shape; all of them count alike.
    """

    rate: float
    critic_steps: int

    @abstractmethod
    def critic_loss(self, real: Tensor, made: Tensor) -> Tensor:
        """The critic's loss, a scalar, from its scores."""

    @abstractmethod
    def generator_loss(self, made: Tensor) -> Tensor:
        """The generator's loss, a scalar, from the scores of what it made."""

    @abstractmethod
    def estimate(self, real: Tensor, made: Tensor) -> Tensor:
        """How far apart the samples are by these scores, a scalar."""

    @abstractmethod
    def optimizer(self, weights: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        """The optimiser of the critic, and of the generator."""

    def penalty_of(self, critic: Score, real: Tensor, made: Tensor, shares: Tensor) -> Tensor:
        """What is added to the critic's loss for its slope; shares: random, in 0..1, [N]."""
        del critic, made, shares
        return real.new_zeros(())

    def constrain(self, critic: nn.Module) -> None:
        """Bring the critic's weights back, after each of its steps, to where they may be."""
        del critic


@dataclass(frozen=True)
class Gan(Adversary):
    """The first adversaries: Goodfellow et al. 2014, eq. 1, with sigmoid(score) for D(x).

    The generator maximises log D(G(z)), which the paper advises instead of minimising
    log(1 - D(G(z))) (section 3; "non-saturating"). Adam as in Radford, Metz & Chintala 2016
    (arXiv:1511.06434).
    """

    rate: float = 2e-4
    critic_steps: int = 1

    def critic_loss(self, real: Tensor, made: Tensor) -> Tensor:
        """Minus eq. 1: -E log D(x) - E log(1 - D(G(z)))."""
        return F.softplus(-real).mean() + F.softplus(made).mean()

    def generator_loss(self, made: Tensor) -> Tensor:
        """-E log D(G(z))."""
        return F.softplus(-made).mean()

    def estimate(self, real: Tensor, made: Tensor) -> Tensor:
        """A lower bound of the Jensen-Shannon divergence (theorem 1), which is 0 to log 2."""
        return math.log(2) - self.critic_loss(real, made) / 2

    def optimizer(self, weights: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(weights, rate, betas=(0.5, 0.999))


@dataclass(frozen=True)
class _Wasserstein(Adversary):
    """What both Wasserstein critics share: Arjovsky et al. 2017, eq. 3."""

    def critic_loss(self, real: Tensor, made: Tensor) -> Tensor:
        """Minus what eq. 3 maximises: E f(G(z)) - E f(x)."""
        return made.mean() - real.mean()

    def generator_loss(self, made: Tensor) -> Tensor:
        """-E f(G(z)) (theorem 3)."""
        return -made.mean()

    def estimate(self, real: Tensor, made: Tensor) -> Tensor:
        """E f(x) - E f(G(z)): the distance, times the slope that the critic may have."""
        return real.mean() - made.mean()


@dataclass(frozen=True)
class Wgan(_Wasserstein):
    """A critic with small weights, and so a bounded slope: Arjovsky et al. 2017, algorithm 1.

    clip: no weight of the critic is further from 0. How steep the critic can be then depends on its
    layers, so that the estimate is some multiple of the distance, and nobody knows which.
    """

    rate: float = 5e-5
    critic_steps: int = 5
    clip: float = 0.01

    def optimizer(self, weights: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        """RMSprop: the paper found training unstable with a momentum."""
        return torch.optim.RMSprop(weights, rate)

    @torch.no_grad()
    def constrain(self, critic: nn.Module) -> None:
        """Clip the weights."""
        for each in critic.parameters():
            each.clamp_(-self.clip, self.clip)


@dataclass(frozen=True)
class WganGp(_Wasserstein):
    """A critic with a slope of about 1 between the samples: Gulrajani et al. 2017, algorithm 1.

    penalty: lambda in eq. 3. The critic must treat each sample by itself (section 4, "no critic
    batch normalization").
    """

    rate: float = 1e-4
    critic_steps: int = 5
    penalty: float = 10.0

    def penalty_of(self, critic: Score, real: Tensor, made: Tensor, shares: Tensor) -> Tensor:
        """The last term of eq. 3."""
        shares = shares.reshape(-1, *[1] * (real.ndim - 1))
        between = shares * real + (1 - shares) * made
        return self.penalty * gradient_penalty(critic, between)

    def optimizer(self, weights: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        """Adam without a momentum (algorithm 1)."""
        return torch.optim.Adam(weights, rate, betas=(0.0, 0.9))


def gradient_penalty(critic: Score, samples: Tensor) -> Tensor:
    """E (|gradient of f| - 1)^2, of Gulrajani et al. 2017, eq. 3, a scalar.

    The norm is that of a whole sample. The score of a sample is the mean of its patches' scores.
    """
    samples = samples.detach().requires_grad_(True)
    scores = critic(samples).reshape(len(samples), -1).mean(1)
    (slopes,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    penalty: Tensor = (slopes.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


class PatchCritic(nn.Module):
    """Scores every patch of images: Isola et al. 2017 (arXiv:1611.07004), section 3.2.

    Calling it with images [N, 3, h, w] in 0..1 and the number of each one's style [N] gives scores
    [N, h', w']; a score sees a square of `seen` pixels and knows nothing of the rest. Nothing is
    normalised, so that it can be penalised, and nothing padded, so that no border gives a picture
    away. Every style has a score of its own, of the same features.

    widths: the channels at strides 2, 4, 8, ...; only the first of them for images of a `side` that
    is too small for all.
    """

    KERNEL = 4

    def __init__(
        self,
        styles: int = 1,
        widths: tuple[int, ...] = (32, 64, 128),
        seed: int = 0,
        side: float = math.inf,
    ) -> None:
        super().__init__()
        random = torch.Generator("cpu").manual_seed(seed)
        while self._seen(len(widths)) > side and len(widths) > 1:
            widths = widths[:-1]
        self.seen = self._seen(len(widths))
        self.layers = nn.ModuleList(
            nn.Conv2d(before, width, self.KERNEL, 2)
            for before, width in zip((3, *widths), widths, strict=False)
        )
        self.score = nn.Conv2d(widths[-1], styles, 3)
        for layer in [*self.layers, self.score]:
            nn.init.kaiming_normal_(layer.weight, 0.2, generator=random)
            nn.init.zeros_(layer.bias)

    def _seen(self, layers: int) -> int:
        """The pixels that a score sees, a side."""
        seen = 3
        for _ in range(layers):
            seen = 2 * seen + self.KERNEL - 2
        return seen

    def forward(self, images: Tensor, styles: Tensor) -> Tensor:
        """Score the patches of images."""
        x = 2 * images - 1
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        scores: Tensor = self.score(x)
        return scores[torch.arange(len(scores), device=scores.device), styles]


class Opponent:
    """A critic that learns beside a generator, with the optimiser of its adversary.

    Args:
        rate: the learning rate; the adversary's own if None.
        seed: of the numbers that `WganGp` mixes samples by.
    """

    def __init__(
        self,
        adversary: Adversary,
        critic: nn.Module,
        rate: float | None = None,
        seed: int = 0,
    ) -> None:
        self.adversary, self.critic = adversary, critic
        self.rate = adversary.rate if rate is None else rate
        self.weights = dict(critic.named_parameters())
        self.optimizer = adversary.optimizer(self.weights.values(), self.rate)
        self.seed, self.steps = seed, 0

    def learn(self, real: Tensor, made: Tensor, *about: Tensor) -> tuple[float, float]:
        """Make a step; returns the critic's loss and its estimate, before the step.

        about: what else the critic is told of each sample, of the real and of the made ones alike.
        """
        self.steps += 1
        made = made.detach()
        random = np.random.default_rng([self.seed, self.steps])
        shares = torch.from_numpy(random.random(len(real), np.float32)).to(real.device)
        scores = self.critic(torch.cat([real, made]), *(torch.cat([x, x]) for x in about))
        ours, theirs = scores.split(len(real))
        loss = self.adversary.critic_loss(ours, theirs) + self.adversary.penalty_of(
            lambda samples: self.critic(samples, *about), real, made, shares
        )
        estimate = self.adversary.estimate(ours.detach(), theirs.detach())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.adversary.constrain(self.critic)
        return loss.item(), estimate.item()

    def judge(self, made: Tensor, *about: Tensor) -> tuple[float, Tensor]:
        """The generator's loss, and its gradient with respect to what was made."""
        made = made.detach().requires_grad_(True)
        loss = self.adversary.generator_loss(self.critic(made, *about))
        (gradient,) = torch.autograd.grad(loss, made)
        return loss.item(), gradient

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that `restore` needs to go on: plain values, and tensors."""
        return {"steps": self.steps}, learned(self.weights, self.optimizer)

    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state`.

        Raises:
            KeyError, ValueError: it is that of another critic.
        """
        self.steps = values["steps"]
        learn_on(self.weights, self.optimizer, tensors)


def duel(
    adversary: Adversary,
    generator: nn.Module,
    critic: nn.Module,
    real: Callable[[int], Tensor],
    noise: Callable[[int], Tensor],
    *,
    rate: float | None = None,
    seed: int = 0,
) -> Iterator[Round]:
    """Train a generator and a critic, without end; each turn is a step of the generator.

    Args:
        real, noise: a batch of real samples, and of what the generator reads, for a number that is
            another one each time.
        rate: the learning rate of both; the adversary's own if None.
    """
    opponent = Opponent(adversary, critic, rate, seed)
    weights = list(generator.parameters())
    optimizer = adversary.optimizer(weights, opponent.rate)
    for number in itertools.count(0, adversary.critic_steps + 1):
        for turn in range(adversary.critic_steps):
            with torch.no_grad():
                made = generator(noise(number + turn))
            critic_loss, estimate = opponent.learn(real(number + turn), made)
        made = generator(noise(number + adversary.critic_steps))
        loss, gradient = opponent.judge(made)
        optimizer.zero_grad()
        made.backward(gradient)
        optimizer.step()
        yield Round(loss, critic_loss, estimate)


def balanced(gradient: Tensor, other: Tensor, weight: float) -> Tensor:
    """A critic's gradient with `weight` times the norm of the other losses' gradient.

    Esser, Rombach & Ommer 2021 (arXiv:2012.09841), eq. 7, at the pictures rather than at the last
    layer. So a weight means the same for every adversary, however steep its critic is.
    """
    norm = gradient.norm()
    return gradient * (weight * other.norm() / norm) if norm.item() > 0 else gradient


def learned(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, and what their optimiser remembers of each, by names that `learn_on` knows."""
    found: dict[str, Tensor] = {}
    for name, each in weights.items():
        found[f"learned {name}"] = each.detach()
        for moment, value in optimizer.state.get(each, {}).items():
            found[f"{moment} {name}"] = torch.as_tensor(value)
    return found


@torch.no_grad()
def learn_on(
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """Replace weights and what their optimiser remembers by what `learned` gave.

    Raises:
        KeyError, ValueError: it was given for others.
    """
    for name, each in weights.items():
        if tensors[f"learned {name}"].shape != each.shape:
            raise ValueError(name)
        each.copy_(tensors[f"learned {name}"])
        moments = {
            moment: tensors[f"{moment} {name}"].clone()
            for moment in _MOMENTS
            if f"{moment} {name}" in tensors
        }
        if any(value.ndim and value.shape != each.shape for value in moments.values()):
            raise ValueError(name)
        if moments:
            optimizer.state[each] = {
                moment: value if moment == "step" else value.to(each.device)
                for moment, value in moments.items()
            }
