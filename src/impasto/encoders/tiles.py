"""How to compute a picture that does not fit into memory: segments of the encoder, cut into tiles.

A *segment* is a run of layers that are computed together, from the activations of one layer to
those of another. A *tile* is a part of a segment's input: a *core*, for whose positions the tile
gives results, and a *halo* around it, as wide as these results depend on. Tiles begin at multiples
of the segment's stride, so each computes exactly the positions that the whole would have. At the
picture's border a tile has the encoder's own zero padding; at its other sides, padding spoils only
the halo. With circular padding there is no border: halos continue at the opposite side.

All of this is read off the encoder's table of layers; no layer is known by name here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.encoders.base import IMAGE, Encoder, Layer, averaged, shrunk
from impasto.kernels import ops

_FLOAT = 4
_BUFFERS = 64 * 2**20  # for the threads of the kernels, and other small things
_TORCH = 128 * 2**20  # for torch's convolutions, which compile themselves for every size
_AT_ONCE = 3, 5  # tensors like the largest, beside those that are kept: in kernels, in torch
_COPIES = 3  # of each layer that is read, if it is smoothed or put together from several looks
_LEAST_TILE = 64

Spans = tuple[slice, slice]
"""(rows, columns) of a layer."""


@dataclass(frozen=True)
class Part:
    """A part of a layer of (height, width): a tensor holds its `crop`, but only the `core` counts.

    A crop may reach beyond the layer, where it continues at the opposite side.
    """

    size: tuple[int, int]
    crop: Spans
    core: Spans

    @classmethod
    def whole(cls, features: Tensor) -> Part:
        """All of a layer [batch, channels, height, width]."""
        height, width = features.shape[-2:]
        everything = slice(0, height), slice(0, width)
        return cls((height, width), everything, everything)

    def shrunk(self, stride: int, rounds_up: bool = False) -> Part:
        """The same part of a layer whose stride is `stride` times as large; see `Layer`."""
        height, width = (shrunk(side, stride, rounds_up) for side in self.size)
        crop, core = (_shrunk(each, stride, rounds_up) for each in (self.crop, self.core))
        return Part((height, width), crop, core)

    def averaged(self, crop: Tensor, side: int, rounds_up: bool = False) -> tuple[Tensor, Part]:
        """The core of a crop, averaged over squares of `side` positions, and which part that is.

        The core begins at a multiple of `side`. Squares that reach beyond the layer are dropped, or
        averaged as far as they are within it if it `rounds_up`.
        """
        if side == 1:
            return crop, self
        core, coarser = self.core_of(crop), self.shrunk(side, rounds_up)
        averages = averaged(core, side, rounds_up)
        return averages, Part(coarser.size, coarser.core, coarser.core)

    def core_of(self, crop: Tensor) -> Tensor:
        return crop if self.core == self.crop else crop[(..., *self.core_in_crop)]

    def crop_of(self, layer: Tensor) -> Tensor:
        spans = list(zip(self.crop, self.size, strict=True))
        if all(span.start >= 0 and span.stop <= side for span, side in spans):
            return layer[(..., *self.crop)]
        rows, columns = (
            torch.arange(span.start, span.stop, device=layer.device) % side for span, side in spans
        )
        return layer[..., rows[:, None], columns].contiguous(memory_format=torch.channels_last)

    @property
    def core_in_crop(self) -> Spans:
        """The core as slices of the crop."""
        rows, columns = (
            slice(core.start - crop.start, core.stop - crop.start)
            for core, crop in zip(self.core, self.crop, strict=True)
        )
        return rows, columns

    @property
    def positions(self) -> int:
        """How many positions the core has."""
        return math.prod(span.stop - span.start for span in self.core)


class Segment:
    """Layers computed together: `layers`, from the activations of `start`, in tiles.

    Lengths are in positions of the start. rows: the encoder's table from the start to the last
    layer. strides: of each row. tile: the side of a core. grid: tiles begin at multiples of it, so
    that the compiled convolutions cut them up as they would the whole, and round alike. halos: the
    halo's widths before and behind a core. wraps: at a border, the picture continues with its
    opposite side.
    """

    def __init__(self, rows: Sequence[Layer], layers: list[str], side: int, wraps: bool) -> None:
        self.rows, self.layers, self.wraps = rows, layers, wraps
        first, last = rows[0], rows[-1]
        self.start = first.name
        self.strides = {row.name: row.stride // first.stride for row in rows}
        step = last.stride // first.stride
        convolved = [a.stride for a, b in itertools.pairwise(rows) if b.halo > a.halo]
        self.grid = max([step, ops.GRID, *(ops.GRID * n // first.stride for n in convolved)])
        self.tile = max(1, side // first.stride // self.grid) * self.grid
        # Losses on the image itself look at the neighbours of a pixel.
        reach = (last.halo - first.halo) // first.stride + int(first.name == IMAGE)
        self.halos = -(-reach // self.grid) * self.grid, -(-reach // step) * step

    def tiles(self, start: Tensor) -> Iterator[dict[str, Part]]:
        """For each tile of a start [batch, C, height, width], its part of every row's layer."""
        before, behind = self.halos

        def crop(core: slice, side: int) -> slice:
            first, stop = core.start - before, core.stop + behind
            return slice(first, stop) if self.wraps else slice(max(0, first), min(side, stop))

        height, width = start.shape[-2:]
        for rows in _spans(height, self.tile, self.grid):
            for columns in _spans(width, self.tile, self.grid):
                crops = crop(rows, height), crop(columns, width)
                part = Part((height, width), crops, (rows, columns))
                up = self.rows[0].rounds_up
                yield {name: part.shrunk(stride, up) for name, stride in self.strides.items()}

    def longest(self, side: int) -> int:
        """The length of the longest crop along a side of the start, with some to spare."""
        core: int = max(span.stop - span.start for span in _spans(side, self.tile, self.grid))
        length = core + self.grid + sum(self.halos)
        return length if self.wraps else min(side, length)


