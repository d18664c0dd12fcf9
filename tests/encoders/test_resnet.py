"""ResNets against an independent forward pass with batch normalisation, on random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from impasto import Encoder, ImpastoError, load_encoder
from impasto.settings import Pooling
from tests.encoders.states import BLOCKS, resnet

State = dict[str, Tensor]


def reference(state: State, image: Tensor, blocks: tuple[int, ...], pooling: str) -> State:
    """Torchvision's forward pass in float64: convolution, batch normalisation, and so on."""
    state = {name: tensor.double() for name, tensor in state.items()}
    found: State = {}

    def block(x: Tensor, conv: str, norm: str, **how: Any) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        y = F.conv2d(x, state[f"{conv}.weight"], **how)
        return F.batch_norm(y, mean, variance, weight, bias)

    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
    x = found["conv1"] = block((image.double() - mean) / std, "conv1", "bn1", stride=2, padding=3)
    x = found["relu1"] = x.relu()
    if pooling == "max":
        x = F.max_pool2d(x, 3, 2, 1)
    else:
        x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    found["pool"] = x
    for group, count in enumerate(blocks, 1):
        for number in range(count):
            name, short = f"layer{group}.{number}", x
            stride = 2 if group > 1 and number == 0 else 1
            if f"{name}.conv3.weight" in state:
                y = found[f"{name}.conv1"] = block(x, f"{name}.conv1", f"{name}.bn1")
                y = found[f"{name}.relu1"] = y.relu()
                y = block(y, f"{name}.conv2", f"{name}.bn2", stride=stride, padding=1)
                found[f"{name}.conv2"] = y
                y = found[f"{name}.relu2"] = y.relu()
                y = block(y, f"{name}.conv3", f"{name}.bn3")
            else:
                y = block(x, f"{name}.conv1", f"{name}.bn1", stride=stride, padding=1)
                found[f"{name}.conv1"] = y
                y = found[f"{name}.relu1"] = y.relu()
                y = block(y, f"{name}.conv2", f"{name}.bn2", padding=1)
            found[f"{name}.arm"] = y
            if f"{name}.downsample.0.weight" in state:
                down = f"{name}.downsample"
                short = found[f"{name}.shortcut"] = block(
                    x, f"{down}.0", f"{down}.1", stride=stride
                )
            x = found[f"{name}.sum"] = short + y
            x = found[f"{name}.merge"] = x.relu()
    return found


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_layer_matches_an_independent_forward_pass(
    tmp_path: Path, name: str, pooling: Pooling
) -> None:
    state, path = resnet(name), tmp_path / "net.pth"
    torch.save(state, path)
    encoder = load_encoder(path, pooling=pooling, name=name)
    image = torch.rand(2, 3, 45, 70, generator=torch.Generator().manual_seed(1))
    expected = reference(state, image, BLOCKS[name], pooling)
    features = encoder(image, encoder.layers)
    assert set(features) == {"image", *expected}
    for layer, values in expected.items():
        row = encoder.rows[layer]
        size = (2, row.channels, *map(row.positions, image.shape[2:]))
        assert tuple(features[layer].shape) == tuple(values.shape) == size, layer
        error = (features[layer].double() - values).abs().max() / values.abs().max()
        assert error.item() <= 1e-4, layer


def test_what_is_in_the_file_is_told_apart(tmp_path: Path) -> None:
    for name in BLOCKS:
        save_file(resnet(name), tmp_path / f"{name}.safetensors")
    path = tmp_path / "resnet34.safetensors"
    found = load_encoder(path)
    assert (found.name, found.pooling) == ("resnet34", "max")
    assert found.compiled == (29, 36)
    match = "holds the weights of resnet34, not of resnet18; choose the encoder resnet34, or give"
    with pytest.raises(ImpastoError, match=match):
        load_encoder(path, name="resnet18")
    with pytest.raises(ImpastoError, match=r"holds the weights of resnet34, not of vgg19"):
        load_encoder(path, name="vgg19")
    with pytest.raises(ImpastoError, match=r"no weights for resnet50; give weights, a file with"):
        load_encoder(name="resnet50")


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    def rejects(state: State, match: str) -> None:
        path = tmp_path / "net.pth"
        torch.save(state, path)
        with pytest.raises(ImpastoError, match=match):
            load_encoder(path, name="resnet18")
        path.unlink()

    state = resnet("resnet18")
    rejects({}, "holds no resnet18 weights that impasto can use .*conv1.weight is missing")
    rejects(state | {"bn1.running_var": -torch.ones(64)}, "bn1.running_var is negative")
    weight = state["layer2.0.conv1.weight"]
    for wrong, told in (
        (weight * torch.nan, "holds values that are not finite"),
        (weight.to("meta"), "holds no real numbers"),
        (weight.to(torch.complex64), "holds no real numbers"),
        (weight.to(torch.float8_e5m2), "is kept in float8_e5m2; save it in float32"),
        (weight[..., None], "has the shape"),
    ):
        rejects(state | {"layer2.0.conv1.weight": wrong}, f"layer2.0.conv1.weight {told}")
    path = tmp_path / "other.pth"
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    with pytest.raises(
        ImpastoError, match=r"the weights of no network that impasto knows; give th"
    ):
        load_encoder(path)
    rejects({1: torch.zeros(1)}, "holds no state dict; save one with")  # type: ignore[dict-item]
    rejects(state | {"layer1.0.conv1.weight": torch.zeros(())}, "the weights of another ResNet")
    less = {name: tensor for name, tensor in state.items() if name != "layer2.0.bn1.bias"}
    rejects(less, "layer2.0.bn1.bias is missing")
    rejects(state | {"layer1.0.bn1.bias": torch.zeros(3)}, r"bn1.bias has the shape \(3,\)")
    rejects(state | {"conv1.weight": torch.zeros(64, 3, 5, 5)}, r"conv1.weight has the shape \(64")
    deep = {f"layer3.{n}.conv1.weight": state["layer3.0.conv1.weight"] for n in range(23)}
    wide = {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    rejects(state | deep | wide, "holds the weights of resnet101, not of resnet18; give the state")


def test_arms_have_no_merge_in_them(tmp_path: Path) -> None:
    """merge = max(shortcut + arm, 0): with nothing on the arm, the merge is what came in."""
    state = resnet("resnet18")
    for part in ("weight", "bias"):
        state[f"layer1.1.bn2.{part}"] = torch.zeros(64)
    torch.save(state, tmp_path / "net.pth")
    encoder: Encoder = load_encoder(tmp_path / "net.pth")
    found = encoder(torch.rand(1, 3, 40, 40), ["layer1.0.merge", "layer1.1.arm", "layer1.1.merge"])
    assert not found["layer1.1.arm"].any()
    assert torch.equal(found["layer1.0.merge"], found["layer1.1.merge"])
