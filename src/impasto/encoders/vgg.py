"""The pretrained encoder: VGG-16 (or VGG-19) cut into layers that are asked for by name.

Simonyan & Zisserman 2014, arXiv:1409.1556. Five blocks of 3x3 convolutions, each followed by a
ReLU, each block closed by a 2x2 pooling; the classifier on top is left out. Only this module
knows which colours, means and ranges the network was trained on.
"""

from __future__ import annotations

import copy
import importlib.resources
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.device import ordinary
from impasto.errors import ImpastoError, nearest
from impasto.kernels import ops as compiled
from impasto.pictures.files import is_file
from impasto.settings import Pooling

IMAGE = "image"
"""The name of the layer before the first: the image tensor itself."""

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
"""Convolutions in each of the five blocks."""

Padding = Literal["zeros", "circular"]

_CHANNELS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Preprocessing:
    """The affine map from an RGB image in [0, 1] to what a network was trained on.

    Channels are put into `order`, multiplied by `scale`, then `mean` is subtracted and the result
    divided by `std`, channel by channel.
    """

    order: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, image: Tensor) -> Tensor:
        """Map an image [batch, 3, height, width] (RGB, 0..1) to the network's input.

        The exact inverse of `invert` on every colour of 8 bits. A grey image
        [batch, 1, height, width] is seen as red = green = blue.
        """
        rgb = image.expand(-1, 3, -1, -1)
        return (rgb[:, self.order] * self.scale - self._column(self.mean, rgb)) / self._column(
            self.std, rgb
        )

    def invert(self, pixels: Tensor) -> Tensor:
        """Map the network's input [batch, 3, height, width] back to an RGB image in 0..1."""
        scaled = pixels * self._column(self.std, pixels) + self._column(self.mean, pixels)
        # `order` is its own inverse: it is the identity or swaps red with blue.
        return scaled[:, self.order] / self.scale

    @staticmethod
    def _column(values: tuple[float, float, float], like: Tensor) -> Tensor:
        return like.new_tensor(values).view(1, 3, 1, 1)


