"""The losses against the published definitions in float64 NumPy, on real features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from impasto import (
    ContentLoss,
    Encoder,
    StyleLoss,
    border_variation,
    gram,
    total_variation,
)
from impasto.settings import Scaling

LAYER = "relu3_1"


@pytest.fixture(scope="module")
def features(encoder: Encoder, photo: Tensor) -> Tensor:
    return encoder(photo, [LAYER])[LAYER]


@pytest.fixture(scope="module")
def others(encoder: Encoder, painting: Tensor) -> Tensor:
    return encoder(painting, [LAYER])[LAYER]


def matrix(features: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """F [C, N] as in the papers."""
    return features[0].double().flatten(1).numpy()


def test_gram_matrix(features: Tensor) -> None:
    f = matrix(features)
    expected = f @ f.T / f.shape[1]
    assert np.allclose(gram(features)[0], expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("scaling", ["relative", "gatys", "lecture"])
def test_content_loss(features: Tensor, noise: Tensor, encoder: Encoder, scaling: Scaling) -> None:
    x = encoder(noise, [LAYER])[LAYER]
    f, p = matrix(x), matrix(features)
    expected = {
        "relative": ((f - p) ** 2).sum() / (p**2).sum(),
        "gatys": 0.5 * ((f - p) ** 2).sum(),
        "lecture": ((f - p) ** 2).mean(),
    }
    value = ContentLoss(LAYER, features, scaling=scaling)(x).item()
    assert value == pytest.approx(expected[scaling], rel=1e-5)


@pytest.mark.parametrize("scaling", ["relative", "gatys", "lecture"])
def test_style_loss(features: Tensor, noise: Tensor, encoder: Encoder, scaling: Scaling) -> None:
    x = encoder(noise, [LAYER])[LAYER]
    f, p = matrix(x), matrix(features)  # of the same size, as the papers have it
    channels, positions = f.shape
    g, a = f @ f.T, p @ p.T
    expected = {
        "relative": ((g - a) ** 2).sum() / (a**2).sum(),
        "gatys": ((g - a) ** 2).sum() / (4 * channels**2 * positions**2),
        "lecture": ((g / f.size - a / p.size) ** 2).mean(),
    }
    value = StyleLoss(LAYER, gram(features), scaling=scaling)(x).item()
    assert value == pytest.approx(expected[scaling], rel=1e-4)


@pytest.mark.parametrize("scaling", ["relative", "gatys", "lecture"])
def test_style_forgets_where_things_are(features: Tensor, others: Tensor, scaling: Scaling) -> None:
    loss = StyleLoss(LAYER, gram(others), scaling=scaling)
    order = torch.randperm(features[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = features.flatten(2)[:, :, order].view(features.shape)
    assert loss(shuffled).item() == pytest.approx(loss(features).item(), rel=1e-5)
    content = ContentLoss(LAYER, features, scaling=scaling)
    assert content(features).item() == 0
    assert content(shuffled).item() > 0


def test_losses_are_zero_at_their_own_target_only(features: Tensor, others: Tensor) -> None:
    loss = StyleLoss(LAYER, gram(features))
    assert loss(features).item() == 0
    assert loss(others).item() > 0.01


def test_a_silent_target_has_a_finite_loss() -> None:
    zeros, ones = torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3)
    assert ContentLoss(LAYER, zeros)(ones).item() == 18
    assert StyleLoss(LAYER, gram(zeros))(ones).item() == 4


pictures = arrays(
    np.float32,
    st.tuples(st.just(1), st.just(3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(0, 1, width=32),
)


@given(pictures)
def test_total_variation(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    x = pixels.astype(np.float64)
    down, across = np.diff(x, axis=2), np.diff(x, axis=3)
    expected = ((down**2).sum() + (across**2).sum()) / x.size
    image = torch.from_numpy(pixels)
    assert total_variation(image).item() == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert total_variation(torch.full_like(image, 0.3)).item() == 0


def test_border_variation_sees_the_outermost_pixels_only() -> None:
    image = torch.zeros(1, 1, 20, 30)
    image[..., 4:-4, 4:-4] = torch.rand(12, 22, generator=torch.Generator().manual_seed(0))
    assert border_variation(image).item() == 0
    framed = image.clone()
    framed[..., 0] = 1.0
    assert border_variation(framed).item() == pytest.approx(20 / 600)
    stripes = torch.arange(30.0).expand(1, 1, 20, 30)
    assert border_variation(stripes).item() == pytest.approx(2 * 3 * 20 / 600)
    assert border_variation(torch.rand(1, 3, 1, 1)).item() == 0
