"""ResNet-18, 34 and 50, with weights from a file of torchvision's.

He, Zhang, Ren & Sun 2015 (arXiv:1512.03385). A stem (7x7 convolution and pooling) and four groups
of blocks. A block's *arm* is two 3x3 convolutions, or in ResNet-50 a 3x3 convolution between two of
1x1. It is added to the block's input, or to a 1x1 convolution of it (the *shortcut*) where the
shape changes. The sum goes through a ReLU; the result is the *merge*. Where a group halves the
picture, the first 3x3 convolution of its first block does it, as in torchvision. Batch
normalisation is part of the convolution before it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from impasto.encoders.base import IMAGE, TORCHVISION
from impasto.encoders.convnet import Blueprint, ConvNet, Operation
from impasto.encoders.weights import State, WrongWeights, bytes_of, read_for, single

_EPSILON = 1e-5  # of torchvision's batch normalisation


def _operations(blocks: tuple[int, ...], widening: int) -> Iterator[Operation]:
    """widening: how many times wider a block's output is than its inside, 4 in ResNet-50."""
    yield Operation("conv1", "convolution", (IMAGE,), 64, 7, 2)
    yield Operation("relu1", "relu", ("conv1",), 64)
    yield Operation("pool", "pool", ("relu1",), 64, 3, 2)
    before, channels = "pool", 64
    for group, count in enumerate(blocks, 1):
        inside = 32 << group
        for number in range(count):
            name, out = f"layer{group}.{number}", widening * inside
            stride = 2 if group > 1 and number == 0 else 1
            kernels = [(1, 1), (3, stride), (1, 1)] if widening > 1 else [(3, stride), (3, 1)]
            x = before
            for at, (kernel, step) in enumerate(kernels, 1):
                last = at == len(kernels)
                made = f"{name}.arm" if last else f"{name}.conv{at}"
                width = out if last else inside
                yield Operation(made, "convolution", (x,), width, kernel, step)
                if not last:
                    x = f"{name}.relu{at}"
                    yield Operation(x, "relu", (made,), width)
            short = before
            if stride > 1 or channels != out:
                short = f"{name}.shortcut"
                yield Operation(short, "convolution", (before,), out, 1, stride)
            yield Operation(f"{name}.sum", "sum", (short, f"{name}.arm"), out)
            yield Operation(f"{name}.merge", "relu", (f"{name}.sum",), out)
            before, channels = f"{name}.merge", out


def _renamed(state: State) -> State:
    """Torchvision's convolutions with their batch normalisation folded in, by step.

    y = gamma (x - mean) / sqrt(variance + epsilon) + beta, so each kernel is multiplied by
    gamma / sqrt(variance + epsilon).
    """
    renamed: dict[str, Tensor] = {}
    last = "conv3" if "layer1.0.conv3.weight" in state else "conv2"
    for key, weight in state.items():
        found = re.fullmatch(r"(.*?)(conv\d|downsample\.0)\.weight", key)
        if not found:
            continue
        block, kind = found.groups()
        if weight.dim() != 4:
            raise WrongWeights(f"{key} has the shape {tuple(weight.shape)}")
        norm = block + ("downsample.1" if kind == "downsample.0" else f"bn{kind[-1]}")
        parts = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        for part in parts:
            if part not in state:
                raise WrongWeights(f"{part} is missing")
            if state[part].shape != weight.shape[:1]:
                raise WrongWeights(f"{part} has the shape {tuple(state[part].shape)}")
        gamma, beta, mean, variance = (state[part].double() for part in parts)
        factor = gamma / (variance + _EPSILON).sqrt()
        name = {"downsample.0": "shortcut", last: "arm"}.get(kind, kind) if block else kind
        renamed[f"{block}{name}.weight"] = (weight * factor.view(-1, 1, 1, 1)).float()
        renamed[f"{block}{name}.bias"] = (beta - mean * factor).float()
    return renamed


def _open(blueprint: Blueprint, path: Path | None) -> ConvNet:
    state = read_for(blueprint, path, _renamed)
    # In double precision, batch normalisation is folded without loss; torch needs it contiguous.
    state = {name: tensor.to("cpu", torch.float32) for name, tensor in state.items()}
    return ConvNet(blueprint, functools.partial(single, state), TORCHVISION, bytes_of(state))


def _resnet(name: str, blocks: tuple[int, ...], widening: int = 1) -> Blueprint:
    groups = {f"layer{group}.0.merge": 1.0 for group in range(1, 4)}
    return Blueprint(
        name,
        tuple(_operations(blocks, widening)),
        content_layer="layer2.1.merge",
        style_layers={"relu1": 1.0, **groups},
        sets={},
        cut="layer2.0.merge",
        poolings=("max", "avg"),
        rounds_up=True,
        published=f"the state dict of torchvision's {name}",
        shifts=2,
        open=_open,
    )


RESNET18 = _resnet("resnet18", (2, 2, 2, 2))
RESNET34 = _resnet("resnet34", (3, 4, 6, 3))
RESNET50 = _resnet("resnet50", (3, 4, 6, 3), 4)
