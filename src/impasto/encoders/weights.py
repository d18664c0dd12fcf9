"""Files with weights: reading them, and telling whose they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from impasto import catalog
from impasto.encoders.convnet import Blueprint
from impasto.errors import ImpastoError
from impasto.pictures.files import is_file

State = Mapping[str, Tensor]
"""The tensors of a file by name."""

_PRECISIONS = torch.float16, torch.bfloat16, torch.float32, torch.float64


class WrongWeights(ValueError):
    """The tensors are not those of this network; the text says why."""


def read_for(blueprint: Blueprint, path: Path | None, renamed: Callable[[State], State]) -> State:
    """`convolution.weight` [out, in / groups, kernel, kernel] and `.bias` [out], by operation.

    renamed: turns the names of a file into those of the operations; it may raise `WrongWeights`.

    Raises:
        ImpastoError: there is no file, it cannot be read, or its weights are of another network.
    """
    name = blueprint.name
    if path is None:
        raise ImpastoError(
            f"the package has no weights for {name}; give weights, a file with "
            f"{blueprint.published}"
        )
    state = read_tensors(path)
    own = owner(state)
    if own and own != name:
        mend = (
            f"choose the encoder {own}, or give the weights of {name}"
            if own in catalog.ENCODERS
            else f"give {blueprint.published}"
        )
        raise ImpastoError(f"{path} holds the weights of {own}, not of {name}; {mend}")
    try:
        for key, tensor in state.items():
            _check_values(key, tensor)
        found = renamed(state)
        check_shapes(found, blueprint)
    except WrongWeights as error:
        raise ImpastoError(
            f"{path} holds no {name} weights that impasto can use ({error}); "
            f"give {blueprint.published}"
        ) from None
    return found


def check_shapes(state: State, blueprint: Blueprint) -> None:
    """Raise `WrongWeights` unless every convolution has its weight and bias."""
    for convolution, shape in blueprint.convolutions.items():
        for kind, wanted in (("weight", shape), ("bias", shape[:1])):
            name = f"{convolution}.{kind}"
            if name not in state:
                raise WrongWeights(f"{name} is missing")
            if (found := tuple(state[name].shape)) != wanted:
                raise WrongWeights(f"{name} has the shape {found} instead of {wanted}")


def _check_values(name: str, tensor: Tensor) -> None:
    """Raise `WrongWeights` unless these are real numbers that torch computes with, and finite."""
    if tensor.is_meta or tensor.is_complex() or tensor.is_quantized:
        raise WrongWeights(f"{name} holds no real numbers")
    if tensor.is_floating_point() and tensor.dtype not in _PRECISIONS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise WrongWeights(f"{name} is kept in {kind}; save it in float32")
    if not tensor.isfinite().all():
        raise WrongWeights(f"{name} holds values that are not finite")
    if name.endswith("running_var") and (tensor < 0).any():
        raise WrongWeights(f"{name} is negative")


def owner(state: State) -> str:
    """The name of the network whose weights these are; "" if it is none that is known."""
    if "conv1_1.weight" in state:
        return "vgg19" if "conv3_4.weight" in state else "vgg16"
    if "block0.depthwise.weight" in state:
        return "efficientnet-lite0"
    if "layer1.0.conv1.weight" in state:
        return _resnet(state)
    if "features.0.weight" in state:
        sides = [
            t.dim() for name, t in state.items() if re.fullmatch(r"features\.\d+\.weight", name)
        ]
        normalised = "_bn" if any(name.endswith("running_mean") for name in state) else ""
        count = {8: 11, 10: 13, 13: 16, 16: 19}.get(sides.count(4))
        return f"vgg{count}{normalised}" if count else ""
    return ""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or .pth file; an `ImpastoError` if there are none."""
    if not is_file(path):
        raise ImpastoError(f"there is no weights file {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own family of errors
        raise ImpastoError(
            f"{path} cannot be read as weights ({type(error).__name__}); "
            "give a .safetensors or .pth file with a state dict"
        ) from None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for name, tensor in state.items()
    ):
        raise ImpastoError(
            f"{path} holds no state dict; save one with torch.save(model.state_dict(), FILE)"
        )
    return dict(state)


def bytes_of(state: State) -> int:
    """How many bytes the tensors take."""
    return sum(tensor.nbytes for tensor in state.values())


def single(state: State, name: str) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution, in single precision on the CPU."""
    weight, bias = (state[f"{name}.{kind}"] for kind in ("weight", "bias"))
    return weight.to("cpu", torch.float32), bias.to("cpu", torch.float32)


def _resnet(state: State) -> str:
    blocks = {re.match(r"layer3\.(\d+)\.", name) for name in state}
    count = max(int(found[1]) for found in blocks if found) + 1 if any(blocks) else 0
    shape = state["layer1.0.conv1.weight"].shape
    if shape[2:] == (3, 3):
        return {2: "resnet18", 6: "resnet34"}.get(count, "another ResNet")
    if shape[:1] != (64,):
        return "another ResNet"  # a wide one, or one with groups
    return {6: "resnet50", 23: "resnet101", 36: "resnet152"}.get(count, "another ResNet")
