"""EfficientNet-Lite0 against an independent forward pass in NumPy, on the real weights."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from impasto import Encoder, ImpastoError, load_encoder
from impasto.encoders.efficientnet import BLOCKS, PREPROCESSING
from tests.conftest import sample_tensor

Array = NDArray[np.float64]
DATA = importlib.resources.files("impasto") / "data" / "efficientnet_lite0_features.safetensors"
ADDED = (2, 4, 6, 7, 9, 10, 12, 13, 14)


@pytest.fixture(scope="module")
def lite() -> Encoder:
    return load_encoder(name="efficientnet-lite0")


def reference(image: Tensor) -> dict[str, Array]:
    """All layers of the network in NumPy and float64, [C, H, W] each, from its published form."""
    state = {name: tensor.double().numpy() for name, tensor in load_file(str(DATA)).items()}
    with safe_open(str(DATA), "np") as file:
        blocks = json.loads(file.metadata()["blocks"])
    found: dict[str, Array] = {}

    def convolve(x: Array, name: str, stride: int = 1) -> Array:
        """One tap of the kernel after the other, with TensorFlow's "same" padding."""
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        kernel = weight.shape[-1]
        pads, sides = [], []
        for side in x.shape[1:]:
            out = -(-side // stride)
            total = max((out - 1) * stride + kernel - side, 0)
            pads.append((total // 2, total - total // 2))
            sides.append(out)
        padded = np.pad(x, ((0, 0), *pads))
        y: Array = np.zeros((len(weight), *sides)) + bias[:, None, None]
        for row in range(kernel):
            for column in range(kernel):
                rows = slice(row, row + stride * (sides[0] - 1) + 1, stride)
                columns = slice(column, column + stride * (sides[1] - 1) + 1, stride)
                part, tap = padded[:, rows, columns], weight[:, :, row, column]
                depthwise = tap.shape[1] == 1 and len(x) > 1
                y += tap[:, :, None] * part if depthwise else np.einsum("oi,ihw->ohw", tap, part)
        return y

    def rectify(x: Array, name: str, stride: int = 1) -> Array:
        found[f"{name}.conv"] = convolve(x, name, stride)
        found[name] = found[f"{name}.conv"].clip(0, 6)
        return found[name]

    x = rectify((image[0].double().numpy() * 255 - 127) / 128, "stem", 2)
    for number, (_, stride, expansion, inside, outside) in enumerate(blocks):
        name, arm = f"block{number}", x
        if expansion > 1:
            arm = rectify(arm, f"{name}.expand")
        arm = rectify(arm, f"{name}.depthwise", stride)
        found[f"{name}.project"] = arm = convolve(arm, f"{name}.project")
        x = x + arm if stride == 1 and inside == outside else arm
        found[f"{name}.merge"] = x
    rectify(x, "head")
    return found


@pytest.mark.parametrize("size", [(37, 50), (64, 41)])
def test_every_layer_matches_an_independent_forward_pass(
    lite: Encoder, size: tuple[int, int]
) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = reference(image)
    features = lite(image, lite.layers)
    assert set(features) == {"image", *expected}
    for name, values in expected.items():
        found = features[name][0].double().numpy()
        row = lite.rows[name]
        assert found.shape == values.shape == (row.channels, *map(row.positions, size)), name
        assert np.abs(found - values).max() <= 1e-4 * np.abs(values).max(), name


def test_each_layer_alone_is_the_same(lite: Encoder) -> None:
    """Whatever else is asked for: nothing is changed in place that somebody still reads."""
    image = torch.rand(2, 3, 33, 20, generator=torch.Generator().manual_seed(1))
    together = lite(image, lite.layers)
    for name in ("stem.conv", "block3.expand", "block4.project", "block4.merge", "head"):
        assert torch.equal(lite(image, [name])[name], together[name]), name


def test_the_relations_of_the_published_network(lite: Encoder) -> None:
    image = sample_tensor("owl", 96)
    found = lite(image, lite.layers)
    for number in range(16):
        before = found[f"block{number - 1}.merge" if number else "stem"]
        arm, merge = found[f"block{number}.project"], found[f"block{number}.merge"]
        assert torch.equal(merge, before + arm if number in ADDED else arm), number
        if number:
            assert arm.min() < 0, "a projection is linear"
    for name in ("stem", "block3.expand", "block3.depthwise", "head"):
        assert torch.equal(found[f"{name}.conv"].clamp(0, 6), found[name]), name


def test_the_weights_are_those_handed_over() -> None:
    digest = hashlib.sha256(DATA.read_bytes()).hexdigest()
    assert digest == "a83b7bc8430c867ea623d67f3ffab7bc693c7fbd64348f011fccb5b360a06a66"
    with safe_open(str(DATA), "np") as file:
        assert [tuple(block) for block in json.loads(file.metadata()["blocks"])] == list(BLOCKS)


def test_preprocessing() -> None:
    colours = PREPROCESSING.apply(torch.tensor([0.0, 127 / 255, 1.0]).view(1, 3, 1, 1)).flatten()
    assert colours.tolist() == pytest.approx([-127 / 128, 0.0, 1.0], abs=1e-7)


def test_names_of_other_encoders_layers(lite: Encoder) -> None:
    with pytest.raises(ImpastoError, match=r"relu4_1 belongs to vgg16, and the encoder is effic"):
        lite.layer("relu4_1")
    with pytest.raises(ImpastoError, match=r"layer2.0.arm belongs to resnet18, and the encoder"):
        lite.layer("layer2.0.arm")
    with pytest.raises(ImpastoError, match=r"'first' .* is a set of layers of vgg16, and the enc"):
        lite.shares("first")
    with pytest.raises(ImpastoError, match=r"no layer 'block3.exp'; did you mean 'block3.expand"):
        lite.layer("block3.exp")
    with pytest.raises(ImpastoError, match=r"block4\.merge belongs to efficientnet-lite0"):
        load_encoder().layer("block4.merge")


@pytest.mark.parametrize("smoothing", [0.0, -1.0, float("nan")])
def test_smoothing_is_above_zero(lite: Encoder, smoothing: float) -> None:
    with pytest.raises(ImpastoError, match=r"smoothing is .*; give a number above 0"):
        lite.like(smoothing=smoothing)


def test_it_has_no_pooling_to_choose(lite: Encoder) -> None:
    assert lite.pooling is None
    with pytest.raises(ImpastoError, match=r"efficientnet-lite0 has no pooling to choose; leave"):
        load_encoder(pooling="max", name="efficientnet-lite0")


def test_weights_of_its_own_and_of_others(tmp_path: Path, lite: Encoder) -> None:
    state = load_file(str(DATA))
    save_file(state, tmp_path / "mine.safetensors")
    image = torch.rand(1, 3, 20, 20)
    mine = load_encoder(tmp_path / "mine.safetensors")
    assert mine.name == "efficientnet-lite0"
    assert torch.equal(mine(image, ["head"])["head"], lite(image, ["head"])["head"])
    with pytest.raises(
        ImpastoError, match=r"holds the weights of efficientnet-lite0, not of vgg16"
    ):
        load_encoder(tmp_path / "mine.safetensors", name="vgg16")
    del state["block9.project.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ImpastoError, match=r"\(block9\.project\.bias is missing\); give the tens"):
        load_encoder(tmp_path / "less.safetensors")


def test_gradients_match_finite_differences(lite: Encoder) -> None:
    exact = lite.double()
    random = torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, 31, 26, dtype=torch.float64, generator=random)
    direction = torch.randn(image.shape, dtype=torch.float64, generator=random)

    def value(x: Tensor) -> Tensor:
        found = exact(x, ["block5.merge", "block2.merge", "block5.expand"])
        return torch.stack([each.square().sum() for each in found.values()]).sum()

    variables = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(variables), variables)
    step = 1e-6
    difference = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-5)


def test_a_picture_that_repeats(lite: Encoder) -> None:
    """With circular padding, two pictures side by side look like one, to every layer."""
    image = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(4))
    wraps = lite.like(padding="circular")
    once, twice = wraps(image, ["head"])["head"], wraps(image.repeat(1, 1, 2, 1), ["head"])["head"]
    assert torch.allclose(once.repeat(1, 1, 2, 1), twice, atol=1e-4)
    zeros = lite(image, ["head"])["head"]
    assert not torch.allclose(once, zeros, atol=1e-2)


def test_photos_and_paintings_differ_where_they_should(lite: Encoder) -> None:
    """The weights are trained ones: a deep layer tells the owl from the others, by cosine."""
    heads = {}
    for name in ("owl", "kingfisher", "great_wave"):
        for side in (128, 160):
            image = sample_tensor(name, side)
            heads[name, side] = lite(image, ["head"])["head"].mean((0, 2, 3))

    def cosine(one: tuple[str, int], other: tuple[str, int]) -> float:
        return torch.cosine_similarity(heads[one], heads[other], dim=0).item()

    assert cosine(("owl", 128), ("owl", 160)) > cosine(("owl", 128), ("great_wave", 160))
