"""The network in torch: its equations, its gradients, and what a style may change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from impasto import Architecture, ImpastoError, TrainSettings, sample
from impasto.networks.architecture import EPSILON, Layer
from impasto.networks.judge import Judge
from impasto.networks.transform import Bounded, Convolution, Transformer
from impasto.pictures import images
from tests.conftest import sample_tensor
from tests.networks.conftest import TINY, random_network


def test_conditional_instance_normalisation_as_published() -> None:
    """Dumoulin et al. 2017, eq. 5: z = gamma_s (x - mu) / sigma + beta_s."""
    layer = Layer("x", "y", 3, 5, kernel=3, adds="y")
    own = Convolution(layer, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        own.scale.normal_()
        own.shift.normal_()
    x = torch.rand(2, 3, 9, 7)
    shares = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), own.weight)
    mean, variance = y.mean((2, 3), keepdim=True), y.var((2, 3), correction=0, keepdim=True)
    scale, shift = (shares @ own.scale, shares @ own.shift)
    expected = scale[..., None, None] * (y - mean) / (variance + EPSILON).sqrt()
    expected = expected + shift[..., None, None]
    assert torch.allclose(own.forward(x, shares), expected, atol=1e-5)


def test_a_larger_picture_is_enlarged_before_it_is_convolved() -> None:
    """Resize-convolution: no transposed convolution, but an enlarged picture before each."""
    for layer in Architecture().layers:
        assert layer.enlarged == (2 if layer.name.startswith("up") else 1)
    own = Convolution(Layer("up", "x", 2, 4, enlarged=2, is_last=True), 1, torch.Generator())
    x = torch.rand(1, 2, 3, 5)
    wide = F.interpolate(x, size=(6, 10), mode="bilinear", align_corners=False)
    expected = F.conv2d(F.pad(wide, (1, 1, 1, 1), mode="reflect"), own.weight, own.bias)
    assert torch.allclose(own.forward(x, torch.ones(1, 1)), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_comes_back(height: int, width: int) -> None:
    network = Transformer(TINY, 2)
    pictures = network(torch.rand(2, 3, height, width), torch.eye(2))
    assert pictures.shape == (2, 3, height, width)
    assert 0 <= pictures.min() <= pictures.max() <= 1


def test_a_clipped_pixel_comes_back_but_goes_no_further() -> None:
    x = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0], requires_grad=True)
    picture = Bounded.apply(x)  # type: ignore[no-untyped-call]
    assert picture.tolist() == [0, 0, 0.5, 1, 1]
    picture.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0, -1, 1, 1, 0]


def test_the_gradient_of_a_step_is_that_of_finite_differences() -> None:
    """From the weights through the network, the encoder and all losses, in double precision."""
    chosen = TrainSettings(size=32, style_layers="first")
    paintings = [images.read(sample(name)) for name in ("great_wave", "night_cafe")]
    judge = Judge(paintings, chosen)
    judge.encoder = judge.encoder.double()
    judge.goals = [[replace(x, target=x.target.double()) for x in goal] for goal in judge.goals]
    judge.style_weight = 5.0
    parts = [sample_tensor(name, 64)[..., :32, :32] for name in ("owl", "kingfisher")]
    photos = torch.cat(parts).double()
    network = Transformer(TINY, 2, seed=3).double()
    with torch.no_grad():
        network.weights()["picture.weight"].mul_(0.1)  # no pixel is clipped
    shares = torch.eye(2, dtype=torch.float64)

    def loss() -> tuple[float, torch.Tensor]:
        pictures = network(photos, shares)
        found = judge(pictures.detach(), photos, [0, 1])
        pictures.backward(found.gradient)
        return found.losses.total, pictures

    loss()
    gradients = {n: w.grad.clone() for n, w in network.weights().items() if w.grad is not None}
    assert gradients.keys() == TINY.tensors(2).keys()
    random = np.random.default_rng(0)
    for name in ("down2.weight", "block4_1b.scale", "up2.shift", "up1.weight", "picture.bias"):
        weight = network.weights()[name]
        direction = torch.from_numpy(random.standard_normal(tuple(weight.shape)))
        step = 1e-7  # ReLUs have kinks
        totals = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * step * direction
            totals.append(loss()[0])
            with torch.no_grad():
                weight -= sign * step * direction
        expected = (totals[0] - totals[1]) / (2 * step)
        assert (gradients[name] * direction).sum().item() == pytest.approx(expected, rel=1e-3)


def test_a_style_is_its_own_rows() -> None:
    """Other scales and shifts of one style leave the pictures in the others as they are."""
    file = random_network(3)
    network = Transformer(file.transformer, 3)
    network.take({name: torch.from_numpy(each) for name, each in file.weights.items()})
    image = sample_tensor("owl", 64)
    before = [network(image, torch.eye(3)[[n]]).detach() for n in range(3)]
    with torch.no_grad():
        for name, weight in network.weights().items():
            if name.endswith((".scale", ".shift")):
                weight[1] += 0.5
    after = [network(image, torch.eye(3)[[n]]).detach() for n in range(3)]
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_the_last_kernels_are_blind_to_waves_of_two_pixels() -> None:
    student = Transformer(TINY, 2)
    kernels = student.weights()[f"{TINY.layers[-1].name}.weight"]
    before = kernels.detach().clone()
    student.smooth()
    for rows, columns in (((1, -1), (1, 1)), ((1, 1), (1, -1)), ((1, -1), (1, -1))):
        wave = torch.outer(torch.tensor(rows), torch.tensor(columns)).float()
        seen = wave.tile(4, 4).expand(1, kernels.shape[1], 8, 8)
        assert F.conv2d(seen, before).abs().max() > 0.01
        assert F.conv2d(seen, kernels).abs().max() < 1e-6
    assert F.conv2d(torch.ones_like(seen), kernels).abs().max() > 0.1
    kernels.requires_grad_(False).copy_(before)
    student.smooth()
    assert torch.equal(kernels, before)  # of a base, where only scales and shifts are learned


@pytest.mark.parametrize(
    "given",
    [
        {"widths": [16], "blocks": [0], "edge": 5},
        {"widths": [16, 32], "blocks": [0, 0, 1], "edge": 5},
        {"widths": [16, 0], "blocks": [0, 1], "edge": 5},
        {"widths": [16, 32], "blocks": [0, 1], "edge": 4},
        {"widths": [16, 10**9], "blocks": [0, 1], "edge": 5},
        {"widths": [16, 32], "blocks": [0, 1], "edge": 17},
        {"widths": [16, 32], "blocks": [0, 1], "edge": "5"},
        {"widths": [16, "32"], "blocks": [0, 1], "edge": 5},
        {"widths": 3, "blocks": [0, 1], "edge": 5},
        {},
        None,
    ],
)
def test_what_is_no_architecture(given: object) -> None:
    with pytest.raises(ImpastoError, match="describes no network"):
        Architecture.of(given)