CAFFE = Preprocessing((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
"""The original release: BGR, 0..255, minus the mean colour of ImageNet."""

TORCHVISION = Preprocessing((0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Torchvision's retraining: RGB, 0..1, standardised."""


class Vgg(nn.Module):
    """VGG as a function from an image to the activations of the layers that are asked for.

    Layers, in order: `image`, then `conv1_1`, `relu1_1`, `conv1_2`, `relu1_2`, `pool1`, ...,
    `pool5`. `conv` is before the ReLU, `relu` after it. Keras' names are accepted as aliases:
    its `block4_conv2` includes the ReLU and is `relu4_2`, its `block4_pool` is `pool4`.
    Convolutions pad with zeros after the mean is subtracted, as the network was trained;
    pooling drops an odd last row or column. Weights are frozen.

    Args:
        state: `convB_L.weight` [out, in, 3, 3] and `convB_L.bias` [out] for every convolution.
        preprocessing: the input that these weights were trained on.
        pooling: `"avg"` spreads the gradient over all four positions and gives smoother pictures
            (Gatys et al. 2015, section "Methods"); `"max"` is how the network was trained.
        padding: `"zeros"` as the network was trained; with `"circular"` a picture goes on at the
            opposite side, as if it were repeated without end. Its sides have to be multiples of
            `min_size` for that.
    """

    @ordinary()
    def __init__(
        self,
        state: Mapping[str, Tensor],
        preprocessing: Preprocessing = CAFFE,
        pooling: Pooling = "avg",
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        self.blocks = VGG19 if "conv3_4.weight" in state else VGG16
        self.preprocessing = preprocessing
        self.pooling = pooling
        self.padding = padding
        self.layers = (IMAGE, *_layer_names(self.blocks))
        _check_shapes(state, self.blocks)
        for name in self.layers:
            if name.startswith("conv"):
                weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
                out_channels, in_channels = weight.shape[:2]
                conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, device="meta")
                # Convolutions read channels-last without reordering: a fifth faster on a CPU.
                weight = weight.to(torch.float32, copy=True, memory_format=torch.channels_last)
                conv.weight = nn.Parameter(weight, requires_grad=False)
                conv.bias = nn.Parameter(bias.to(torch.float32, copy=True), requires_grad=False)
                self.add_module(name, conv)
        self._convolutions: dict[str, compiled.Convolution] = {}

    def layer(self, name: str) -> str:
        """The canonical name of a layer, or an `ImpastoError` that suggests the nearest one."""
        keras = re.fullmatch(r"block(\d)_(?:conv(\d)|pool)", name)
        if keras:
            block, index = keras.groups()
            canonical = f"relu{block}_{index}" if index else f"pool{block}"
        else:
            canonical = name
        if canonical in self.layers:
            return canonical
        raise ImpastoError(
            f"there is no layer {name!r}; did you mean {nearest(canonical, self.layers)!r}?"
        )

    def min_size(self, layers: Iterable[str]) -> int:
        """The smallest height and width in pixels at which all `layers` have a position.

        Of a picture whose sides are multiples of it, pooling drops nothing.
        """
        wanted = {self.layer(name) for name in layers}
        pools, smallest = 0, 1
        for name in self.layers:
            pools += name.startswith("pool")
            if name in wanted:
                smallest = 2**pools
        return smallest

    def padded(self, padding: Padding) -> Vgg:
        """The same encoder, of the same tensors, with this padding."""
        if padding == self.padding:
            return self
        other = copy.copy(self)
        other.padding = padding
        return other

    def settle(self, layers: Iterable[str]) -> None:
        """Where the compiled kernels do all of the work, prepare `layers` and keep nothing else.

        Afterwards this encoder computes single float32 pictures on a CPU up to these layers, and
        nothing besides: the weights themselves, 60 MB, are gone.
        """
        last = max(self.layers.index(self.layer(name)) for name in layers)
        for index, name in enumerate(self.layers):
            if name.startswith("conv"):
                convolution = self.get_submodule(name)
                if index <= last:
                    self._compiled(name).prepare()
                gone = torch.empty(0, dtype=torch.float32, device="cpu")
                convolution.weight = nn.Parameter(gone, requires_grad=False)

    def values(self, name: str) -> int:
        """How many weights a convolution has."""
        convolution = self.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        return 9 * convolution.in_channels * convolution.out_channels

    def __call__(self, x: Tensor, layers: Iterable[str], start: str = IMAGE) -> dict[str, Tensor]:
        """The activations of `layers` for an image [batch, 3, height, width] in 0..1.

        Returns a tensor [batch, channels, height / 2^p, width / 2^p] for every name, p being the
        number of poolings before it. Nothing after the last layer needed is computed. With
        `start`, x are the activations of that layer, and all `layers` are after it.
        """
        features: dict[str, Tensor] = super().__call__(x, layers, start)  # by way of torch's hooks
        return features

    def forward(self, x: Tensor, layers: Iterable[str], start: str = IMAGE) -> dict[str, Tensor]:
        """What a call computes."""
        wanted = {self.layer(name) for name in layers}
        missing = set(wanted)
        features = {IMAGE: x} if IMAGE in wanted else {}
        missing.discard(IMAGE)
        if not missing:
            return features
        if start == IMAGE:
            x = self.preprocessing.apply(x).contiguous(memory_format=torch.channels_last)
        rectified = False
        for name in self.layers[self.layers.index(start) + 1 :]:
            if name.startswith("conv"):
                # With its ReLU in one go, unless the value before it was asked for.
                rectified = name not in wanted
                x = self._convolve(name, x, rectified)
            elif name.startswith("relu"):
                x = x if rectified else F.relu(x)
            else:
                x = self._pool(x)
            if name in missing:
                missing.remove(name)
                if not missing:
                    features[name] = x
                    break
                x, features[name] = compiled.fork(x) if compiled.suits(x) else (x, x)
        return features

    def channels(self, name: str) -> int:
        """How many channels a layer has."""
        return 3 if name == IMAGE else _CHANNELS[int(name[4]) - 1]

    def _convolve(self, name: str, x: Tensor, rectify: bool) -> Tensor:
        if self.padding == "zeros":
            return self._convolve_padded(name, x, rectify)
        # What zero padding spoils of the wrapped picture is cut off again.
        y = self._convolve_padded(name, _wrapped(x), rectify)[..., 1:-1, 1:-1]
        return y.contiguous(memory_format=torch.channels_last)

    def _convolve_padded(self, name: str, x: Tensor, rectify: bool) -> Tensor:
        convolution = self.get_submodule(name)
        if not compiled.suits(x):
            y: Tensor = convolution(x)
            return F.relu(y, inplace=True) if rectify else y
        return self._compiled(name)(x, rectify=rectify)

    def _compiled(self, name: str) -> compiled.Convolution:
        if name not in self._convolutions:
            parameters = dict(self.get_submodule(name).named_parameters())
            self._convolutions[name] = compiled.Convolution(
                parameters["weight"], parameters["bias"]
            )
        return self._convolutions[name]

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == "max":
            return F.max_pool2d(x, 2)
        return compiled.average_pool(x) if compiled.suits(x) else F.avg_pool2d(x, 2)


@ordinary()
def load_encoder(
    weights: str | Path | None = None, pooling: Pooling = "avg", padding: Padding = "zeros"
) -> Vgg:
    """Load VGG with the bundled weights, or from a file of yours.

    Args:
        weights: none for the bundled original VGG-16 (Caffe release, CC BY 4.0); or a
            `.safetensors` or `.pth` file: a state dict of torchvision's `vgg16` or `vgg19`
            (with torchvision's own preprocessing), or one with the bundled file's names.
        pooling: `"avg"` or `"max"`, see `Vgg`.
        padding: `"zeros"` or `"circular"`, see `Vgg`.

    Raises:
        ImpastoError: the file is missing, is no state dict, or its tensors are of another shape.
    """
    if weights is None:
        bundled = importlib.resources.files("impasto") / "data" / "vgg16_features.safetensors"
        with importlib.resources.as_file(bundled) as path:
            return Vgg(_read_tensors(path), CAFFE, pooling, padding)
    state = _read_tensors(Path(weights))
    try:
        if "features.0.weight" in state:
            return Vgg(_from_torchvision(state), TORCHVISION, pooling, padding)
        return Vgg(state, CAFFE, pooling, padding)
    except _WrongWeights as error:
        raise ImpastoError(
            f"{weights} holds no VGG weights that impasto can use ({error}); "
            "give a state dict of torchvision's vgg16 or vgg19"
        ) from None


def _wrapped(x: Tensor) -> Tensor:
    """x [batch, C, height, width] with a row and column of the opposite side all around."""
    tall = torch.cat([x[..., -1:, :], x, x[..., :1, :]], -2)
    return torch.cat([tall[..., -1:], tall, tall[..., :1]], -1)


class _WrongWeights(ValueError):
    """The tensors are not those of a VGG."""


def _layer_names(blocks: tuple[int, ...]) -> list[str]:
    names = []
    for block, count in enumerate(blocks, 1):
        for index in range(1, count + 1):
            names += [f"conv{block}_{index}", f"relu{block}_{index}"]
        names.append(f"pool{block}")
    return names


def _check_shapes(state: Mapping[str, Tensor], blocks: tuple[int, ...]) -> None:
    in_channels = 3
    for block, (count, channels) in enumerate(zip(blocks, _CHANNELS, strict=True), 1):
        for index in range(1, count + 1):
            expected = {"weight": (channels, in_channels, 3, 3), "bias": (channels,)}
            for kind, shape in expected.items():
                name = f"conv{block}_{index}.{kind}"
                if name not in state:
                    raise _WrongWeights(f"{name} is missing")
                if tuple(state[name].shape) != shape:
                    raise _WrongWeights(
                        f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
                    )
            in_channels = channels


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
    convs = [name for name in _layer_names(blocks) if name.startswith("conv")]
    return {
        f"{name}.{kind}": state[f"features.{number}.{kind}"]
        for name, number in zip(convs, sorted(numbers), strict=True)
        for kind in ("weight", "bias")
        if f"features.{number}.{kind}" in state
    }
