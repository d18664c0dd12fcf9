"""Tiles: the same loss and gradient as of the whole, whatever the sizes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from impasto import (
    BorderLoss,
    ContentLoss,
    Encoder,
    Evaluation,
    ImpastoError,
    Loss,
    MeanStyle,
    Objective,
    Statistic,
    StyleLoss,
    TotalVariationLoss,
    gram,
    load_encoder,
    measure,
)
from impasto.encoders.base import Padding
from impasto.encoders.tiles import needed, plan
from tests.conftest import sample_tensor

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def losses(encoder: Encoder, photo: Tensor, painting: Tensor) -> list[Loss]:
    targets = measure(encoder, photo, features=["relu4_2"])
    grams = measure(encoder, painting, statistics={name: Statistic(name) for name in STYLE})
    return [
        ContentLoss("relu4_2", targets["relu4_2"]),
        *(StyleLoss(layer, grams[layer], 3.0) for layer in STYLE),
        TotalVariationLoss(5.0),
        BorderLoss(20.0),
    ]


def assert_same(one: Evaluation, other: Evaluation, tolerance: float) -> None:
    assert one.loss == pytest.approx(other.loss, rel=tolerance)
    assert one.parts == pytest.approx(other.parts, rel=tolerance, abs=1e-15)
    difference = (one.gradient - other.gradient).norm() / other.gradient.norm()
    assert difference.item() < tolerance


@settings(deadline=None, max_examples=10)
@given(st.integers(16, 80), st.integers(16, 80), st.integers(1, 100), st.integers(0, 9))
def test_any_size_in_any_tiles_is_exact(
    encoder64: Encoder, height: int, width: int, tile: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    image, photo, painting = (
        torch.rand(1, 3, height, width, generator=random, dtype=torch.float64) for _ in range(3)
    )
    terms = losses(encoder64, photo, painting)
    whole = Objective(encoder64, terms)(image)
    assert_same(Objective(encoder64, terms, tile=tile)(image), whole, 1e-10)


@pytest.mark.parametrize("tile", [16, 48, 80])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_in_single_precision_on_real_pictures(pooling: str, tile: int) -> None:
    encoder = load_encoder(pooling="max" if pooling == "max" else "avg")
    photo, painting = sample_tensor("owl", 211), sample_tensor("great_wave", 160)
    image = sample_tensor("kingfisher", 211)[..., :118]
    image = torch.nn.functional.interpolate(image, photo.shape[-2:])
    terms = losses(encoder, photo, painting)
    whole = Objective(encoder, terms)(image)
    assert_same(Objective(encoder, terms, tile=tile)(image), whole, 1e-4)


def test_a_grey_image(encoder64: Encoder, noise: Tensor, painting: Tensor) -> None:
    grey = noise[:, :1].double()
    terms = losses(encoder64, grey.flip(-1), painting.double())
    whole = Objective(encoder64, terms)(grey)
    assert whole.gradient.shape == grey.shape
    assert_same(Objective(encoder64, terms, tile=16)(grey), whole, 1e-10)


def test_losses_of_any_single_layer(encoder64: Encoder, noise: Tensor) -> None:
    image = noise.double()
    for layer in ("image", "conv1_1", "pool1", "relu3_3", "pool3", "conv4_1", "pool4"):
        target = encoder64(image.flip(-1), [layer])[layer]
        terms = [ContentLoss(layer, target)]
        whole = Objective(encoder64, terms)(image)
        assert_same(Objective(encoder64, terms, tile=16)(image), whole, 1e-10)


def test_targets_in_tiles(encoder64: Encoder) -> None:
    image = sample_tensor("owl", 150).double()
    statistics = {f"gram {name}": Statistic(name) for name in STYLE}
    whole = measure(encoder64, image, features=["relu4_2"], statistics=statistics)
    tiled = measure(encoder64, image, features=["relu4_2"], statistics=statistics, memory=1)
    for name, value in whole.items():
        assert torch.allclose(tiled[name], value, rtol=1e-10, atol=1e-12), name


@dataclass(frozen=True)
class Brightest:
    """A loss that only the whole picture can tell."""

    name = "brightest"
    layers = ("relu1_1", "relu2_1")
    weight = 1.0

    def __call__(self, *features: Tensor) -> Tensor:
        return torch.stack([each.amax((1, 2, 3)) for each in features]).sum(0).double()


def test_what_is_no_sum_over_positions_says_so(encoder: Encoder, noise: Tensor) -> None:
    assert Objective(encoder, [Brightest()])(noise).loss > 0
    with pytest.raises(ImpastoError, match="brightest is no function of sums over positions"):
        Objective(encoder, [Brightest()], tile=16)(noise)


class Average(MeanStyle):
    """A style of one's own: how active each channel is."""

    name = "average"

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        assert weights is None
        return features.flatten(2).mean(-1)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        return (statistic - target).square().sum(1).double()


def test_a_style_of_ones_own(encoder64: Encoder, noise: Tensor) -> None:
    image = noise.double()
    target = Average().mean(encoder64(image.flip(-1).square(), ["relu3_1"])["relu3_1"])
    terms = [StyleLoss("relu3_1", target, style=Average())]
    whole = Objective(encoder64, terms)(image)
    assert whole.loss > 0
    assert_same(Objective(encoder64, terms, tile=16)(image), whole, 1e-10)


def test_memory_decides(encoder: Encoder) -> None:
    layers = ["image", "relu4_2", *STYLE]
    size = (1024, 1024)
    whole = needed(encoder, layers, size, None)
    assert plan(encoder, layers, size) is None
    assert plan(encoder, layers, size, memory=whole) is None
    areas = []
    for share in (0.9, 0.6, 0.5):
        segments = plan(encoder, layers, size, memory=share * whole)
        assert segments
        assert needed(encoder, layers, size, segments) <= share * whole
        areas.append(segments[0].tile)
    assert areas == sorted(areas, reverse=True)
    frugal = plan(encoder, layers, size, memory=1)
    assert frugal
    assert needed(encoder, layers, size, frugal) > 1


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_memory_counts_tiles_as_large_as_they_are(encoder: Encoder, padding: Padding) -> None:
    """A side of 720 pixels is not cut for tiles of 544, so there is one tile of 720."""
    layers, size = ["image", "relu4_2", *STYLE], (720, 720)
    padded = encoder.like(padding=padding)
    asked, made = (
        needed(padded, layers, size, plan(padded, layers, size, tile=tile)) for tile in (544, 720)
    )
    assert asked == made


def test_a_gram_loss_at_its_own_target(encoder: Encoder, noise: Tensor) -> None:
    features = encoder(noise, ["relu1_1"])["relu1_1"]
    loss = StyleLoss("relu1_1", gram(features))
    assert Objective(encoder, [loss], tile=16)(noise).loss == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("tile", [16, 32, 200])
def test_a_picture_that_repeats(tile: int) -> None:
    """Halos go on at the opposite side, however often they go around."""
    encoder = load_encoder(padding="circular").double()
    random = torch.Generator().manual_seed(0)
    image, photo, painting = (
        torch.rand(1, 3, 32, 80, generator=random, dtype=torch.float64) for _ in range(3)
    )
    terms = losses(encoder, photo, painting)
    whole = Objective(encoder, terms)(image)
    assert_same(Objective(encoder, terms, tile=tile)(image), whole, 1e-10)
