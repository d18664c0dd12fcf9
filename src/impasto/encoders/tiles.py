"""How a picture that does not fit into memory is cut: segments of the encoder, tiles of each.

A *segment* is a run of layers that are computed together, from the activations of one layer to
those of another. A *tile* is a part of a segment's input: its *core*, whose positions it answers
for, and a *halo* around it, as wide as the core's outputs reach. Tiles begin at multiples of the
segment's pooling, so each computes the very positions that the whole would have; where a tile ends
at the picture's border, zero padding is the encoder's own, and wherever else it ends, what the
padding spoils lies in the halo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.encoders.vgg import IMAGE, Vgg
from impasto.kernels import ops as compiled

CUT = "pool3"
"""Where the encoder is cut in two, so that halos are narrow: there activations are smallest."""

_FLOAT = 4
_BUFFERS = 64 * 2**20  # of the kernels' threads, and what else is small
_LEAST_TILE = 64


@dataclass(frozen=True)
class Part:
    """A part of a layer: `crop` is what is there, `core` the positions that count.

    size: (height, width) of the whole layer. crop, core: (rows, columns), as slices of it.
    """

    size: tuple[int, int]
    crop: tuple[slice, slice]
    core: tuple[slice, slice]

    @classmethod
    def whole(cls, features: Tensor) -> Part:
        """All of a layer [batch, channels, height, width]."""
        height, width = features.shape[-2:]
        everything = slice(0, height), slice(0, width)
        return cls((height, width), everything, everything)

    def core_of(self, features: Tensor) -> Tensor:
        """The core of this crop of a layer."""
        if self.core == self.crop:
            return features
        return features[(..., *self.core_in_crop)]

    @property
    def core_in_crop(self) -> tuple[slice, slice]:
        """(rows, columns) of the core, as slices of the crop."""
        rows, columns = (_within(*pair) for pair in zip(self.core, self.crop, strict=True))
        return rows, columns

    @property
    def positions(self) -> int:
        """How many positions count."""
        rows, columns = self.core
        return int((rows.stop - rows.start) * (columns.stop - columns.start))


@dataclass(frozen=True)
class Segment:
    """Layers computed together: `layers`, from the activations of `start`, in tiles of side `tile`.

    reach: how many positions of `start` to each side a layer depends on. step: how many of them
    become one by pooling. grid: tiles begin at multiples of it, so that the compiled convolutions
    cut them up as they would the whole, and round alike. tile: of the core, in positions of
    `start`, a multiple of grid.
    """

    start: str
    layers: tuple[str, ...]
    pools: dict[str, int]
    reach: int
    step: int
    grid: int
    tile: int

    @property
    def halos(self) -> tuple[int, int]:
        """How wide the halo is before and behind a core."""
        return -(-self.reach // self.grid) * self.grid, -(-self.reach // self.step) * self.step

    def tiles(self, size: tuple[int, int]) -> Iterator[dict[str, Part]]:
        """For each tile of a start of (height, width), its part of `start` and of every layer."""
        before, behind = self.halos
        height, width = size
        for rows in _spans(height, self.tile, self.grid):
            for columns in _spans(width, self.tile, self.grid):
                core = rows, columns
                crop = tuple(
                    slice(max(0, span.start - before), min(end, span.stop + behind))
                    for span, end in zip(core, size, strict=True)
                )
                yield {
                    name: Part(
                        (height >> pools, width >> pools),
                        (_halved(crop[0], pools), _halved(crop[1], pools)),
                        (_halved(rows, pools), _halved(columns, pools)),
                    )
                    for name, pools in self.pools.items()
                }


def plan(
    encoder: Vgg,
    layers: Iterable[str],
    size: tuple[int, int],
    *,
    memory: float | None = None,
    tile: int | None = None,
) -> list[Segment] | None:
    """How to compute `layers` of a picture of (height, width) in `memory` bytes; none: as a whole.

    With `tile`, in tiles of about that side in pixels instead, whatever the memory. Where nothing
    fits, the most frugal way: `needed` tells what it takes.
    """
    wanted = {encoder.layer(name) for name in layers}
    if tile is None:
        if memory is None or needed(encoder, wanted, size, None) <= memory:
            return None
        side = max(size)
        while True:
            side = max(_LEAST_TILE, int(side / 1.25))
            # What comes after the cut takes a ninth of the memory a pixel; halos are wider there.
            segments = _segments(encoder, wanted, side, deep=2 * side)
            if side == _LEAST_TILE or needed(encoder, wanted, size, segments) <= memory:
                return segments
    return _segments(encoder, wanted, tile)


def sweep(
    encoder: Vgg,
    image: Tensor,
    segments: Sequence[Segment],
    visit: Callable[[str, Tensor, Part], None],
) -> dict[str, Tensor]:
    """Compute the layers of all segments without gradient, tile by tile.

    `visit` gets each layer's name, a crop of its activations and which part of the layer that is.
    Returns the start of every segment, whole.
    """
    starts = {IMAGE: image.detach()}
    with torch.no_grad():
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            start = starts[segment.start]
            for parts in segment.tiles((start.shape[-2], start.shape[-1])):
                crop = start[(..., *parts[segment.start].crop)]
                features = encoder(crop, segment.layers, segment.start)
                del crop
                for name in segment.layers:
                    visit(name, features[name], parts[name])
                if following:
                    part, name = parts[following.start], following.start
                    if name not in starts:
                        starts[name] = whole_layer(encoder, name, part.size, image)
                    starts[name][(..., *part.core)] = part.core_of(features[name])
    return starts


def whole_layer(encoder: Vgg, name: str, size: tuple[int, int], like: Tensor) -> Tensor:
    """An uninitialised layer of (height, width), channels last."""
    height, width = size
    empty = like.new_empty(1, height, width, encoder.channels(name))
    return empty.permute(0, 3, 1, 2)


def weights(encoder: Vgg, layers: Iterable[str]) -> int:
    """How many bytes the encoder's weights take, and what is prepared of them for these layers."""
    count = sum(parameter.numel() for parameter in encoder.parameters())
    if compiled.status().ready and next(encoder.parameters()).device.type == "cpu":
        last = max(encoder.layers.index(encoder.layer(name)) for name in layers)
        for name in encoder.layers[: last + 1]:
            if name.startswith("conv"):
                count += 8 * encoder.values(name)  # 36 for every 9, for forward and for back
    return count * _FLOAT


