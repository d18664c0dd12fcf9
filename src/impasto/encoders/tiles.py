"""How a picture that does not fit into memory is cut: segments of the encoder, tiles of each.

A *segment* is a run of layers that are computed together, from the activations of one layer to
those of another. A *tile* is a part of a segment's input: its *core*, whose positions it answers
for, and a *halo* around it, as wide as the core's outputs reach. Tiles begin at multiples of the
segment's stride, so each computes the very positions that the whole would have; where a tile ends
at the picture's border, zero padding is the encoder's own, and wherever else it ends, what the
padding spoils lies in the halo. With circular padding there is no border: halos go on at the
opposite side.

All of it comes from the encoder's table of layers; no layer is known by name here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.encoders.base import IMAGE, Encoder
from impasto.kernels import ops

_FLOAT = 4
_BUFFERS = 64 * 2**20  # of the kernels' threads, and what else is small
_LEAST_TILE = 64


@dataclass(frozen=True)
class Part:
    """A part of a layer: `crop` is what is there, `core` the positions that count.

    size: (height, width) of the whole layer. crop, core: (rows, columns), as slices of it; a crop
    may reach beyond the layer, where it goes on at the opposite side.
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

    def crop_of(self, layer: Tensor) -> Tensor:
        """This crop of a whole layer."""
        reaches_beyond = any(
            span.start < 0 or span.stop > side
            for span, side in zip(self.crop, self.size, strict=True)
        )
        if not reaches_beyond:
            return layer[(..., *self.crop)]
        rows, columns = (
            torch.arange(span.start, span.stop, device=layer.device) % side
            for span, side in zip(self.crop, self.size, strict=True)
        )
        crop = layer[..., rows[:, None], columns]
        return crop.contiguous(memory_format=torch.channels_last)

    @property
    def core_in_crop(self) -> tuple[slice, slice]:
        """(rows, columns) of the core, as slices of the crop."""
        rows, columns = (
            slice(core.start - crop.start, core.stop - crop.start)
            for core, crop in zip(self.core, self.crop, strict=True)
        )
        return rows, columns

    @property
    def positions(self) -> int:
        """How many positions count."""
        rows, columns = self.core
        return int((rows.stop - rows.start) * (columns.stop - columns.start))


