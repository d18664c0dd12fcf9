"""The optimisers: on functions whose minimum is known, and on the real objective."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from impasto import (
    ContentLoss,
    Evaluation,
    ImpastoError,
    Lbfgs,
    Objective,
    Step,
    StyleLoss,
    Vgg,
    adam,
    cg,
    gram,
    lbfgs,
)
from impasto.catalog import OPTIMIZERS
from impasto.optimise.base import Evaluate, Optimiser
from impasto.settings import Scaling

OPTIMISERS: dict[str, Optimiser] = {"lbfgs": lbfgs, "cg": cg, "adam": adam}
SEARCHING = {"lbfgs": lbfgs, "cg": cg}
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def quadratic(target: Tensor, curvature: Tensor, weight: float = 1.0) -> Evaluate:
    """weight * sum curvature (x - target)^2, whose minimum in range is target clipped."""

    def evaluate(image: Tensor) -> Evaluation:
        error = (image - target).double()
        loss = weight * (curvature * error.square()).sum().item()
        return Evaluation(loss, (2 * weight * curvature * error).float(), {"error": loss})

    return evaluate


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_every_optimiser_of_the_settings_is_there() -> None:
    assert {name: row.load()() for name, row in OPTIMIZERS.items()} == OPTIMISERS


@pytest.mark.parametrize("name", SEARCHING)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    condition=st.floats(0, 3),
    magnitude=st.floats(-9, 12),
    width=st.integers(1, 12),
)
def test_line_searches_descend_within_range(
    name: str, seed: int, condition: float, magnitude: float, width: int
) -> None:
    """Whatever the scale of the loss: every step lowers it, every pixel stays in range, and the
    minimum within bounds is reached, also where the free one lies outside of them."""
    start = random(seed, 1, 3, 4, width)
    target = random(seed + 1, 1, 3, 4, width) * 1.4 - 0.2
    curvature = 10 ** (condition * random(seed + 2, 1, 3, 4, width).double())
    objective = quadratic(target, curvature, 10**magnitude)
    seen: list[Step] = []
    outcome = SEARCHING[name](objective, start, steps=60, callback=seen.append)
    assert [step.step for step in seen] == list(range(len(seen)))
    assert all(b.loss <= a.loss for a, b in itertools.pairwise(seen))
    assert all(step.image.min() >= 0 and step.image.max() <= 1 for step in seen)
    best = objective(target.clamp(0, 1)).loss
    assert outcome.final.loss - best <= 0.05 * (seen[0].loss - best) + 1e-6 * seen[0].loss


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_report_what_they_are(name: str) -> None:
    objective = quadratic(random(1, 1, 3, 5, 4), torch.ones(1, dtype=torch.float64))
    seen: list[Step] = []
    start = random(0, 1, 3, 5, 4)
    outcome = OPTIMISERS[name](objective, start, steps=5, callback=seen.append)
    assert outcome.final is seen[-1]
    assert len(seen) <= 6
    for step in seen:
        assert step.loss == objective(step.image).loss == step.parts["error"]
        assert step.evaluations >= step.step + 1
    assert torch.allclose(seen[0].image, start, atol=1 / 509)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_budgets(name: str) -> None:
    uneven = quadratic(random(1, 1, 3, 9, 9), 10 ** (3 * random(2, 1, 3, 9, 9).double()))
    start = random(0, 1, 3, 9, 9)
    none = OPTIMISERS[name](uneven, start, steps=0)
    assert (none.final.step, none.final.evaluations, none.reason) == (0, 1, "budget")
    few = OPTIMISERS[name](uneven, start, steps=3)
    assert (few.final.step, few.reason) == (3, "budget")
    counted = 0

    def counting(image: Tensor) -> Evaluation:
        nonlocal counted
        counted += 1
        return uneven(image)

    spent = OPTIMISERS[name](counting, start, steps=1000, evaluations=9)
    assert counted == 9
    assert spent.reason == "budget"
    assert spent.final.loss < none.final.loss
    with pytest.raises(ImpastoError, match="at least one evaluation"):
        OPTIMISERS[name](uneven, start, steps=1, evaluations=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_end_of_the_descent_is_noticed(name: str) -> None:
    target = random(1, 1, 3, 5, 4)
    objective = quadratic(target, torch.ones(1, dtype=torch.float64))
    outcome = OPTIMISERS[name](objective, random(0, 1, 3, 5, 4), steps=5000)
    assert outcome.reason == "flat"
    assert outcome.final.step < 5000
    assert torch.allclose(outcome.final.image, target, atol=0.01)


@pytest.mark.parametrize("name", SEARCHING)
def test_a_minimum_is_left_alone(name: str) -> None:
    target = random(1, 1, 3, 5, 4) * 0.9 + 0.05
    outcome = SEARCHING[name](quadratic(target, torch.ones(1)), target, steps=50)
    assert outcome.reason == "flat"
    assert torch.allclose(outcome.final.image, target, atol=1e-6)


@pytest.mark.parametrize("name", SEARCHING)
def test_a_restart_goes_on_from_where_it_was(name: str) -> None:
    objective = quadratic(random(1, 1, 3, 9, 9), 10 ** (2 * random(2, 1, 3, 9, 9).double()))
    seen: list[Step] = []
    SEARCHING[name](
        objective, random(0, 1, 3, 9, 9), steps=100, evaluations=40, restart=8, callback=seen.append
    )
    losses = [step.loss for step in seen]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses) > 20


@pytest.mark.parametrize("name", SEARCHING)
@pytest.mark.parametrize("restart", [1, 2, 3])
def test_rounds_too_short_for_a_step_come_to_an_end(name: str, restart: int) -> None:
    objective = quadratic(random(1, 1, 3, 4, 5), 10 ** random(2, 1, 3, 4, 5).double())
    outcome = SEARCHING[name](objective, random(0, 1, 3, 4, 5), steps=10**6, restart=restart)
    assert outcome.reason == "flat"


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(name: str, bad: float) -> None:
    def objective(image: Tensor) -> Evaluation:
        return Evaluation(bad, torch.ones_like(image), {})

    with pytest.raises(ImpastoError, match="not a finite number"):
        OPTIMISERS[name](objective, random(0, 1, 3, 2, 2), steps=3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_so_is_a_start_that_is_none(encoder: Vgg, photo: Tensor, name: str) -> None:
    """Though the loss is one: to a ReLU of the kernels, what is no number is zero."""
    objective = Objective(encoder, [StyleLoss("relu2_1", torch.zeros(1, 128, 128))])
    with pytest.raises(ImpastoError, match="no finite numbers"):
        OPTIMISERS[name](objective, torch.full_like(photo, math.nan), steps=3)


@pytest.fixture(scope="module")
def objectives(encoder: Vgg, photo: Tensor, painting: Tensor) -> dict[Scaling, Objective]:
    with torch.no_grad():
        content = encoder(photo, ["relu4_2"])["relu4_2"]
        style = encoder(painting, STYLE)
    weights: dict[Scaling, tuple[float, float]] = {
        "relative": (1, 3),
        "gatys": (1, 200),
        "lecture": (0.1, 1),
    }
    return {
        scaling: Objective(
            encoder,
            [
                ContentLoss("relu4_2", content, alpha, scaling),
                *(StyleLoss(layer, gram(style[layer]), beta, scaling) for layer in STYLE),
            ],
        )
        for scaling, (alpha, beta) in weights.items()
    }


@pytest.mark.parametrize("scaling", ["relative", "gatys", "lecture"])
@pytest.mark.parametrize("start", ["photo", "noise", "painting", "black", "white"])
@pytest.mark.parametrize("optimiser", [lbfgs, cg])
def test_progress_at_once_from_any_start_in_every_scaling(
    objectives: dict[Scaling, Objective],
    photo: Tensor,
    noise: Tensor,
    painting: Tensor,
    scaling: Scaling,
    start: str,
    optimiser: Optimiser,
) -> None:
    starts = {
        "photo": photo,
        "noise": noise,
        "painting": torch.nn.functional.interpolate(painting, size=photo.shape[-2:]),
        "black": torch.zeros_like(photo),
        "white": torch.ones_like(photo),
    }
    seen: list[Step] = []
    optimiser(objectives[scaling], starts[start], steps=5, callback=seen.append)
    losses = [step.loss for step in seen]
    assert len(losses) == 6
    assert all(b < a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]
    assert seen[-1].evaluations <= 25
    first_move = (seen[1].image - seen[0].image).square().mean().sqrt().item()
    assert first_move > 0.1 / 255


def test_adam_lowers_the_real_objective(
    objectives: dict[Scaling, Objective], photo: Tensor
) -> None:
    seen: list[Step] = []
    outcome = adam(objectives["relative"], photo, steps=30, callback=seen.append)
    assert outcome.final.loss < 0.5 * seen[0].loss
    assert all(step.image.min() >= 0 and step.image.max() <= 1 for step in seen)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_again_is_the_same(
    name: str, objectives: dict[Scaling, Objective], noise: Tensor
) -> None:
    one, two = (OPTIMISERS[name](objectives["relative"], noise, steps=8).final for _ in range(2))
    assert one.loss == two.loss
    assert np.array_equal(one.image.numpy(), two.image.numpy())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whoever_iterates_may_stop_and_go_on_elsewhere(name: str) -> None:
    objective, start = (
        quadratic(random(1, 1, 3, 5, 4), random(2, 1, 3, 5, 4) + 0.1),
        random(0, 1, 3, 5, 4),
    )
    whole = list(OPTIMISERS[name].start(objective, start, steps=9))
    descent = OPTIMISERS[name].start(objective, start, steps=9)
    some = [next(descent) for _ in range(4)]
    state = {key: value.clone() for key, value in some[-1].state().items()}
    rest = list(OPTIMISERS[name].start(objective, some[-1].image, steps=6, state=state))
    assert [step.loss for step in some] == [step.loss for step in whole[:4]]
    assert rest[-1].loss == pytest.approx(whole[-1].loss, rel=0.05, abs=1e-9)
    descent.close()
    assert list(descent) == []
    assert some[-1].state() == {}
    assert descent.outcome.final is some[-1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_raised_in_the_midst_of_a_step_changes_nothing(name: str) -> None:
    plain = quadratic(random(1, 1, 3, 5, 4), random(2, 1, 3, 5, 4) + 0.1)
    calls: list[int] = []

    def pressed(image: Tensor) -> Evaluation:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(image)

    start = random(0, 1, 3, 5, 4)
    expected = [step.loss for step in OPTIMISERS[name].start(plain, start, steps=8)]
    descent = OPTIMISERS[name].start(pressed, start, steps=8)
    with pytest.raises(KeyboardInterrupt):
        list(descent)
    assert descent.last is not None
    before = descent.last.step
    losses = [step.loss for step in descent]  # it tries the same step again
    assert before + len(losses) + 1 == len(expected)
    assert losses[-1] == pytest.approx(expected[-1], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_in_turns_are_as_one_after_the_other(name: str) -> None:
    objectives = [quadratic(random(n, 1, 3, 5, 4), random(9, 1, 3, 5, 4) + 0.1) for n in (1, 2)]
    start = random(0, 1, 3, 5, 4)
    alone = [[s.loss for s in OPTIMISERS[name].start(o, start, steps=6)] for o in objectives]
    pairs = zip(*(OPTIMISERS[name].start(o, start, steps=6) for o in objectives), strict=False)
    for number, (one, other) in enumerate(pairs):
        assert [one.loss, other.loss] == [alone[0][number], alone[1][number]]


def test_an_optimiser_has_its_own_numbers(photo: Tensor) -> None:
    objective = quadratic(photo.flip(-1), torch.linspace(0.01, 10, photo.numel()).view_as(photo))
    short, usual = (Lbfgs(history=n)(objective, photo, steps=30).final.loss for n in (1, 20))
    assert usual < short
    with pytest.raises(ImpastoError, match=r"one image .*a batch"):
        adam(objective, torch.cat([photo, photo]), steps=1)
