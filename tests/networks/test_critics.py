"""Adversaries: their losses by their equations, and that they do what their papers say."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from adversaries import MODES, covered, ring_run
from impasto import (
    Adversary,
    Gan,
    Opponent,
    PatchCritic,
    Wgan,
    WganGp,
    catalog,
    duel,
    gradient_penalty,
)
from impasto.networks.critics import balanced

ALL = list(catalog.ADVERSARIES)


def made(name: str, **choices: Any) -> Adversary:
    adversary = catalog.ADVERSARIES[name].load()(**choices)
    assert isinstance(adversary, Adversary)
    return adversary


def points(count: int, width: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=random) + shift


def small(inputs: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                         nn.Linear(64, 1))  # fmt: skip


def test_the_losses_of_gan() -> None:
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.1])
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    expected = -(d_real.log().mean() + (1 - d_fake).log().mean())
    gan = Gan()
    assert gan.critic_loss(real, fake).item() == pytest.approx(expected.item())
    assert gan.generator_loss(fake).item() == pytest.approx(-d_fake.log().mean().item())
    # With the best critic of two distributions without a common point, the bound is reached.
    assert gan.estimate(torch.full((3,), 50.0), torch.full((3,), -50.0)).item() == pytest.approx(
        math.log(2)
    )
    assert gan.estimate(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("adversary", [Wgan(), WganGp()])
def test_the_losses_of_wasserstein(adversary: Adversary) -> None:
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.1])
    assert adversary.estimate(real, fake).item() == pytest.approx(-0.35 - 1.05)
    assert adversary.critic_loss(real, fake).item() == pytest.approx(1.05 + 0.35)
    assert adversary.generator_loss(fake).item() == pytest.approx(-1.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 10**6))
def test_the_penalty_of_a_linear_critic(count: int, width: int, seed: int) -> None:
    """f(x) = w x has the gradient w everywhere: (|w| - 1)^2, which is 2 (|w| - 1) w / |w| steep."""
    critic = nn.Linear(width, 1, bias=False)
    critic.weight.data = points(1, width, seed)
    penalty = gradient_penalty(critic, points(count, width, seed + 1))
    weight = critic.weight.detach()
    norm = weight.norm()
    torch.testing.assert_close(penalty, (norm - 1).square())
    (slope,) = torch.autograd.grad(penalty, critic.weight)
    torch.testing.assert_close(slope, 2 * (norm - 1) * weight / norm, atol=1e-5, rtol=1e-4)


def test_a_penalised_critic_scores_each_sample_by_itself() -> None:
    """Also between two samples: the penalty is that of mixtures of one real and one made sample."""
    critic, images = PatchCritic(2), torch.rand(3, 3, 64, 64)
    together = critic(images, torch.tensor([0, 1, 0]))
    alone = critic(images[1:2], torch.tensor([1]))
    torch.testing.assert_close(together[1:2], alone)
    real, fake = points(4, 2), points(4, 2, 1)
    seen: list[Tensor] = []

    def critic_of(samples: Tensor) -> Tensor:
        seen.append(samples.detach())
        return samples.sum(1)

    WganGp().penalty_of(critic_of, real, fake, torch.tensor([1.0, 0.0, 0.5, 0.25]))
    torch.testing.assert_close(seen[0][0], real[0])
    torch.testing.assert_close(seen[0][1], fake[1])
    torch.testing.assert_close(seen[0][3], 0.25 * real[3] + 0.75 * fake[3])


def test_a_patch_sees_no_further() -> None:
    critic = PatchCritic()
    images = torch.rand(1, 3, 96, 96)
    number = torch.zeros(1, dtype=torch.long)
    before = critic(images, number)
    changed = images.clone()
    changed[..., critic.seen :, :] = 1 - changed[..., critic.seen :, :]
    after = critic(changed, number)
    assert torch.equal(before[0, 0], after[0, 0])
    assert not torch.equal(before[0, 1], after[0, 1])


def test_clipped_weights_stay_in_bounds() -> None:
    critic = PatchCritic()
    opponent = Opponent(Wgan(clip=0.02), critic, rate=0.1)
    number = torch.zeros(2, dtype=torch.long)
    for _ in range(3):
        opponent.learn(torch.rand(2, 3, 48, 48), torch.rand(2, 3, 48, 48), number)
        assert all(each.abs().max() <= 0.02 for each in critic.parameters())


@pytest.mark.parametrize(
    ("penalty", "fake"),
    [
        (10.0, torch.cat([points(128, 1, 1) * 0.2 + 1, points(128, 1, 2) + 2])),
        (30.0, points(256, 1, 3) * 0.5 + 3),
        (30.0, torch.cat([points(128, 1, 1) * 0.2 + 3, points(128, 1, 2) - 3])),
    ],
)
def test_the_estimate_is_the_wasserstein_distance(penalty: float, fake: Tensor) -> None:
    """A distance d pulls slopes up to 1 + d / (2 penalty), so that far points need a larger one."""
    real = points(256, 1, 0) * 0.5
    opponent = Opponent(WganGp(penalty=penalty), small(1), rate=1e-3)
    found = [opponent.learn(real, fake)[1] for _ in range(700)]
    exact = wasserstein_distance(real[:, 0].numpy(), fake[:, 0].numpy())
    assert np.mean(found[-50:]) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("name", ALL)
def test_seeds_make_runs_equal(name: str) -> None:
    def run(seed: int) -> list[Any]:
        turns = duel(
            made(name),
            nn.Sequential(small(2, seed), nn.Linear(1, 2)),
            small(2, seed + 1),
            lambda number: points(16, 2, number, 1.0),
            lambda number: points(16, 2, number + 10**6),
            rate=1e-3,
            seed=seed,
        )
        return list(itertools.islice(turns, 5))

    assert run(0) == run(0)
    assert run(0) != run(1)


@pytest.mark.parametrize("name", ALL)
def test_an_opponent_goes_on_where_it_was(name: str) -> None:
    def opponent() -> Opponent:
        return Opponent(made(name), small(2), rate=1e-3)

    first = opponent()
    for number in range(3):
        first.learn(points(8, 2, number, 1.0), points(8, 2, 9 + number))
    values, tensors = first.state()
    again = opponent()
    again.restore(values, {key: each.clone() for key, each in tensors.items()})
    one, other = (each.learn(points(8, 2, 5, 1.0), points(8, 2, 6)) for each in (first, again))
    assert one == other
    assert all(torch.equal(first.weights[key], again.weights[key]) for key in first.weights)
    with pytest.raises((KeyError, ValueError)):
        Opponent(made(name), small(3)).restore(values, tensors)


def test_the_generator_gets_the_gradient_of_its_loss() -> None:
    opponent, fake = Opponent(Gan(), small(2).double()), points(5, 2).double()
    loss, gradient = opponent.judge(fake)
    nudge = 1e-4 * gradient / gradient.norm()
    higher, _ = opponent.judge(fake + nudge)
    assert higher - loss == pytest.approx((gradient * nudge).sum().item(), rel=0.01)


def test_a_balanced_gradient_has_the_norm_that_was_asked_for() -> None:
    mine, other = points(4, 9), 7 * points(4, 9, 1)
    torch.testing.assert_close(balanced(mine, other, 0.5).norm(), 0.5 * other.norm())
    assert torch.equal(balanced(torch.zeros(3), 50 * torch.ones(3), 1.0), torch.zeros(3))


def test_wgan_gp_covers_the_ring_of_gaussians() -> None:
    """The benchmark has the other adversaries and seeds: docs/adversaries.md."""
    course, ends = ring_run("wgan-gp", 0, share=0.6)
    assert covered(ends) >= MODES - 1
    assert course[0][1] < MODES - 1  # it had to learn that
