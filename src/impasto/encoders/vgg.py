"""VGG-16 and VGG-19, whose layers are asked for by name.

Simonyan & Zisserman 2014, arXiv:1409.1556. Five blocks of 3x3 convolutions, each followed by a
ReLU; a 2x2 pooling ends each block. The classifier on top is left out.
"""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.device import ordinary
from impasto.encoders.base import CAFFE, IMAGE, TORCHVISION, Encoder, Layer, Padding, Preprocessing
from impasto.errors import ImpastoError
from impasto.kernels import ops
from impasto.pictures.files import is_file
from impasto.settings import Pooling

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
"""Convolutions in each of the five blocks."""

_CHANNELS = (64, 128, 256, 512, 512)
_BYTES = 4  # of a float

# Early layers (colours, fine strokes) converge most slowly and disturb the content least.
_STYLE = {"relu1_1": 0.3, "relu2_1": 0.25, "relu3_1": 0.2, "relu4_1": 0.15, "relu5_1": 0.1}
_SETS = {
    "first": dict.fromkeys(_STYLE, 1.0),
    "second": dict.fromkeys((f"relu{block}_2" for block in range(1, 6)), 1.0),
}


class Vgg(Encoder):
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
        blocks = VGG19 if "conv3_4.weight" in state else VGG16
        if not isinstance(state, _Bundled):  # checking those would read them all
            _check_shapes(state, blocks)
        super().__init__(
            _table(blocks), content_layer="relu4_2", style_layers=_STYLE, sets=_SETS, cut="pool3"
        )
        self.state = state
        self.preprocessing = preprocessing
        self.pooling, self.padding = pooling, padding
        # Shared with all encoders made `like` this one: preparing weights takes a second or two.
        self._kernels = {
            name: ops.Convolution(functools.partial(_read, state, name))
            for name, *_ in _convolutions(self.table)
        }
        self._plain: dict[object, tuple[Tensor, Tensor]] = {}

    def alias(self, name: str) -> str:
        keras = re.fullmatch(r"block(\d)_(?:conv(\d)|pool)", name)
        if not keras:
            return name
        block, index = keras.groups()
        return f"relu{block}_{index}" if index else f"pool{block}"

    def prepare(self, layers: Iterable[str]) -> None:
        for name, *_ in _convolutions(self.run(IMAGE, self.deepest(layers).name)):
            if self._is_compiled():
                self._kernels[name].prepare()
            else:
                self._weights(name)

    def held(self, layers: Iterable[str]) -> int:
        convolutions = _convolutions(self.run(IMAGE, self.deepest(layers).name))
        held = _BYTES * sum(9 * inputs * outputs for _, inputs, outputs in convolutions)
        # compiled kernels hold 36 values for every 9, twice: forward and backward
        kept = 0 if isinstance(self.state, _Bundled) else held
        return kept + held * (8 if self._is_compiled() else 1)

    def __call__(self, x: Tensor, layers: Iterable[str], start: str = IMAGE) -> dict[str, Tensor]:
        wanted = {self.layer(name) for name in layers}
        features = {IMAGE: x} if IMAGE in wanted else {}
        missing = wanted - {IMAGE}
        if not missing:
            return features
        if start == IMAGE:
            x = self.preprocessing.apply(x).contiguous(memory_format=torch.channels_last)
        rectified = False
        last = self.deepest(missing).name
        for row in self.run(start, last)[1:]:
            name = row.name
            if name.startswith("conv"):
                # Together with its ReLU, unless the values before the ReLU are wanted.
                rectified = name not in wanted
                x = self._convolve(name, x, rectified)
            elif name.startswith("relu"):
                x = x if rectified else F.relu(x)
            else:
                x = self._pool(x)
            if name == last:
                features[name] = x
            elif name in wanted:
                x, features[name] = ops.fork(x) if ops.suits(x) else (x, x)
        return features

    def _is_compiled(self) -> bool:
        is_single = self.device.type == "cpu" and self.dtype == torch.float32
        return is_single and bool(ops.status().ready)

    def _convolve(self, name: str, x: Tensor, rectify: bool) -> Tensor:
        wraps = self.padding == "circular"
        x = _wrapped(x) if wraps else x
        if ops.suits(x):
            y = self._kernels[name](x, rectify=rectify)
        else:
            y = F.conv2d(x, *self._weights(name), padding=1)
            y = F.relu(y, inplace=True) if rectify else y
        if not wraps:
            return y
        # Cut off the added border, which zero padding has spoiled.
        return y[..., 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)

    @ordinary()  # the weights are cached: the caller's torch settings must not reach them
    def _weights(self, name: str) -> tuple[Tensor, Tensor]:
        """A convolution's weight and bias for torch itself, on the encoder's device."""
        key = name, self.device, self.dtype
        if key not in self._plain:
            weight, bias = (t.to(self.device, self.dtype) for t in _read(self.state, name))
            # Channels-last weights need no reordering: a fifth faster on a CPU.
            self._plain[key] = weight.to(memory_format=torch.channels_last), bias
        return self._plain[key]

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == "max":
            return F.max_pool2d(x, 2)
        return ops.average_pool(x) if ops.suits(x) else F.avg_pool2d(x, 2)


