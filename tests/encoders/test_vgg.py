"""The encoder against an independent implementation, on the real weights."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.signal import correlate
from torch import Tensor

from impasto import Encoder, ImpastoError, Vgg, load_encoder, up_to
from impasto.encoders.base import CAFFE, IMAGE, TORCHVISION, Preprocessing
from impasto.encoders.convnet import Blueprint, Operation
from impasto.encoders.vgg import VGG16, VGG19
from impasto.kernels import ops

Array = NDArray[np.float64]


def layer_names(blueprint: Blueprint) -> list[str]:
    return [row.name for row in blueprint.table if row.name != IMAGE]


def weights() -> dict[str, Tensor]:
    data = importlib.resources.files("impasto") / "data" / "vgg16_features.safetensors"
    return load_file(str(data))


def reference(image: Tensor, last: str, pooling: str = "avg") -> Array:
    """VGG-16 in NumPy and SciPy, float64, one image: activations [C, H, W] of one layer."""
    state = weights()
    rgb = image[0].double().numpy() * 255
    x = rgb[::-1] - np.array([103.939, 116.779, 123.68])[:, None, None]
    for name in layer_names(VGG16):
        if name.startswith("conv"):
            kernels = state[f"{name}.weight"].double().numpy()
            bias = state[f"{name}.bias"].double().numpy()
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
            x = np.stack([correlate(padded, k, mode="valid")[0] for k in kernels])
            x += bias[:, None, None]
        elif name.startswith("relu"):
            x = np.maximum(x, 0)
        else:
            height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
            squares = x[:, :height, :width].reshape(x.shape[0], height // 2, 2, width // 2, 2)
            x = squares.mean((2, 4)) if pooling == "avg" else squares.max((2, 4))
        if name == last:
            break
    return np.asarray(x, dtype=np.float64)


@pytest.mark.parametrize("layer", ["conv1_1", "relu1_2", "pool1", "relu3_1", "relu5_1"])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_layers_match_an_independent_convolution(layer: str, pooling: str) -> None:
    image = torch.rand(1, 3, 19, 23, generator=torch.Generator().manual_seed(1))
    encoder = load_encoder(pooling=pooling)  # type: ignore[arg-type]
    features = encoder(image, [layer])[layer][0].double().numpy()
    expected = reference(image, layer, pooling)
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()


def test_weights_are_the_published_ones() -> None:
    state = weights()
    bias = state["conv5_3.bias"].double()
    assert bias.mean().item() == pytest.approx(0.14986369, rel=1e-6)
    assert bias.std(correction=0).item() == pytest.approx(0.4928213, rel=1e-6)
    assert bias.min().item() == pytest.approx(-0.50036746, rel=1e-7)
    assert bias.max().item() == pytest.approx(9.431553, rel=1e-7)
    first = state["conv1_1.weight"][0, 0, 0].double().tolist()
    assert first == pytest.approx([0.42947057, 0.373467, -0.06136011], rel=5e-4)


def test_it_is_loaded_once_and_shared(encoder: Encoder, noise: Tensor) -> None:
    """Whatever is asked for: pooling, padding and precision are of the same weights."""
    again = load_encoder(pooling="max", padding="circular")
    assert isinstance(again, Vgg)
    assert isinstance(encoder, Vgg)
    assert again._kernels["conv1_1"] is encoder._kernels["conv1_1"]
    assert (encoder.pooling, encoder.padding) == ("avg", "zeros")
    assert encoder.double()(noise.double(), ["relu1_1"])["relu1_1"].dtype == torch.float64
    assert encoder(noise, ["relu1_1"])["relu1_1"].dtype == torch.float32


def test_the_table_says_what_a_layer_sees(encoder64: Encoder) -> None:
    """A position depends on the pixels of its square and of the halo around it, and no others."""
    for row in encoder64.table[1:18:4]:
        image = torch.rand(1, 3, 96, 96, dtype=torch.float64).requires_grad_(True)
        at = 48 // row.stride
        position = encoder64(image, [row.name])[row.name][..., at, at].square().sum()
        (gradient,) = torch.autograd.grad(position, image)
        seen = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        first = at * row.stride
        assert seen[0] >= first - row.halo
        assert seen[-1] < first + row.stride + row.halo
        assert len(seen) > row.stride + 1.4 * row.halo


def test_padding_is_zero_after_the_mean_is_subtracted(encoder: Encoder) -> None:
    """To the first layer, a picture of the mean colour has no border; a black one has."""
    mean = CAFFE.invert(torch.zeros(1, 3, 12, 12))
    flat = encoder(mean, ["conv1_1"])["conv1_1"]
    assert torch.allclose(flat, flat[..., 6:7, 6:7].expand_as(flat), atol=1e-3)
    black = encoder(torch.zeros(1, 3, 12, 12), ["conv1_1"])["conv1_1"]
    assert not torch.allclose(black[..., 0, :], black[..., 6, :], atol=1.0)
    assert torch.allclose(black[..., 1, 1:-1], black[..., 6, 1:-1], atol=1e-3)


def test_an_odd_last_row_and_column_are_dropped_by_pooling(encoder: Encoder, noise: Tensor) -> None:
    even, odd = noise[..., :8, :10], noise[..., :9, :11]
    assert encoder(odd, ["pool1"])["pool1"].shape == encoder(even, ["pool1"])["pool1"].shape


def test_subtracting_the_mean_is_undone_exactly_for_every_colour_of_8_bits() -> None:
    greys = (torch.arange(256).float() / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(CAFFE.invert(CAFFE.apply(greys)), greys)
    blue_first = CAFFE.apply(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)).flatten()
    assert blue_first.tolist() == pytest.approx([-103.939, 127.5 - 116.779, 255 - 123.68])


@pytest.mark.parametrize("preprocessing", [CAFFE, TORCHVISION])
def test_preprocessing_and_its_inverse(preprocessing: Preprocessing) -> None:
    image = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    there_and_back = preprocessing.invert(preprocessing.apply(image))
    assert torch.allclose(there_and_back, image, rtol=0, atol=1e-14)


def test_gradients_match_finite_differences(encoder64: Encoder) -> None:
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, 18, 17, dtype=torch.float64, generator=generator)
    direction = torch.randn(image.shape, dtype=torch.float64, generator=generator)

    def value(x: Tensor) -> Tensor:
        return (encoder64(x, ["relu4_1"])["relu4_1"] / 100).square().sum()

    variables = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(variables), variables)
    step = 1e-6
    difference = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6)


def test_names_for_several_layers(encoder: Encoder) -> None:
    shares = encoder.shares({"up-to:relu3_1": 0.5, "relu1_1": 1, "block4_conv2": 2})
    assert shares == {"relu1_1": 1.5, "relu2_1": 0.5, "relu3_1": 0.5, "relu4_2": 2}
    assert list(encoder.shares("up-to:relu2_1")) == up_to("relu2_1") == ["relu1_1", "relu2_1"]
    assert list(encoder.shares("up-to:block2_conv1")) == ["relu1_1", "relu2_1"]
    assert encoder.shares("second")["relu5_2"] == 1
    assert encoder.shares(None) == dict(encoder.style_layers)
    with pytest.raises(ImpastoError, match="up-to needs a layer behind a colon"):
        encoder.shares("up-to")


def test_values_before_the_relu_stay_intact(encoder: Encoder, noise: Tensor) -> None:
    features = encoder(noise, ["conv2_1", "relu2_1"])
    assert features["conv2_1"].min() < 0
    assert torch.equal(features["conv2_1"].clamp_min(0), features["relu2_1"])


def test_nothing_after_the_last_layer_is_computed(
    encoder: Encoder, noise: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    convolve = Vgg._convolve

    def told(self: Vgg, step: Operation, *others: Any) -> Tensor:
        called.append(step.name)
        return convolve(self, step, *others)

    monkeypatch.setattr(Vgg, "_convolve", told)
    for suits in (ops.suits, lambda _: False):
        monkeypatch.setattr(ops, "suits", suits)
        called.clear()
        encoder(noise, ["relu2_1", "relu1_1"])
        assert called == ["conv1_1", "conv1_2", "conv2_1"]


def test_names_and_aliases(encoder: Encoder) -> None:
    assert encoder.layer("block4_conv2") == "relu4_2"
    assert encoder.layer("block3_pool") == "pool3"
    assert encoder.min_size(["relu1_2"]) == 1
    assert encoder.min_size(["relu5_1", "relu1_1"]) == 16
    assert encoder.min_size(["pool5"]) == 32
    with pytest.raises(ImpastoError, match="'relu4_9'; did you mean 'relu4_"):
        encoder.layer("relu4_9")
    with pytest.raises(ImpastoError, match="block5_conv4 belongs to vgg19"):
        encoder.layer("block5_conv4")


def test_a_grey_image_is_seen_as_its_colours(encoder: Encoder, noise: Tensor) -> None:
    grey = noise[:, :1]
    features = encoder(grey, ["relu1_1"])["relu1_1"]
    assert torch.equal(features, encoder(grey.expand(1, 3, -1, -1), ["relu1_1"])["relu1_1"])


def torchvision_state(blueprint: Blueprint) -> dict[str, Tensor]:
    """A state dict laid out as torchvision's vgg16 and vgg19 are, classifier included."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}
    channels = 3
    for number, name in enumerate(layer_names(blueprint)):
        if name.startswith("conv"):
            out = (64, 128, 256, 512, 512)[int(name[4]) - 1]
            shape = (out, channels, 3, 3)
            scale = (2 / (9 * channels)) ** 0.5
            state[f"features.{number}.weight"] = scale * torch.randn(shape, generator=generator)
            state[f"features.{number}.bias"] = torch.zeros(out)
            channels = out
    state["classifier.0.weight"] = torch.zeros(2, 2)
    return state


