"""What an encoder is: a pretrained network as a function from an image to features by layer name.

Everything the rest of the package needs to know about a network is in its table of layers and its
defaults, so no other module parses layer names. Only an encoder knows which colours, means and
ranges its network was trained on.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import catalog
from impasto.device import ordinary
from impasto.errors import ImpastoError, nearest
from impasto.kernels import ops
from impasto.settings import Pooling, shares_of

VGG16 = "vgg16"
"""The encoder that is used unless another is asked for."""

IMAGE = "image"
"""The name of the layer before the network's first: the image tensor itself."""

Padding = Literal["zeros", "circular"]


@dataclass(frozen=True)
class Layer:
    """A row of an encoder's table.

    stride: the distance between two positions in pixels, and the side of the square that belongs to
    each. halo: how many pixels around that square, to each side, a position depends on. rounds_up:
    whether pixels at the right and bottom that do not fill a square have a position as well.
    """

    name: str
    channels: int
    stride: int
    halo: int
    rounds_up: bool = False

    def positions(self, side: int) -> int:
        """How many positions lie along a side of so many pixels."""
        return shrunk(side, self.stride, self.rounds_up)

    def averaged(self, mask: Tensor) -> Tensor:
        """A mask [batch, 1, height, width] of pixels, averaged over each position's square."""
        return averaged(mask, self.stride, self.rounds_up)