def plan(
    encoder: Encoder,
    layers: Iterable[str],
    size: tuple[int, int],
    *,
    memory: float | None = None,
    tile: int | None = None,
    batch: int = 1,
) -> list[Segment] | None:
    """Segments to compute `layers` of pictures of (height, width); None: compute them as a whole.

    They fit into `memory` bytes if possible; if not, they have the smallest tiles, and `needed`
    tells what these take. `tile` asks for tiles of about that side in pixels, whatever the memory.
    """
    wanted = {encoder.layer(name) for name in layers}
    if tile is not None:
        return _segments(encoder, wanted, tile, tile)
    if memory is None or needed(encoder, wanted, size, None, batch) <= memory:
        return None
    side = max(size)
    while True:
        side = max(_LEAST_TILE, int(side / 1.25))
        # After the cut, a pixel takes a ninth of the memory, and halos are wider.
        segments = _segments(encoder, wanted, side, 2 * side)
        if side == _LEAST_TILE or needed(encoder, wanted, size, segments, batch) <= memory:
            return segments


def sweep(
    encoder: Encoder,
    image: Tensor,
    segments: Sequence[Segment],
    visit: Callable[[str, Tensor, Part], None],
) -> dict[str, Tensor]:
    """Compute the layers of all segments without gradient, tile by tile.

    `visit` gets each layer's name, a crop of its activations, and which part of the layer that is.
    Returns the whole start of every segment, by name.
    """
    starts = {IMAGE: image.detach()}
    padded = encoder.like(padding="zeros")
    with torch.no_grad():
        for segment, following in zip(segments, [*segments[1:], None], strict=True):
            start = starts[segment.start]
            for parts in segment.tiles(start):
                crop = parts[segment.start].crop_of(start)
                whole = parts[segment.start].size
                features = padded(crop, segment.layers, segment.start, whole)
                del crop
                for name in segment.layers:
                    visit(name, features[name], parts[name])
                    if following and name == following.start:
                        put(starts, name, features[name], parts[name])
    return starts