@dataclass(frozen=True)
class Segment:
    """Layers computed together: `layers`, from the activations of `start`, in tiles of side `tile`.

    strides: of `start` and of each layer, in positions of `start`. reach: how many of these to
    each side a layer depends on. grid: tiles begin at multiples of it, so that the compiled
    convolutions cut them up as they would the whole, and round alike. tile: of the core, in
    positions of `start`, a multiple of grid. wraps: what lies beyond a border is the opposite side.
    """

    start: str
    layers: tuple[str, ...]
    strides: dict[str, int]
    reach: int
    grid: int
    tile: int
    wraps: bool

    @property
    def halos(self) -> tuple[int, int]:
        """How wide the halo is before and behind a core."""
        step = max(self.strides.values())
        return -(-self.reach // self.grid) * self.grid, -(-self.reach // step) * step

    def tiles(self, start: Tensor) -> Iterator[dict[str, Part]]:
        """For each tile of a start [batch, C, height, width], its part of it and of every layer."""
        before, behind = self.halos
        height, width = size = start.shape[-2], start.shape[-1]
        for rows in _spans(height, self.tile, self.grid):
            for columns in _spans(width, self.tile, self.grid):
                core = rows, columns
                crop = tuple(
                    slice(span.start - before, span.stop + behind)
                    if self.wraps
                    else slice(max(0, span.start - before), min(end, span.stop + behind))
                    for span, end in zip(core, size, strict=True)
                )
                yield {
                    name: Part(
                        (height // stride, width // stride),
                        (_shrunk(crop[0], stride), _shrunk(crop[1], stride)),
                        (_shrunk(rows, stride), _shrunk(columns, stride)),
                    )
                    for name, stride in self.strides.items()
                }


def plan(
    encoder: Encoder,
    layers: Iterable[str],
    size: tuple[int, int],
    *,
    memory: float | None = None,
    tile: int | None = None,
    batch: int = 1,
) -> list[Segment] | None:
    """How to compute `layers` of pictures of (height, width) in `memory` bytes; none: as a whole.

    With `tile`, in tiles of about that side in pixels instead, whatever the memory. Where nothing
    fits, the most frugal way: `needed` tells what it takes.
    """
    wanted = {encoder.layer(name) for name in layers}
    if tile is None:
        if memory is None or needed(encoder, wanted, size, None, batch) <= memory:
            return None
        side = max(size)
        while True:
            side = max(_LEAST_TILE, int(side / 1.25))
            # What comes after the cut takes a ninth of the memory a pixel; halos are wider there.
            segments = _segments(encoder, wanted, side, deep=2 * side)
            if side == _LEAST_TILE or needed(encoder, wanted, size, segments, batch) <= memory:
                return segments
    return _segments(encoder, wanted, tile)


def sweep(
    encoder: Encoder,
    image: Tensor,
    segments: Sequence[Segment],
    visit: Callable[[str, Tensor, Part], None],
) -> dict[str, Tensor]:
    """Compute the layers of all segments without gradient, tile by tile.

    `visit` gets each layer's name, a crop of its activations and which part of the layer that is.
    Returns the start of every segment, whole.
    """
    starts = {IMAGE: image.detach()}
    padded = encoder.like(padding="zeros")
    with torch.no_grad():
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            start = starts[segment.start]
            for parts in segment.tiles(start):
                crop = parts[segment.start].crop_of(start)
                features = padded(crop, segment.layers, segment.start)
                del crop
                for name in segment.layers:
                    visit(name, features[name], parts[name])
                if following:
                    part, name = parts[following.start], following.start
                    if name not in starts:
                        starts[name] = whole_layer(encoder, name, part.size, image)
                    starts[name][(..., *part.core)] = part.core_of(features[name])
    return starts


def whole_layer(encoder: Encoder, name: str, size: tuple[int, int], like: Tensor) -> Tensor:
    """An uninitialised layer of (height, width), channels last, for as many pictures as `like`."""
    empty = like.new_empty(len(like), *size, encoder.channels(name))
    return empty.permute(0, 3, 1, 2)


def needed(
    encoder: Encoder,
    layers: Iterable[str],
    size: tuple[int, int],
    segments: Sequence[Segment] | None,
    batch: int = 1,
) -> float:
    """About how many bytes one evaluation takes, with all that stays: weights, image, gradient."""
    wanted = {encoder.layer(name) for name in layers}
    pixels = size[0] * size[1] * batch
    kept = encoder.held(wanted) + _BUFFERS + pixels * 6 * _FLOAT
    if segments is None:
        (whole,) = _segments(encoder, wanted, max(size), cut=False)
        return kept + pixels * _bytes_per_position(encoder, whole)
    most = 0.0
    for segment in segments:
        row = encoder.rows[segment.start]
        longest = segment.tile + segment.grid + sum(segment.halos)
        ends = (longest if segment.wraps else min(side // row.stride, longest) for side in size)
        area = batch
        for end in ends:
            area *= end
        most = max(most, area * _bytes_per_position(encoder, segment))
        if segment.start != IMAGE:
            kept += 2 * _FLOAT * row.channels * (pixels // row.stride**2)
    return kept + most


def _segments(
    encoder: Encoder, wanted: set[str], tile: int, *, deep: int | None = None, cut: bool = True
) -> list[Segment]:
    """Segments in tiles of so many pixels; `deep` for what comes after the cut."""
    order = encoder.layers
    last = max(order.index(name) for name in wanted)
    starts = [IMAGE]
    if cut and encoder.cut in order[:last]:
        starts.append(encoder.cut)
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


def _segment(encoder: Encoder, start: str, layers: Sequence[str], tile: int) -> Segment:
    first, last = encoder.rows[start], encoder.deepest(layers)
    run = encoder.table[encoder.table.index(first) : encoder.table.index(last) + 1]
    # Losses on the image itself look at the neighbours of a pixel.
    reach = (last.halo - first.halo) // first.stride + int(start == IMAGE)
    grid = last.stride // first.stride
    for before, row in itertools.pairwise(run):
        if row.halo > before.halo:  # a convolution
            grid = max(grid, ops.GRID * before.stride // first.stride)
    side = max(1, tile // first.stride // grid) * grid
    strides = {row.name: row.stride // first.stride for row in run if row.name in (start, *layers)}
    wraps = encoder.padding == "circular"
    return Segment(start, tuple(layers), strides, reach, grid, side, wraps)


def _bytes_per_position(encoder: Encoder, segment: Segment) -> float:
    """What evaluating a segment takes for each position of its start.

    All activations that the gradient needs, and three of its own largest.
    """
    first, last = encoder.rows[segment.start], encoder.deepest(segment.layers)
    run = encoder.table[encoder.table.index(first) : encoder.table.index(last) + 1]
    values, largest = 0.0, first.channels
    for before, row in itertools.pairwise(run):
        if (row.channels, row.stride, row.halo) != (before.channels, before.stride, before.halo):
            share = row.channels / (row.stride // first.stride) ** 2
            values += share
            largest = max(largest, int(share))
    return _FLOAT * (values + 3 * largest)


def _spans(length: int, tile: int, grid: int) -> list[slice]:
    """`length` in equal spans of about `tile` that begin at multiples of grid."""
    count = max(1, round(length / tile))
    starts = sorted({length * n // count // grid * grid for n in range(count)})
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], length], strict=True)]


def _shrunk(span: slice, stride: int) -> slice:
    return slice(span.start // stride, span.stop // stride)
