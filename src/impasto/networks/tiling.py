"""Repaint a picture of any size in bounded memory, exactly: tile by tile, layer by layer.

A layer's normalisation needs the mean and variance of the whole picture. So a first sweep over the
tiles measures the first layer, the next one the second, and so on; the last sweep paints. As soon
as a layer's output is small enough, it is kept whole, and later sweeps begin there.

Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.networks import graph
from impasto.networks.architecture import EPSILON, Layer
from impasto.networks.files import NetworkFile

Array = npt.NDArray[np.float32]
Run = Callable[[Mapping[str, Array]], Array]
"""Runs a graph: inputs by name -> its output."""

TILE = 768
"""The side of a tile in pixels, without its halo; a multiple of every network's stride."""

_FLOAT = 4  # bytes


class Sweeps:
    """Repaints one picture; see `repaint`.

    start: gives a session for a graph. most: how many bytes may be kept of layers' outputs.
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
        self.layers = network.architecture.layers
        self.tile = -(-tile // network.architecture.stride) * network.architecture.stride
        self.styles = {
            layer.name: [
                (shares @ network.weights[f"{layer.name}.{kind}"]).astype(np.float64)
                for kind in ("scale", "shift")
            ]
            for layer in self.layers[:-1]
        }

    def repaint(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Repaint an image [3, height, width]: uint8, or float32 in 0..1; the same kind returns."""
        _, height, width = image.shape
        full = [self.network.architecture.padded(side) for side in (height, width)]
        missing = [(0, 0), (0, full[0] - height), (0, full[1] - width)]
        kept = np.pad(image, missing, mode="edge") if any(map(sum, missing)) else image
        begin = 0  # the layer that reads `kept`
        affine: dict[str, Array] = {}
        for at, layer in enumerate(self.layers[:-1]):
            size = [side // layer.scale for side in full]
            fits = kept.nbytes * (begin > 0) + layer.outputs * np.prod(size) * _FLOAT <= self.most
            whole = None
            if fits and not self._is_open(at):
                whole = np.empty((layer.outputs, *size), np.float32)
            mean, variance = self._measure(kept, begin, at, affine, size, whole)
            scale, shift = self.styles[layer.name]
            gain = scale / np.sqrt(variance + EPSILON)
            found = {"gain": gain, "offset": shift - mean * gain}
            for kind, value in found.items():
                affine[f"{layer.name}.{kind}"] = value.astype(np.float32)[None, :, None, None]
            if whole is not None:
                self._activate(whole, layer, affine, kept)
                kept, begin = whole, at + 1
        result = np.empty_like(image)
        for rows, columns, painted in self._sweep(kept, begin, len(self.layers) - 1, affine, full):
            fit = painted[:, : max(0, height - rows.start), : max(0, width - columns.start)]
            if image.dtype == np.uint8:
                fit = np.rint(fit * 255)
            result[:, rows, columns] = fit
        return result

    def _is_open(self, at: int) -> bool:
        """Whether a later layer adds the output of one before this."""
        before = {layer.name for layer in self.layers[:at]}
        return any(layer.adds in before for layer in self.layers[at + 1 :])

    def _measure(
        self,
        kept: npt.NDArray[Any],
        begin: int,
        at: int,
        affine: Mapping[str, Array],
        size: Sequence[int],
        whole: Array | None,
    ) -> tuple[Any, Any]:
        """Mean and variance of the channels of a layer; its values are written into `whole`."""
        sums = np.zeros((2, self.layers[at].outputs))
        for rows, columns, values in self._sweep(kept, begin, at, affine, size):
            exact = values.reshape(len(values), -1).astype(np.float64)
            sums += exact.sum(1), np.square(exact).sum(1)
            if whole is not None:
                whole[:, rows, columns] = values
        mean, square = sums / np.prod(size)
        return mean, np.maximum(square - mean**2, 0)

    def _activate(
        self, whole: Array, layer: Layer, affine: Mapping[str, Array], before: npt.NDArray[Any]
    ) -> None:
        """Turn a layer's values into its output, in place."""
        gain, offset = (affine[f"{layer.name}.{kind}"][0] for kind in ("gain", "offset"))
        whole *= gain
        whole += offset
        if layer.has_relu:
            np.maximum(whole, 0, out=whole)
        else:
            whole += before

    def _sweep(
        self,
        kept: npt.NDArray[Any],
        begin: int,
        at: int,
        affine: Mapping[str, Array],
        size: Sequence[int],
    ) -> Iterator[tuple[slice, slice, Array]]:
        """The values of layer `at`, tile by tile, with their place."""
        layers = self.layers[begin : at + 1]
        before = self.layers[begin - 1].name if begin else None
        run = self.start(graph.part(self.network.weights, layers, before))
        used = {f"{x.name}.{kind}" for x in layers[:-1] for kind in ("gain", "offset")}
        inputs = {name: affine[name] for name in used}
        step = self.tile // layers[-1].scale
        starts = [range(0, side, step) for side in size]
        for top, left in itertools.product(*starts):
            core = [
                slice(first, min(first + step, side))
                for first, side in zip((top, left), size, strict=True)
            ]
            crop, offsets = zip(
                *(
                    seen(layers, part, side)
                    for part, side in zip(core, kept.shape[1:], strict=True)
                ),
                strict=True,
            )
            x = kept[:, crop[0], crop[1]]
            x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
            values = run({graph.IMAGES: np.ascontiguousarray(x)[None], **inputs})[0]
            rows, columns = (
                slice(off, off + part.stop - part.start)
                for off, part in zip(offsets, core, strict=True)
            )
            yield core[0], core[1], values[:, rows, columns]


def seen(layers: Sequence[Layer], core: slice, side: int) -> tuple[slice, int]:
    """What a tile reads: its input's rows (or columns), and where its core begins in the output.

    core: the output's rows that are wanted. side: how many rows the input has.
    """
    first, stop = core.start, core.stop
    for layer in reversed(layers):
        reach = layer.kernel // 2
        first, stop = first * layer.stride - reach, (stop - 1) * layer.stride + reach + 1
        first, stop = first // layer.enlarged, -(-stop // layer.enlarged)
    # A tile begins where every layer's grid has a position.
    whole = 1
    down = 1
    for layer in layers:
        down = down * layer.stride
        whole = max(whole, down)
        down = max(1, down // layer.enlarged)
    first = max(0, first // whole * whole)
    stop = min(side, -(-stop // whole) * whole)
    offset = first
    for layer in layers:
        offset = offset * layer.enlarged // layer.stride
    return slice(first, stop), core.start - offset
