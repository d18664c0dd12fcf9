"""What an encoder is: a pretrained network as a function from an image to features by layer name.

Whatever has to be known of one is in its table of layers and its defaults; who works with an
encoder reads numbers there and parses no names. Only an encoder knows which colours, means and
ranges its network was trained on.
"""

from __future__ import annotations

import copy
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from impasto import catalog
from impasto.device import ordinary
from impasto.errors import ImpastoError, nearest
from impasto.settings import Pooling, shares_of

IMAGE = "image"
"""The name of the layer before the first: the image tensor itself."""

Padding = Literal["zeros", "circular"]


@dataclass(frozen=True)
class Layer:
    """A row of an encoder's table.

    stride: how many pixels a position is from the next, so that it has a square of so many pixels
    of its own. halo: how many pixels around that square it depends on, to each side.
    """

    name: str
    channels: int
    stride: int
    halo: int


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
        mean, std = image.new_tensor([self.mean, self.std]).view(2, 3, 1, 1).unbind()
        return (image.expand(-1, 3, -1, -1)[:, self.order] * self.scale - mean) / std

    def invert(self, pixels: Tensor) -> Tensor:
        """Map the network's input [batch, 3, height, width] back to an RGB image in 0..1."""
        mean, std = pixels.new_tensor([self.mean, self.std]).view(2, 3, 1, 1).unbind()
        # `order` is its own inverse: it is the identity or swaps red with blue.
        return (pixels * std + mean)[:, self.order] / self.scale


CAFFE = Preprocessing((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
"""VGG's original release: BGR, 0..255, minus the mean colour of ImageNet."""

TORCHVISION = Preprocessing((0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Torchvision's trainings: RGB, 0..1, standardised."""


class Encoder(ABC):
    """A network whose weights are frozen, called with an image and the names of layers.

    One object serves any number of runs and threads: it does not change, `like` and `to` make
    others that share its weights.

    Args:
        table: its layers, in order; the first is the image itself.
        content_layer: what it takes for content where nothing is said.
        style_layers: likewise for style, in order, each with its share.
        sets: names for several layers, each with its share.
        cut: where it is cut in two, if it is computed in tiles: where activations are smallest.
    """

    def __init__(
        self,
        table: Sequence[Layer],
        *,
        content_layer: str,
        style_layers: Mapping[str, float],
        sets: Mapping[str, Mapping[str, float]],
        cut: str,
    ) -> None:
        self.table = tuple(table)
        self.content_layer, self.style_layers = content_layer, style_layers
        self.sets, self.cut = sets, cut
        self.pooling: Pooling = "avg"
        self.padding: Padding = "zeros"
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.rows = {row.name: row for row in self.table}
        self.layers = tuple(self.rows)

    @abstractmethod
    def __call__(self, x: Tensor, layers: Iterable[str], start: str = IMAGE) -> dict[str, Tensor]:
        """The activations of `layers` for an image [batch, 3, height, width] in 0..1.

        Returns a tensor [batch, channels, height / stride, width / stride] for every name.
        Nothing after the last layer needed is computed. With `start`, x are the activations of
        that layer, and all `layers` are after it.
        """

    @abstractmethod
    def prepare(self, layers: Iterable[str]) -> None:
        """Prepare all weights up to `layers` now, rather than when they are first needed."""

    @abstractmethod
    def held(self, layers: Iterable[str]) -> int:
        """How many bytes the weights take that computing these layers needs, as prepared."""

    @abstractmethod
    def alias(self, name: str) -> str:
        """The name that another one stands for; itself, where it stands for none."""

    def layer(self, name: str) -> str:
        """The canonical name of a layer, or an `ImpastoError` that suggests the nearest one."""
        canonical = self.alias(name)
        if canonical in self.rows:
            return canonical
        raise ImpastoError(
            f"there is no layer {name!r}; did you mean {nearest(canonical, self.layers)!r}?"
        )

    def shares(self, layers: Mapping[str, float] | Sequence[str] | None) -> dict[str, float]:
        """Each layer's share by its canonical name; none: the style layers. See `sets`."""
        if isinstance(layers, str) and layers in self.sets:
            layers = self.sets[layers]
        total: dict[str, float] = {}
        for name, share in shares_of(self.style_layers if layers is None else layers).items():
            total[self.layer(name)] = total.get(self.layer(name), 0.0) + share
        return total

    def deepest(self, layers: Iterable[str]) -> Layer:
        """The last of some layers."""
        return max((self.rows[self.layer(name)] for name in layers), key=self.table.index)

    def run(self, first: str, last: str) -> tuple[Layer, ...]:
        """The layers from one to another."""
        return self.table[self.layers.index(first) : self.layers.index(last) + 1]

    def min_size(self, layers: Iterable[str]) -> int:
        """The smallest height and width in pixels at which all `layers` have a position.

        Of a picture whose sides are multiples of it, nothing is dropped on the way.
        """
        return max(self.rows[self.layer(name)].stride for name in layers)

    def channels(self, name: str) -> int:
        """How many channels a layer has."""
        return self.rows[name].channels

    def like(self, *, pooling: Pooling | None = None, padding: Padding | None = None) -> Self:
        """The same encoder, of the same weights, with this pooling or padding."""
        other = copy.copy(self)
        other.pooling, other.padding = pooling or self.pooling, padding or self.padding
        return other

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """The same encoder on a device, in single or double precision."""
        other = copy.copy(self)
        other.device, other.dtype = torch.device(device), dtype
        return other

    def double(self) -> Self:
        """The same encoder in double precision."""
        return self.to(self.device, torch.float64)


_loading = threading.Lock()


@ordinary()
def load_encoder(
    weights: str | Path | None = None,
    pooling: Pooling = "avg",
    padding: Padding = "zeros",
    name: str = "vgg",
) -> Encoder:
    """Load a pretrained encoder; once loaded, it is kept for the next who asks.

    Args:
        weights: none for the bundled ones (of VGG-16: Caffe release, CC BY 4.0); or a
            `.safetensors` or `.pth` file: a state dict of torchvision's `vgg16` or `vgg19`
            (with torchvision's own preprocessing), or one with the bundled file's names.
        pooling: `"avg"` spreads the gradient over all four positions and gives smoother pictures
            (Gatys et al. 2015, section "Methods"); `"max"` is how the network was trained.
        padding: `"zeros"` as the network was trained; with `"circular"` a picture goes on at the
            opposite side, as if it were repeated without end. Its sides have to be multiples of
            `min_size` for that.
        name: of the encoder, see `catalog`.

    Raises:
        ImpastoError: the file is missing, is no state dict, or its tensors are of another shape.
    """
    path = None if weights is None else Path(weights)
    with _loading:
        version = (path.resolve(), path.stat().st_mtime_ns) if path and path.exists() else None
        return _loaded(name, path, version).like(pooling=pooling, padding=padding)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, weights: Path | None, _version: object) -> Encoder:
    encoder: Encoder = catalog.ENCODERS[name].load()(weights)
    return encoder


def up_to(layer: str) -> list[str]:
    """The bundled encoder's style layers up to this one: the first of each block.

    Raises:
        ImpastoError: it is none of these.
    """
    known = list(load_encoder().style_layers)
    if layer not in known:
        raise ImpastoError(
            f"there is no layer to go up to {layer!r}; did you mean {nearest(layer, known)!r}? "
            f"(there are: {', '.join(known)})"
        )
    return known[: known.index(layer) + 1]