def needed(
    encoder: Vgg, layers: Iterable[str], size: tuple[int, int], segments: Sequence[Segment] | None
) -> float:
    """About how many bytes one evaluation takes, with all that stays: weights, image, gradient."""
    wanted = {encoder.layer(name) for name in layers}
    pixels = size[0] * size[1]
    kept = weights(encoder, wanted) + _BUFFERS + pixels * 6 * _FLOAT
    if segments is None:
        (whole,) = _segments(encoder, wanted, max(size), cut=False)
        return kept + pixels * _bytes_per_position(encoder, whole)
    most = 0.0
    for segment in segments:
        pools = _pools_before(encoder, segment.start)
        longest = segment.tile + segment.grid + sum(segment.halos)
        area = min(size[0] >> pools, longest) * min(size[1] >> pools, longest)
        most = max(most, area * _bytes_per_position(encoder, segment))
        if segment.start != IMAGE:
            kept += 2 * _FLOAT * encoder.channels(segment.start) * (pixels >> 2 * pools)
    return kept + most


def _segments(
    encoder: Vgg, wanted: set[str], tile: int, *, deep: int | None = None, cut: bool = True
) -> list[Segment]:
    """Segments in tiles of so many pixels; `deep` for what comes after the cut."""
    order = encoder.layers
    last = max(order.index(name) for name in wanted)
    starts = [IMAGE]
    if cut and CUT in order[:last]:
        starts.append(CUT)
    segments = []
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        first = order.index(start) + 1
        stop = last + 1 if following is None else order.index(following) + 1
        names = [name for name in order[first:stop] if name in wanted or name == following]
        if start == IMAGE and IMAGE in wanted:
            names.insert(0, IMAGE)
        side = deep if deep and start != IMAGE else tile
        segments.append(_segment(encoder, start, names, side))
    return segments


def _segment(encoder: Vgg, start: str, layers: Sequence[str], tile: int) -> Segment:
    order = encoder.layers
    # Losses on the image itself look at the neighbours of a pixel.
    reach, count, grid = int(start == IMAGE), 0, 1
    pools = {start: 0}
    for name in order[order.index(start) + 1 : max(map(order.index, layers)) + 1]:
        if name.startswith("conv"):
            reach += 1 << count
            grid = compiled.GRID << count
        elif name.startswith("pool"):
            count += 1
        if name in layers:
            pools[name] = count
    step = 1 << count
    grid = max(grid, step)
    side = max(1, (tile >> _pools_before(encoder, start)) // grid) * grid
    return Segment(start, tuple(layers), pools, reach, step, grid, side)


def _bytes_per_position(encoder: Vgg, segment: Segment) -> float:
    """What evaluating a segment takes for each position of its start.

    All activations that the gradient needs, and three of its own largest.
    """
    order = encoder.layers
    pools, values, largest = 0, 0.0, encoder.channels(segment.start)
    last = max(order.index(name) for name in segment.layers)
    for name in order[order.index(segment.start) + 1 : last + 1]:
        pools += name.startswith("pool")
        if not name.startswith("relu"):
            share = encoder.channels(name) / 4**pools
            values += share
            largest = max(largest, int(share))
    return _FLOAT * (values + 3 * largest)


def _pools_before(encoder: Vgg, name: str) -> int:
    before = encoder.layers[: encoder.layers.index(name) + 1]
    return sum(layer.startswith("pool") for layer in before)


def _spans(length: int, tile: int, grid: int) -> list[slice]:
    """`length` in equal spans of about `tile` that begin at multiples of grid."""
    count = max(1, round(length / tile))
    starts = sorted({length * n // count // grid * grid for n in range(count)})
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], length], strict=True)]


def _halved(span: slice, pools: int) -> slice:
    return slice(span.start >> pools, span.stop >> pools)


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
