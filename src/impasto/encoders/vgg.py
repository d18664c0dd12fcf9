"""VGG-16 and VGG-19, whose layers are asked for by name.

Simonyan & Zisserman 2014, arXiv:1409.1556. Five blocks of 3x3 convolutions, each followed by a
ReLU; a 2x2 pooling ends each block. The classifier on top is left out. VGG-16's weights come with
the package.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from impasto.device import ordinary
from impasto.encoders.base import CAFFE, IMAGE, TORCHVISION, Padding, Preprocessing
from impasto.encoders.convnet import Blueprint, ConvNet, Operation
from impasto.encoders.weights import (
    State,
    WrongWeights,
    bytes_of,
    check_shapes,
    owner,
    read_for,
    single,
)
from impasto.settings import Pooling

_CHANNELS = (64, 128, 256, 512, 512)

# Early layers (colours, fine strokes) converge most slowly and disturb the content least.
_STYLE = {"relu1_1": 0.3, "relu2_1": 0.25, "relu3_1": 0.2, "relu4_1": 0.15, "relu5_1": 0.1}
_SETS = {
    "first": dict.fromkeys(_STYLE, 1.0),
    "second": dict.fromkeys((f"relu{block}_2" for block in range(1, 6)), 1.0),
}


def _operations(blocks: tuple[int, ...]) -> Iterator[Operation]:
    """blocks: how many convolutions there are in each."""
    before = IMAGE
    for block, (count, channels) in enumerate(zip(blocks, _CHANNELS, strict=True), 1):
        for index in range(1, count + 1):
            convolution, relu = f"conv{block}_{index}", f"relu{block}_{index}"
            yield Operation(convolution, "convolution", (before,), channels, 3)
            yield Operation(relu, "relu", (convolution,), channels)
            before = relu
        yield Operation(f"pool{block}", "pool", (before,), channels, 2, 2)
        before = f"pool{block}"


class Vgg(ConvNet):
    """VGG as a function from an image to the activations of layers.

    Layers, in order: `image`, then `conv1_1`, `relu1_1`, `conv1_2`, `relu1_2`, `pool1`, ...,
    `pool5`. `conv` is before the ReLU, `relu` after it. Keras' names are accepted as aliases:
    its `block4_conv2` includes the ReLU and is `relu4_2`, its `block4_pool` is `pool4`.
    Convolutions pad with zeros after the mean is subtracted, as the network was trained;
    pooling drops an odd last row or column.

    Args:
        state: `convB_L.weight` [out, in, 3, 3] and `convB_L.bias` [out] for every convolution.
        preprocessing: the input that these weights were trained on.
        pooling, padding: see `load_encoder`.
    """

    @ordinary()
    def __init__(
        self,
        state: Mapping[str, Tensor],
        preprocessing: Preprocessing = CAFFE,
        pooling: Pooling = "avg",
        padding: Padding = "zeros",
    ) -> None:
        self.state = state
        bundled = isinstance(state, _Bundled)
        blueprint = VGG19 if not bundled and owner(state) == VGG19.name else VGG16
        if not bundled:  # checking those would read them all
            check_shapes(state, blueprint)
        read = functools.partial(single, state)
        super().__init__(blueprint, read, preprocessing, 0 if bundled else bytes_of(state))
        self.pooling, self.padding = pooling, padding

    def alias(self, name: str) -> str:
        keras = re.fullmatch(r"block(\d)_(?:conv(\d)|pool)", name)
        if not keras:
            return name
        block, index = keras.groups()
        return f"relu{block}_{index}" if index else f"pool{block}"


class _Bundled(dict[str, Tensor]):
    """The weights inside the package, read whenever they are asked for and not kept."""

    def __missing__(self, name: str) -> Tensor:
        from safetensors import safe_open

        bundled = importlib.resources.files("impasto") / "data" / "vgg16_features.safetensors"
        with importlib.resources.as_file(bundled) as path, safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


def _open(blueprint: Blueprint, path: Path | None) -> Vgg:
    if path is None and blueprint is VGG16:
        return Vgg(_Bundled())
    is_torchvision = False

    def renamed(state: State) -> State:
        nonlocal is_torchvision
        is_torchvision = "features.0.weight" in state
        return _from_torchvision(state, blueprint) if is_torchvision else state

    state = read_for(blueprint, path, renamed)
    return Vgg(state, TORCHVISION if is_torchvision else CAFFE)


def _from_torchvision(state: State, blueprint: Blueprint) -> State:
    """Give torchvision's numbered layers (`features.0`, `features.2`, ...) their names."""
    numbers = {int(key.split(".")[1]) for key in state if re.match(r"features\.\d+\.", key)}
    if len(numbers) != len(blueprint.convolutions):
        raise WrongWeights(f"it has {len(numbers)} convolutions")
    return {
        f"{name}.{kind}": state[f"features.{number}.{kind}"]
        for number, name in zip(sorted(numbers), blueprint.convolutions, strict=True)
        for kind in ("weight", "bias")
        if f"features.{number}.{kind}" in state
    }


def _vgg(name: str, blocks: tuple[int, ...]) -> Blueprint:
    return Blueprint(
        name,
        tuple(_operations(blocks)),
        content_layer="relu4_2",
        style_layers=_STYLE,
        sets=_SETS,
        cut="pool3",
        poolings=("avg", "max"),
        rounds_up=False,
        published=f"the state dict of torchvision's {name}",
        open=_open,
    )


VGG16 = _vgg("vgg16", (2, 2, 3, 3, 3))
VGG19 = _vgg("vgg19", (2, 2, 4, 4, 4))