@pytest.mark.parametrize(("blueprint", "suffix"), [(VGG16, ".pth"), (VGG19, ".safetensors")])
def test_torchvision_weights(
    tmp_path: Path, noise: Tensor, blueprint: Blueprint, suffix: str
) -> None:
    state = torchvision_state(blueprint)
    path = tmp_path / f"vgg{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    encoder = load_encoder(path)
    assert encoder.name == blueprint.name
    assert ("relu3_4" in encoder.layers) == (blueprint is VGG19)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    x = (noise - mean) / std
    last = "relu5_4" if blueprint is VGG19 else "relu5_3"
    for number, name in enumerate(layer_names(blueprint)):
        if name.startswith("conv"):
            weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            x = torch.conv2d(x, weight, bias, padding=1)
        elif name.startswith("relu"):
            x = x.relu()
        else:
            x = torch.nn.functional.avg_pool2d(x, 2)
        if name == last:
            break
    assert torch.allclose(encoder(noise, [last])[last], x, rtol=1e-4, atol=1e-5)


def test_weights_with_the_bundled_names(tmp_path: Path, encoder: Encoder, noise: Tensor) -> None:
    save_file(weights(), tmp_path / "mine.safetensors")
    mine = load_encoder(tmp_path / "mine.safetensors")
    assert torch.equal(mine(noise, ["relu2_2"])["relu2_2"], encoder(noise, ["relu2_2"])["relu2_2"])


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    def rejects(path: Path, match: str) -> None:
        with pytest.raises(ImpastoError, match=match):
            load_encoder(path, name="vgg16")

    rejects(tmp_path / "none.pth", "no weights file")
    (tmp_path / "text.pth").write_text("hello")
    rejects(tmp_path / "text.pth", "cannot be read as weights")
    (tmp_path / "text.safetensors").write_text("hello")
    rejects(tmp_path / "text.safetensors", "cannot be read as weights")
    torch.save([1, 2], tmp_path / "list.pth")
    rejects(tmp_path / "list.pth", "no state dict")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    rejects(tmp_path / "other.safetensors", "conv1_1.weight is missing")
    state = torchvision_state(VGG16)
    state["features.2.weight"] = torch.zeros(64, 64, 5, 5)
    torch.save(state, tmp_path / "shape.pth")
    rejects(tmp_path / "shape.pth", r"conv1_2.weight has the shape \(64, 64, 5, 5\)")
    torch.save(state | {"features.1.running_mean": torch.zeros(64)}, tmp_path / "bn.pth")
    rejects(tmp_path / "bn.pth", "holds the weights of vgg16_bn, not of vgg16; give the state dict")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "short.pth")
    rejects(tmp_path / "short.pth", "it has 1 convolutions")
