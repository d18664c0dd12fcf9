"""What an encoder is: a pretrained network as a function from an image to features by layer name.

Everything the rest of the package needs to know about a network is in its table of layers and its
defaults, so no other module parses layer names. Only an encoder knows which colours, means and
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
"""The name of the layer before the network's first: the image tensor itself."""

Padding = Literal["zeros", "circular"]


@dataclass(frozen=True)
class Layer:
    """A row of an encoder's table.

    stride: the distance between two positions in pixels, and the side of the square that belongs to
    each. halo: how many pixels around that square, to each side, a position depends on.
    """

    name: str
    channels: int
    stride: int
    halo: int


@dataclass(frozen=True)
class Preprocessing:
    """The affine map from an RGB image in [0, 1] to the input that a network was trained on.

    Channels are put into `order`, multiplied by `scale`, then `mean` is subtracted and the result
    divided by `std`, channel by channel.
    """

    order: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, image: Tensor) -> Tensor:
        """Map an image [batch, 3, height, width] (RGB, 0..1) to the network's input.

        The exact inverse of `invert` on every 8-bit colour. A grey image [batch, 1, height, width]
        counts as red = green = blue.
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
"""Torchvision's weights: RGB, 0..1, standardised."""


class Encoder(ABC):
    """A network with frozen weights, called with an image and the names of layers.

    One object serves any number of runs and threads: it does not change; `like` and `to` make
    others that share its weights.

    Args:
        table: the layers, in order; the first is the image itself.
        content_layer: the default content layer.
        style_layers: the default style layers, in order, each with its share.
        sets: named sets of layers, each layer with its share.
        cut: the layer where tiles cut the network in two: activations are small there, and halos
            before it narrow.
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

        Returns a tensor [batch, channels, height / stride, width / stride] for every layer, by its
        canonical name, and computes nothing after the last one. With `start`, x holds the
        activations of that layer, and all `layers` come after it.
        """

    @abstractmethod
    def prepare(self, layers: Iterable[str]) -> None:
        """Prepare all weights up to `layers` now, not at their first use."""

    @abstractmethod
    def held(self, layers: Iterable[str]) -> int:
        """How many bytes the weights that these layers need take, once prepared."""

    @abstractmethod
    def alias(self, name: str) -> str:
        """The name of the layer that an alias stands for; any other name unchanged."""

    def layer(self, name: str) -> str:
        """Return a layer's canonical name, or raise an `ImpastoError` that suggests the nearest."""
        canonical = self.alias(name)
        if canonical in self.rows:
            return canonical
        raise ImpastoError(
            f"there is no layer {name!r}; did you mean {nearest(canonical, self.layers)!r}?"
        )

    def shares(self, layers: Mapping[str, float] | Sequence[str] | None) -> dict[str, float]:
        """Each layer's share by canonical name. None: the style layers.

        `layers` may name a set. `up-to:relu4_1` stands for the style layers up to that one, each
        with the share given.
        """
        if isinstance(layers, str) and layers in self.sets:
            layers = self.sets[layers]
        total: dict[str, float] = {}
        for name, share in shares_of(self.style_layers if layers is None else layers).items():
            first, _, last = name.partition(":")
            for layer in self.up_to(last) if first == "up-to" else [self.layer(name)]:
                total[layer] = total.get(layer, 0.0) + share
        return total

    def up_to(self, layer: str) -> list[str]:
        """The style layers up to this one; an `ImpastoError` if it is not one of them."""
        known, last = list(self.style_layers), self.alias(layer)
        if not layer:
            raise ImpastoError(f"up-to needs a layer behind a colon, as in up-to:{known[-1]}")
        if last not in known:
            raise ImpastoError(
                f"style layers cannot go up to {layer!r}; did you mean {nearest(last, known)!r}? "
                f"(there are: {', '.join(known)})"
            )
        return known[: known.index(last) + 1]

    def deepest(self, layers: Iterable[str]) -> Layer:
        """The last of these layers in the table."""
        return max((self.rows[self.layer(name)] for name in layers), key=self.table.index)

    def run(self, first: str, last: str) -> tuple[Layer, ...]:
        """The rows of the table from `first` to `last`, both included."""
        return self.table[self.layers.index(first) : self.layers.index(last) + 1]

    def min_size(self, layers: Iterable[str]) -> int:
        """The smallest height and width in pixels at which all `layers` have a position.

        Of a picture whose sides are multiples of this size, pooling drops no row or column.
        """
        return max(self.rows[self.layer(name)].stride for name in layers)

    def like(self, *, pooling: Pooling | None = None, padding: Padding | None = None) -> Self:
        """The same encoder with this pooling or padding; it shares the weights."""
        other = copy.copy(self)
        other.pooling, other.padding = pooling or self.pooling, padding or self.padding
        return other

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """The same encoder on a device, in single or double precision."""
        other = copy.copy(self)
        other.device, other.dtype = torch.device(device), dtype
        return other

    def double(self) -> Self:
        return self.to(self.device, torch.float64)


_loading = threading.Lock()


@ordinary()
def load_encoder(
    weights: str | Path | None = None,
    pooling: Pooling = "avg",
    padding: Padding = "zeros",
    name: str = "vgg",
) -> Encoder:
    """Load a pretrained encoder; the last two used are kept for later calls.

    Args:
        weights: None for the bundled weights (VGG-16, Caffe release, CC BY 4.0), or a
            `.safetensors` or `.pth` file: a state dict of torchvision's `vgg16` or `vgg19`
            (with torchvision's own preprocessing), or one with the bundled file's names.
        pooling: `"avg"` spreads the gradient over all four positions and gives smoother pictures
            (Gatys et al. 2015, section "Methods"); `"max"` is how the network was trained.
        padding: `"zeros"` is how the network was trained; `"circular"` continues a picture at the
            opposite side, as if it were repeated without end. Its sides must then be multiples of
            `min_size`.
        name: the encoder's name in `catalog.ENCODERS`.

    Raises:
        ImpastoError: there is no such encoder; or the file is missing, holds no state dict, or its
            tensors have other shapes.
    """
    if name not in catalog.ENCODERS:
        known = nearest(name, catalog.ENCODERS)
        raise ImpastoError(f"there is no encoder {name!r}; did you mean {known!r}?")
    path = None if weights is None else Path(weights)
    with _loading:
        version = (path.resolve(), path.stat().st_mtime_ns) if path and path.exists() else None
        return _loaded(name, path, version).like(pooling=pooling, padding=padding)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, weights: Path | None, _version: object) -> Encoder:
    encoder: Encoder = catalog.ENCODERS[name].load()(weights)
    return encoder


def up_to(layer: str) -> list[str]:
    """`Encoder.up_to` of the bundled encoder: the first layer of each block, up to this one."""
    return load_encoder().up_to(layer)
