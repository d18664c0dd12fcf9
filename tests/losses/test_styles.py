"""Style statistics and losses against their published definitions, on real features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from impasto import (
    STYLES,
    BatchNorm,
    Covariance,
    Encoder,
    GaussianMmd,
    Gram,
    ImpastoError,
    LinearMmd,
    MeanStyle,
    Objective,
    PolynomialMmd,
    Statistic,
    StyleLoss,
    Wasserstein,
    measure,
)
from tests.conftest import sample_tensor

Array = npt.NDArray[np.float64]

LAYER = "relu3_1"
EACH = [GaussianMmd(300.0) if name == "mmd-gaussian" else style for name, style in STYLES.items()]
each_style = pytest.mark.parametrize("style", EACH, ids=lambda style: style.name)


@pytest.fixture(scope="module")
def features(encoder64: Encoder) -> Tensor:
    return encoder64(sample_tensor("owl", 48).double(), [LAYER])[LAYER]


@pytest.fixture(scope="module")
def others(encoder64: Encoder) -> Tensor:
    return encoder64(sample_tensor("great_wave", 64).double(), [LAYER])[LAYER]


def positions(features: Tensor) -> Array:
    """[N, C]."""
    matrix: Array = features[0].flatten(1).T.numpy()
    return matrix


def mmd(kernel: Callable[[Array, Array], Array], x: Array, y: Array) -> float:
    """MMD^2 by its definition, over all pairs of positions."""
    return float(kernel(x, x).mean() - 2 * kernel(x, y).mean() + kernel(y, y).mean())


def distance(style: MeanStyle, x: Tensor, y: Tensor) -> float:
    return style.distance(style.mean(x), style.mean(y)).item()


def test_the_gram_loss_is_an_mmd(features: Tensor, others: Tensor) -> None:
    """Li et al. 2017: it is 1 / (4 C^2) of the MMD^2 with the kernel (x.y)^2."""
    x, y = positions(features), positions(others)
    expected = mmd(lambda a, b: (a @ b.T) ** 2, x, y) / (4 * x.shape[1] ** 2)
    loss = StyleLoss(LAYER, Gram().mean(others), scaling="gatys")
    assert loss(features).item() == pytest.approx(expected, rel=1e-5)


def test_the_gram_loss_is_an_mmd_in_single_precision_too(
    encoder: Encoder, features: Tensor, others: Tensor
) -> None:
    expected = mmd(lambda a, b: (a @ b.T) ** 2, positions(features), positions(others))
    x, y = (
        encoder(sample_tensor(name, size), [LAYER])[LAYER]
        for name, size in (("owl", 48), ("great_wave", 64))
    )
    loss = StyleLoss(LAYER, Gram().mean(y), scaling="gatys")(x).item()
    assert loss * 4 * x.shape[1] ** 2 == pytest.approx(expected, rel=1e-5)


def test_linear_mmd(features: Tensor, others: Tensor) -> None:
    x, y = positions(features), positions(others)
    expected = mmd(lambda a, b: a @ b.T, x, y) / np.square(y.mean(0)).sum()
    assert distance(LinearMmd(), features, others) == pytest.approx(expected, rel=1e-8)


def test_polynomial_mmd(features: Tensor, others: Tensor) -> None:
    x, y = positions(features), positions(others)
    c = np.square(y).sum(1).mean()

    def kernel(a: Array, b: Array) -> Array:
        product: Array = (a @ b.T + c) ** 2
        return product

    nothing = np.zeros_like(y)
    expected = mmd(kernel, x, y) / mmd(kernel, nothing, y)
    assert distance(PolynomialMmd(), features, others) == pytest.approx(expected, rel=1e-8)


def gaussian(sigma: float, a: Array, b: Array) -> Array:
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    kernel: Array = np.exp(-squares.clip(0) / (2 * sigma**2))
    return kernel


def test_gaussian_mmd_is_unbiased(features: Tensor, others: Tensor) -> None:
    x, y = positions(features), positions(others)
    sigma = GaussianMmd.bandwidth(BatchNorm().mean(others))
    distances = np.square(y[:, None] - y[None]).sum(-1)
    assert sigma**2 == pytest.approx(distances.mean() / 2, rel=1e-8)
    expected = mmd(lambda a, b: gaussian(sigma, a, b), x, y)
    estimates = []
    for seed in range(100):
        style = GaussianMmd(sigma, seed)
        waves = style.mean(features) - style.mean(others)
        estimates.append(waves.square().sum().item() / waves.shape[-1])
    error = np.std(estimates) / 10
    assert abs(np.mean(estimates) - expected) < 4 * error
    assert error < 0.02 * expected
    assert len(set(estimates)) == 100


def test_batch_norm(features: Tensor, others: Tensor) -> None:
    x, y = positions(features), positions(others)
    between = np.square(x.mean(0) - y.mean(0)).sum() + np.square(x.std(0) - y.std(0)).sum()
    expected = between / (np.square(y.mean(0)).sum() + np.square(y.std(0)).sum())
    assert distance(BatchNorm(), features, others) == pytest.approx(expected, rel=1e-3)


def test_covariance(features: Tensor, others: Tensor) -> None:
    s, t = (np.cov(positions(f).T, bias=True) for f in (features, others))
    expected = np.square(s - t).sum() / np.square(t).sum()
    assert distance(Covariance(), features, others) == pytest.approx(expected, rel=1e-8)


def test_wasserstein(features: Tensor, others: Tensor) -> None:
    x, y = positions(features), positions(others)
    s, t = (np.cov(m.T, bias=True) for m in (x, y))
    ridge = 1e-3 * np.trace(t) / len(t) * np.eye(len(t))
    s, t = s + ridge, t + ridge
    root = sqrtm(t)
    cross = np.trace(sqrtm(root @ s @ root)).real
    between = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * cross
    expected = between / np.square(y).sum(1).mean()
    assert distance(Wasserstein(), features, others) == pytest.approx(expected, rel=1e-6)


@each_style
def test_zero_at_its_own_target_only(style: MeanStyle, features: Tensor, others: Tensor) -> None:
    assert distance(style, others, others) == pytest.approx(0, abs=1e-9)
    assert distance(style, features, others) > 0.01


@each_style
def test_where_things_are_is_forgotten(style: MeanStyle, features: Tensor, others: Tensor) -> None:
    order = torch.randperm(features[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = features.flatten(2)[:, :, order].view(features.shape)
    expected = distance(style, features, others)
    assert distance(style, shuffled, others) == pytest.approx(expected, rel=1e-9)


@each_style
def test_gradients(style: MeanStyle, features: Tensor, others: Tensor) -> None:
    random = torch.Generator().manual_seed(0)
    height, width = features.shape[-2:]
    area = torch.rand(1, 1, height, width, generator=random, dtype=torch.float64) * 2
    for where in (None, area):
        loss = StyleLoss(LAYER, style.mean(others), style=style, area=where)
        x = features.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(x), x)
        direction = torch.randn(x.shape, generator=random, dtype=torch.float64)
        direction *= (features > 0) * features.std()  # a channel that is silent stays so
        step = 1e-5
        ahead, behind = loss(features + step * direction), loss(features - step * direction)
        slope = (ahead - behind).item() / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5)


@each_style
@pytest.mark.parametrize("soft", [False, True])
def test_in_tiles(style: MeanStyle, soft: bool, encoder64: Encoder) -> None:
    image, painting = (sample_tensor(name, 90).double() for name in ("kingfisher", "great_wave"))
    layers = ("relu1_1", "relu3_1")
    targets = measure(
        encoder64, painting, statistics={name: Statistic(name, style) for name in layers}
    )
    losses = []
    for layer in layers:
        (found,) = encoder64(image, [layer]).values()
        height, width = found.shape[-2:]
        ramp = torch.linspace(0, 2, width, dtype=torch.float64).expand(1, 1, height, width)
        area = ramp if soft else None
        losses.append(StyleLoss(layer, targets[layer], style=style, area=area))
    whole = Objective(encoder64, losses)(image)
    tiled = Objective(encoder64, losses, tile=32)(image)
    assert tiled.loss == pytest.approx(whole.loss, rel=1e-9)
    difference = (tiled.gradient - whole.gradient).norm() / whole.gradient.norm()
    assert difference.item() < 1e-8
    statistics = {loss.name: loss.statistic for loss in losses}
    once = measure(encoder64, image, statistics=statistics)
    by_tiles = measure(encoder64, image, statistics=statistics, memory=1)
    for name, value in once.items():
        assert torch.allclose(
            by_tiles[name], value, rtol=1e-9, atol=1e-9 * value.abs().max().item()
        )


@each_style
def test_an_area_is_as_good_as_a_picture_of_its_own(style: MeanStyle, features: Tensor) -> None:
    left = torch.zeros(1, 1, *features.shape[-2:], dtype=torch.float64)
    left[..., : features.shape[-1] // 2] = 1
    masked = style.mean(features, None, left / left.mean())
    alone = style.mean(features[..., : features.shape[-1] // 2])
    assert torch.allclose(masked, alone, rtol=1e-9, atol=1e-9)


@each_style
def test_a_silent_layer_is_no_trouble(style: MeanStyle) -> None:
    zeros = torch.zeros(1, 64, 3, 3)
    for x in (zeros, torch.ones(1, 64, 3, 3)):
        loss = StyleLoss(LAYER, style.mean(zeros), style=style)
        pixels = x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(pixels), pixels)
        assert gradient.isfinite().all()


def test_published_scalings_are_for_gram_matrices() -> None:
    with pytest.raises(ImpastoError, match="'gatys' is for Gram matrices only"):
        StyleLoss(LAYER, torch.zeros(1, 2, 64), scaling="gatys", style=BatchNorm())
