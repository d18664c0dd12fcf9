"""Repaint a picture of any size in bounded memory, exactly: tile by tile, layer by layer.

A layer's normalisation needs the mean and variance of the whole picture. So a first sweep over the
tiles measures the first layer, the next one the second, and so on; the last sweep paints. Outputs
of layers that are small enough are kept whole, and later sweeps begin there.

Imports no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.networks import graph
from impasto.networks.architecture import EPSILON, IMAGES, Layer
from impasto.networks.files import NetworkFile
from impasto.networks.sessions import Run

Array = npt.NDArray[Any]
TILE = 768
"""The side of a tile in pixels, without its halo."""

_FLOAT = 4  # bytes


class Sweeps:
    """Repaints pictures in tiles.

    start: gives a session for a graph. most: how many bytes of layers' outputs may be kept. tile:
    the side of a tile in pixels, rounded up to the stride of the network.
    """

    def __init__(
        self,
        network: NetworkFile,
        shares: Array,
        start: Callable[[Any], Run],
        most: float,
        tile: int = TILE,
    ) -> None:
        self.network, self.start, self.most = network, start, most
        self.layers, stride = network.transformer.layers, network.transformer.stride
        self.tile = -(-tile // stride) * stride
        self.styles = {
            layer.name: [
                (shares @ network.weights[f"{layer.name}.{kind}"]).astype(np.float64)
                for kind in ("scale", "shift")
            ]
            for layer in self.layers[:-1]
        }

    def repaint(self, image: Array) -> Array:
        """Repaint an image [3, height, width]: uint8, or float32 in 0..1; the same kind returns."""
        return _Picture(self, image).repaint()


class _Picture:
    """A picture that is being repainted, and what is known of it so far.

    kept: the outputs of some layers, whole, and the picture itself. affine: the gain and offset of
    each layer measured.
    """

    def __init__(self, sweeps: Sweeps, image: Array) -> None:
        self.sweeps, self.image, shape = sweeps, image, sweeps.network.transformer
        self.full = [shape.padded(side) for side in image.shape[1:]]
        missing = [(0, full - side) for full, side in zip(self.full, image.shape[1:], strict=True)]
        if any(last for _, last in missing):
            image = np.pad(image, [(0, 0), *missing], mode="edge")
        self.kept = {IMAGES: image}
        self.scales = {IMAGES: 1} | {layer.name: layer.scale for layer in sweeps.layers}
        self.affine: dict[str, Array] = {}

    def repaint(self) -> Array:
        layers, result = self.sweeps.layers, np.empty_like(self.image)
        _, height, width = result.shape
        for at in range(len(layers) - 1):
            self._measure(at)
        for rows, columns, painted in self._sweep(len(layers) - 1):
            fit = painted[:, : max(0, height - rows.start), : max(0, width - columns.start)]
            result[:, rows, columns] = np.rint(fit * 255) if result.dtype == np.uint8 else fit
        return result

    def _measure(self, at: int) -> None:
        """Find a layer's gain and offset, and keep its output if there is room."""
        layer = self.sweeps.layers[at]
        whole, size = self._room(at), [side // layer.scale for side in self.full]
        sums = np.zeros((2, layer.outputs))
        for rows, columns, values in self._sweep(at):
            for channel, plane in enumerate(values):  # one by one, as double precision is large
                exact = plane.astype(np.float64)
                sums[:, channel] += exact.sum(), np.vdot(exact, exact)
            if whole is not None:
                whole[:, rows, columns] = values
        mean, square = sums / math.prod(size)
        scale, shift = self.sweeps.styles[layer.name]
        gain = scale / np.sqrt(np.maximum(square - mean**2, 0) + EPSILON)
        for kind, value in (("gain", gain), ("offset", shift - mean * gain)):
            self.affine[f"{layer.name}.{kind}"] = value.astype(np.float32)[None, :, None, None]
        if whole is not None:
            self._activate(layer, whole)
            later = self.sweeps.layers[at + 1 :]
            used = {IMAGES, layer.name, *(other.adds for other in later)}
            self.kept = {n: each for n, each in self.kept.items() if n in used}
            self.kept[layer.name] = whole

    def _room(self, at: int) -> Array | None:
        """An empty array for a layer's output; None if it cannot be kept."""
        layer = self.sweeps.layers[at]
        if layer.adds is not None and layer.adds not in self.kept:
            return None
        shape = (layer.outputs, *(side // layer.scale for side in self.full))
        held = sum(each.nbytes for name, each in self.kept.items() if name != IMAGES)
        fits = held + _FLOAT * math.prod(shape) <= self.sweeps.most
        return np.empty(shape, np.float32) if fits else None

    def _activate(self, layer: Layer, whole: Array) -> None:
        """Turn a layer's values into its output, in place."""
        gain, offset = (self.affine[f"{layer.name}.{kind}"][0] for kind in ("gain", "offset"))
        whole *= gain
        whole += offset
        if layer.adds is None:
            np.maximum(whole, 0, out=whole)
        else:
            whole += self.kept[layer.adds]

    def _sweep(self, at: int) -> Iterator[tuple[slice, slice, Array]]:
        """The values of a layer before normalisation, tile by tile, with their place."""
        layers, sources = path(self.sweeps.layers[: at + 1], self.kept)
        run = self.sweeps.start(graph.part(self.sweeps.network.weights, layers, sources))
        used = {f"{x.name}.{kind}" for x in layers[:-1] for kind in ("gain", "offset")}
        affine = {name: self.affine[name] for name in used}
        stride, scale = self.sweeps.network.transformer.stride, layers[-1].scale
        around = -(-halo(layers) // stride) * stride
        starts = [range(0, side, self.sweeps.tile) for side in self.full]
        for corner in itertools.product(*starts):
            core, crop = zip(
                *(self._spans(n, first, around) for n, first in enumerate(corner)), strict=True
            )
            inputs = {name: self._crop(name, crop) for name in sources}
            values = run({**inputs, **affine})[0]
            rows, columns = (
                slice((part.start - seen.start) // scale, (part.stop - seen.start) // scale)
                for part, seen in zip(core, crop, strict=True)
            )
            place = [slice(part.start // scale, part.stop // scale) for part in core]
            yield place[0], place[1], values[:, rows, columns]

    def _spans(self, axis: int, first: int, around: int) -> tuple[slice, slice]:
        """The rows (or columns) of a tile, and those with its halo, in pixels of the picture."""
        stop = min(first + self.sweeps.tile, self.full[axis])
        return slice(first, stop), slice(
            max(0, first - around), min(stop + around, self.full[axis])
        )

    def _crop(self, name: str, crop: Sequence[slice]) -> Array:
        scale = self.scales[name]
        rows, columns = (slice(part.start // scale, part.stop // scale) for part in crop)
        x = self.kept[name][:, rows, columns]
        x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        return np.ascontiguousarray(x)[None]


def path(layers: Sequence[Layer], kept: Collection[str]) -> tuple[list[Layer], list[str]]:
    """The layers to compute for the last one, in order, and what of `kept` they read."""
    wanted, found, sources = {layers[-1].name}, [], set()
    for layer in reversed(layers):
        if layer.name not in wanted:
            continue
        found.append(layer)
        # The last layer is wanted before its normalisation, and so before anything is added.
        reads = {layer.reads} if layer is layers[-1] else {layer.reads, layer.adds} - {None}
        sources |= {str(name) for name in reads if name in kept}
        wanted |= {str(name) for name in reads if name not in kept}
    return found[::-1], sorted(sources)


def halo(layers: Sequence[Layer]) -> int:
    """How many pixels around a tile the last of these layers sees."""
    around = {layers[-1].name: 0}
    widest = 0
    for layer in reversed(layers):
        grid = layer.scale // layer.stride if layer.stride > 1 else layer.scale
        reach = around[layer.name] + layer.kernel // 2 * grid
        # A pixel of a larger picture stands for a whole one of the smaller.
        reach += layer.scale * layer.enlarged if layer.enlarged > 1 else 0
        added = around[layer.name]
        for name, far in ((layer.reads, reach), (layer.adds, added)):
            if name is not None:
                around[name] = max(around.get(name, 0), far)
        widest = max(widest, reach)
    return widest
