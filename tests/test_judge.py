"""The measures of benchmarks/judge.py say what they are said to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from impasto import blurred
from judge import Judge, band_likeness, edges, fine, shape, sliced_wasserstein, weave
from tests.conftest import sample_tensor


@pytest.fixture(scope="module")
def owl() -> Tensor:
    return sample_tensor("owl", 160)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def test_the_photo_is_like_itself_and_its_negative_is_not(owl: Tensor) -> None:
    for measure in (fine, shape, edges):
        assert measure(owl, owl) == pytest.approx(1, abs=1e-6)
    assert fine(1 - owl, owl) == pytest.approx(-1, abs=1e-6)
    assert shape(1 - owl, owl) == pytest.approx(-1, abs=1e-6)
    assert edges(1 - owl, owl) == pytest.approx(1, abs=1e-6)  # they have no sign


def test_contrast_does_not_count(owl: Tensor) -> None:
    assert fine(0.3 + 0.4 * owl, owl) == pytest.approx(1, abs=1e-4)


def test_texture_and_shapes_are_apart(owl: Tensor) -> None:
    """Other texture on the same shapes: nothing fine is left, all shapes are."""
    noise = torch.rand(owl.shape, generator=torch.Generator().manual_seed(0))
    repainted = (blurred(owl, 3) + 0.3 * (noise - 0.5)).clamp(0, 1)
    assert abs(fine(repainted, owl)) < 0.2
    assert shape(repainted, owl) > 0.8


def test_a_band_is_the_difference_of_two_gaussians() -> None:
    """Two waves, of which a narrow band sees one: against the correlation by hand."""
    x = torch.arange(256.0)
    slow, fast = torch.sin(2 * math.pi * x / 64), torch.sin(2 * math.pi * x / 4)
    photo = (0.5 + 0.2 * (slow + fast)).expand(1, 3, 64, 256)
    picture = (0.5 + 0.2 * (slow - fast)).expand(1, 3, 64, 256)
    assert band_likeness(picture, photo, 0.7, 9) < -0.9
    assert band_likeness(picture, photo, 8, 67) > 0.9


def test_waves_along_rows_and_columns_are_a_weave() -> None:
    generator = torch.Generator().manual_seed(0)
    ground = (0.5 + 0.02 * torch.randn(1, 3, 128, 160, generator=generator)).clamp(0, 1)
    assert weave(ground, ground) == pytest.approx(1)
    x = torch.arange(160.0)
    columns = 0.02 * torch.sin(2 * math.pi * x / 3)
    diagonal = 0.02 * torch.sin(2 * math.pi * (x + torch.arange(128.0)[:, None]) / 4)  # 2.8 apart
    assert weave(ground + columns, ground) > 2
    assert weave(ground + diagonal, ground) < 0.5


def test_a_painting_is_painted_and_a_photo_is_not(owl: Tensor, judge: Judge) -> None:
    painting = sample_tensor("night_cafe", 160)
    assert judge.painted(owl, owl, painting) == pytest.approx(1)
    assert judge.painted(painting, owl, painting) == pytest.approx(0, abs=1e-5)


def test_the_judges_layers(judge: Judge) -> None:
    """Strides 4 and 8 at an odd size; "same" padding gives ceil(n / stride) places."""
    first, second = judge.features(torch.rand(1, 3, 45, 70))
    assert first.shape == (24, 12 * 18)
    assert second.shape == (40, 6 * 9)


def test_sliced_wasserstein_is_scipys_on_a_line() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.standard_normal((50, 1)), 2 * random.standard_normal((50, 1)) + 1
    exact = wasserstein_distance(ours[:, 0], theirs[:, 0])
    # In one dimension every direction is the line itself, forwards or backwards.
    assert sliced_wasserstein(ours, theirs) == pytest.approx(exact)
    plane = random.standard_normal((200, 2))
    assert sliced_wasserstein(plane, plane[::-1]) == pytest.approx(0)
    # The mean of |cos| over all directions is 2 / pi.
    assert sliced_wasserstein(plane, plane + np.array([3, 0])) == pytest.approx(6 / np.pi, rel=0.05)


def test_crops_are_apart_as_far_as_they_differ(judge: Judge) -> None:
    wave, cafe = (sample_tensor(name, 160) for name in ("great_wave", "night_cafe"))
    cuts = {
        name: torch.cat([x[..., n : n + 64, m : m + 64] for n in (0, 20) for m in (0, 40, 80)])
        for name, x in (("wave", wave[..., :100, :]), ("cafe", cafe[..., :100, :]))
    }
    same = judge.apart(cuts["wave"], cuts["wave"])
    mixed = judge.apart(0.5 * cuts["wave"] + 0.5 * cuts["cafe"], cuts["wave"])
    other = judge.apart(cuts["cafe"], cuts["wave"])
    assert same == 0
    assert 0 < mixed < other