def shrunk(length: int, side: int, rounds_up: bool) -> int:
    """How many squares of `side` lie along a length; a last one that is not full may count."""
    return -(-length // side) if rounds_up else length // side


def averaged(x: Tensor, side: int, rounds_up: bool) -> Tensor:
    """Average x [batch, C, height, width] over squares of `side`, those of `shrunk`."""
    if side == 1:
        return x
    if not rounds_up and min(x.shape[-2:]) < side:
        return x[..., :0, :0]
    return F.avg_pool2d(x, side, ceil_mode=rounds_up, count_include_pad=False)


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
            before it narrow. All that comes after it in the table is computed from it alone.
        poolings: the kinds of pooling that it can be computed with, its own choice first.
        shifts: how many times along each side it looks at a picture unless asked otherwise, see
            `shifts.Shifted`.

    `name` is the encoder's name in `catalog.ENCODERS` if `load_encoder` made it. `looks`: how many
    times along each side it does look.
    """

    name = ""
    looks = 1

    def __init__(
        self,
        table: Sequence[Layer],
        *,
        content_layer: str,
        style_layers: Mapping[str, float],
        sets: Mapping[str, Mapping[str, float]],
        cut: str,
        poolings: Sequence[Pooling] = (),
        shifts: int = 1,
    ) -> None:
        self.table = tuple(table)
        self.content_layer, self.style_layers = content_layer, style_layers
        self.sets, self.cut = sets, cut
        self.poolings, self.shifts = tuple(poolings), shifts
        self.pooling: Pooling | None = self.poolings[0] if self.poolings else None
        self.padding: Padding = "zeros"
        self.smoothing: float | None = None
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._spreads: dict[object, float] = {}  # shared with all encoders made `like` this one
        self.rows = {row.name: row for row in self.table}
        self.layers = tuple(self.rows)

    @abstractmethod
    def __call__(
        self,
        x: Tensor,
        layers: Iterable[str],
        start: str = IMAGE,
        whole: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """The activations of `layers` for an image [batch, 3, height, width] in 0..1.

        Returns a tensor [batch, channels, height / stride, width / stride] for every layer, by its
        canonical name, and computes nothing after the last one. With `start`, x holds the
        activations of that layer, and all `layers` come after it. `whole`: the (height, width) of
        the start as a whole if x is a crop of it, as some networks pad by it.
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
        if owner := _owner(canonical):
            raise ImpastoError(
                f"{name} belongs to {owner}, and the encoder is {self.name or 'another'}; "
                f"choose the encoder {owner}, or a layer such as {[*self.style_layers][-1]}"
            )
        raise ImpastoError(
            f"there is no layer {name!r}; did you mean {nearest(canonical, self.layers)!r}?"
        )

    def shares(self, layers: Mapping[str, float] | Sequence[str] | None) -> dict[str, float]:
        """Each layer's share by canonical name. None: the style layers.

        `layers` may name a set. `up-to:relu4_1` stands for the style layers up to that one, each
        with the share given.
        """
        if isinstance(layers, str):
            if layers not in self.sets and (owner := _owner(layers, sets=True)):
                raise ImpastoError(
                    f"{layers!r} (given, or by a preset) is a set of layers of {owner}, and the "
                    f"encoder is {self.name or 'another'}; leave it out, or name single layers"
                )
            layers = self.sets.get(layers, layers)
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
            self.layer(layer)  # which knows whether it is a layer of another encoder
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
        """The smallest height and width in pixels at which all `layers` have a full square.

        In a picture whose sides are multiples of this size, every position has one.
        """
        return max(self.rows[self.layer(name)].stride for name in layers)

    def like(
        self,
        *,
        pooling: Pooling | None = None,
        padding: Padding | None = None,
        smoothing: float | None = None,
    ) -> Self:
        """The same encoder with this pooling, padding or smoothing; None leaves one as it is.

        It shares the weights.

        Raises:
            ImpastoError: the encoder knows no such pooling, or `smoothing` is not above 0.
        """
        if smoothing is not None and not 0 < smoothing < math.inf:
            raise ImpastoError(f"smoothing is {smoothing}; give a number above 0, or leave it out")
        if pooling and pooling not in self.poolings:
            raise ImpastoError(
                f"the encoder {self.name} has no pooling to choose; leave pooling out"
                if not self.poolings
                else f"there is no pooling {pooling!r}; give {' or '.join(self.poolings)}"
            )
        other = copy.copy(self)
        other.pooling, other.padding = pooling or self.pooling, padding or self.padding
        other.smoothing = smoothing or self.smoothing
        return other

    def smoothed(self, layer: str, features: Tensor) -> Tensor:
        """What losses see of a layer's activations [batch, C, height, width].

        Without `smoothing`, the activations. With it, their softmax over channels, times C:

            C exp(f_c / t) / sum_k exp(f_k / t)

        where t is `smoothing` times the spread of the layer's activations (`spread`). The softmax
        is that of Wang, Li & Vasconcelos 2021 (arXiv:2104.05623); the temperature t is ours, since
        the activations of some networks are a hundred times as large as those of others.
        """
        if self.smoothing is None or layer == IMAGE:
            return features
        scale = 1 / (self.smoothing * self.spread(layer))
        return features.shape[1] * torch.softmax(features * scale, 1)

    @ordinary()  # it is kept: the caller's torch settings must not reach it
    def spread(self, layer: str) -> float:
        """The standard deviation of a layer's activations: those of clouds, always the same."""
        key = layer, self.pooling
        if key not in self._spreads:
            with torch.no_grad():
                (features,) = self.to("cpu").like(padding="zeros")(_clouds(), [layer]).values()
            self._spreads[key] = max(features.std().item(), 1e-12)
        return self._spreads[key]

    @property
    def choices(self) -> dict[str, Any]:
        """The settings that make this encoder, apart from its weights, for a record."""
        return {"encoder": self.name, "pooling": self.pooling, "shifts": self.looks}

    @property
    def compiled(self) -> tuple[int, int]:
        """How many convolutions run on the compiled kernels on a CPU, and how many there are."""
        return 0, 0

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Torch's threads while it computes: one if the compiled kernels do all convolutions.

        Otherwise all of them: a ResNet-18 takes a quarter less time so.
        """
        ours, among = self.compiled
        return ops.torch_on_one_thread() if 0 < ours == among else contextlib.nullcontext()

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
    pooling: Pooling | None = None,
    padding: Padding = "zeros",
    name: str | None = None,
) -> Encoder:
    """Load a pretrained encoder; the last two used are kept for later calls.

    Args:
        weights: None for the weights in the package (VGG-16, Caffe release, CC BY 4.0;
            EfficientNet-Lite0, Apache-2.0), or a `.safetensors` or `.pth` file: the state dict of
            torchvision's model of this name (with torchvision's own preprocessing), or one with
            the names of the file in the package.
        pooling: `"avg"` spreads the gradient over all positions and gives smoother pictures
            (Gatys et al. 2015, section "Methods"); `"max"` is how VGG and ResNets were trained.
            None for the encoder's own choice: `"avg"` for VGG, `"max"` for ResNets.
        padding: `"zeros"` is how the network was trained; `"circular"` continues a picture at the
            opposite side, as if it were repeated without end. Its sides must then be multiples of
            `min_size`.
        name: the encoder's name in `catalog.ENCODERS`. None for the network whose weights these
            are; `"vgg16"` for those in the package.

    Raises:
        ImpastoError: there is no such encoder, or no such pooling in it; or there are no weights
            for it in the package; or the file is missing, holds no state dict or that of another
            network, or its tensors have other shapes.
    """
    if name is not None and name not in catalog.ENCODERS:
        known = nearest(name, catalog.ENCODERS)
        raise ImpastoError(f"there is no encoder {name!r}; did you mean {known!r}?")
    path = None if weights is None else Path(weights)
    with _loading:
        version = (path.resolve(), path.stat().st_mtime_ns) if path and path.exists() else None
        encoder = _loaded(name or _named(path, version), path, version)
    return encoder.like(pooling=pooling, padding=padding)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, weights: Path | None, _version: object) -> Encoder:
    encoder: Encoder = catalog.ENCODERS[name].load()(weights)
    encoder.name = name
    return encoder


@functools.lru_cache(maxsize=8)
def _named(weights: Path | None, _version: object) -> str:
    """The name of the encoder whose weights these are; VGG16 without any."""
    from impasto.encoders.weights import owner, read_tensors

    if weights is None:
        return VGG16
    found = owner(read_tensors(weights))
    if found not in catalog.ENCODERS:
        raise ImpastoError(
            f"{weights} holds the weights of {found or 'no network that impasto knows'}; "
            f"give those of {', '.join(catalog.ENCODERS)}"
        )
    return found


def _owner(layer: str, *, sets: bool = False) -> str:
    """The name of the first encoder that has this layer, or this set of layers; "" if none has.

    Only encoders are asked that are a `Blueprint` in the catalog: it knows them without weights.
    """
    for name, row in catalog.ENCODERS.items():
        blueprint = row.load()
        rows = [each.name for each in getattr(blueprint, "table", ())]
        if layer in (getattr(blueprint, "sets", ()) if sets else rows):
            return name
    return ""


def _clouds() -> Tensor:
    """A picture [1, 3, 128, 128] that is as random at every scale, the same on every machine."""
    random = torch.Generator("cpu").manual_seed(0)
    total = torch.zeros(1, 3, 128, 128, dtype=torch.float32, device="cpu")
    for side in (4, 8, 16, 32, 64, 128):
        noise = torch.randn(1, 3, side, side, generator=random, dtype=torch.float32, device="cpu")
        total += F.interpolate(noise, (128, 128), mode="bilinear", align_corners=False)
    return (0.5 + 0.1 * total).clamp(0, 1)


def up_to(layer: str) -> list[str]:
    """`Encoder.up_to` of the bundled encoder: the first layer of each block, up to this one."""
    return load_encoder().up_to(layer)