def put(layers: dict[str, Tensor], name: str, crop: Tensor, part: Part) -> None:
    """Put the core of a crop into the whole layer (channels last), which the first call makes."""
    if name not in layers:
        whole = crop.new_empty(len(crop), *part.size, crop.shape[1])
        layers[name] = whole.permute(0, 3, 1, 2)
    layers[name][(..., *part.core)] = part.core_of(crop)


def needed(
    encoder: Encoder,
    layers: Collection[str],
    size: tuple[int, int],
    segments: Sequence[Segment] | None,
    batch: int = 1,
) -> float:
    """About how many bytes one evaluation takes, including weights, image and gradient."""
    pixels = size[0] * size[1] * batch
    wanted = {encoder.layer(name) for name in layers}
    ours, among = encoder.compiled
    by_torch = not 0 < ours == among
    kept = encoder.held(layers) + _BUFFERS + by_torch * _TORCH + pixels * 6 * _FLOAT
    if segments is None:
        rows = encoder.run(IMAGE, encoder.deepest(layers).name)
        return kept + pixels * _bytes_of(encoder, rows, wanted, _AT_ONCE[by_torch])
    most = 0.0
    for segment in segments:
        row = segment.rows[0]
        own = [row.positions(side) for side in size]
        positions = math.prod(map(segment.longest, own))
        each = _bytes_of(encoder, segment.rows, wanted, _AT_ONCE[by_torch])
        most = max(most, batch * positions * each)
        if row.name != IMAGE:
            kept += 2 * _FLOAT * row.channels * batch * math.prod(own)
    return kept + most


def _segments(encoder: Encoder, wanted: set[str], side: int, deep: int) -> list[Segment]:
    """Segments in tiles of `side` pixels before the cut, and of `deep` pixels after it."""
    ends = [IMAGE, encoder.deepest(wanted).name]
    if encoder.cut in encoder.layers[: encoder.layers.index(ends[1])]:
        ends.insert(1, encoder.cut)
    segments = []
    for start, end in itertools.pairwise(ends):
        rows = encoder.run(start, end)
        found = rows if start == IMAGE else rows[1:]  # the image itself may be wanted
        layers = [row.name for row in found if row.name in {*wanted, end}]
        tile = side if start == IMAGE else deep
        segments.append(Segment(rows, layers, tile, encoder.padding == "circular"))
    return segments


def _bytes_of(
    encoder: Encoder, rows: Sequence[Layer], wanted: Collection[str], at_once: int
) -> float:
    """Bytes for each position of the first layer, if losses read the layers `wanted`."""
    read = sum(
        row.channels * (rows[0].stride / row.stride) ** 2 for row in rows if row.name in wanted
    )
    copies = _COPIES if encoder.smoothing or encoder.looks > 1 else 0
    # Looks are done one after the other.
    return _bytes_per_position(rows, at_once) / encoder.looks**2 + copies * _FLOAT * read


def _bytes_per_position(rows: Sequence[Layer], at_once: int) -> float:
    """Bytes for each position of the first layer: all activations, and the largest `at_once`."""
    shares = [
        row.channels / (row.stride // rows[0].stride) ** 2
        for before, row in itertools.pairwise(rows)
        if (row.channels, row.stride, row.halo) != (before.channels, before.stride, before.halo)
    ]
    return _FLOAT * (sum(shares) + at_once * max([rows[0].channels, *map(int, shares)]))


def _spans(length: int, tile: int, grid: int) -> list[slice]:
    """Cut `length` into about equal spans of about `tile` that begin at multiples of `grid`."""
    count = max(1, round(length / tile))
    starts = sorted({length * n // count // grid * grid for n in range(count)})
    return [slice(a, b) for a, b in itertools.pairwise([*starts, length])]


def _shrunk(spans: Spans, stride: int, rounds_up: bool) -> Spans:
    rows, columns = (
        slice(span.start // stride, shrunk(span.stop, stride, rounds_up)) for span in spans
    )
    return rows, columns