def load(weights: Path | None = None) -> Vgg:
    """VGG-16 with the bundled weights, or VGG-16 or VGG-19 from a file; see `load_encoder`."""
    if weights is None:
        return Vgg(_Bundled())
    state = _read_tensors(weights)
    try:
        if "features.0.weight" in state:
            return Vgg(_from_torchvision(state), TORCHVISION)
        return Vgg(state)
    except _WrongWeights as error:
        raise ImpastoError(
            f"{weights} holds no VGG weights that impasto can use ({error}); "
            "give a state dict of torchvision's vgg16 or vgg19"
        ) from None


class _Bundled(dict[str, Tensor]):
    """The weights inside the package, read whenever they are asked for and not kept."""

    def __missing__(self, name: str) -> Tensor:
        from safetensors import safe_open

        bundled = importlib.resources.files("impasto") / "data" / "vgg16_features.safetensors"
        with importlib.resources.as_file(bundled) as path, safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


def _read(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution, in single precision on the CPU."""
    weight, bias = (state[f"{name}.{kind}"] for kind in ("weight", "bias"))
    return weight.to("cpu", torch.float32), bias.to("cpu", torch.float32)


def _wrapped(x: Tensor) -> Tensor:
    """Add a row or column of the opposite side to each side of x [batch, C, height, width]."""
    tall = torch.cat([x[..., -1:, :], x, x[..., :1, :]], -2)
    return torch.cat([tall[..., -1:], tall, tall[..., :1]], -1)


class _WrongWeights(ValueError):
    """The tensors are not those of a VGG."""


def _table(blocks: tuple[int, ...]) -> list[Layer]:
    rows = [Layer(IMAGE, 3, 1, 0)]
    halo = 0
    for block, (count, channels) in enumerate(zip(blocks, _CHANNELS, strict=True), 1):
        stride = 2 ** (block - 1)
        for index in range(1, count + 1):
            halo += stride
            rows += [Layer(f"{k}{block}_{index}", channels, stride, halo) for k in ("conv", "relu")]
        rows.append(Layer(f"pool{block}", channels, 2 * stride, halo))
    return rows


def _convolutions(table: Sequence[Layer]) -> Iterator[tuple[str, int, int]]:
    """The name, input and output channels of every convolution."""
    for before, row in itertools.pairwise(table):
        if row.name.startswith("conv"):
            yield row.name, before.channels, row.channels


def _check_shapes(state: Mapping[str, Tensor], blocks: tuple[int, ...]) -> None:
    for convolution, inputs, outputs in _convolutions(_table(blocks)):
        for kind, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,))):
            name = f"{convolution}.{kind}"
            if name not in state:
                raise _WrongWeights(f"{name} is missing")
            if (found := tuple(state[name].shape)) != shape:
                raise _WrongWeights(f"{name} has the shape {found} instead of {shape}")


def _read_tensors(path: Path) -> dict[str, Tensor]:
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
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ImpastoError(
            f"{path} holds no state dict; save one with torch.save(model.state_dict(), FILE)"
        )
    return dict(state)


def _from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give torchvision's numbered layers (`features.0`, `features.2`, ...) their names."""
    if any(name.endswith("running_mean") for name in state):
        raise _WrongWeights("it has batch normalisation")
    numbers = {int(key.split(".")[1]) for key in state if re.match(r"features\.\d+\.", key)}
    blocks = {sum(VGG16): VGG16, sum(VGG19): VGG19}.get(len(numbers))
    if blocks is None:
        raise _WrongWeights(f"it has {len(numbers)} convolutions instead of 13 or 16")
    convolutions = zip(sorted(numbers), _convolutions(_table(blocks)), strict=True)
    return {
        f"{name}.{kind}": state[f"features.{number}.{kind}"]
        for number, (name, *_) in convolutions
        for kind in ("weight", "bias")
        if f"features.{number}.{kind}" in state
    }
