"""Style by neighbours: every place of a picture gets the features of a similar place of a painting.

Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich 2022, "Neural Neighbor Style Transfer"
(arXiv:2203.13215), NNST-Opt. A *place* is a square of `SPACING` pixels. Its *hypercolumn* h holds
the activations of several layers there, each divided by its number of channels. For the place i of
the picture,

    n(i) = argmax over the painting's places j of  cos(h_i, h_j)                          (1)

is its nearest neighbour in the painting, which also counts turned by 90, 180 and 270 degrees. h_i
is `PHOTO` of the photo's hypercolumn and the rest of the picture's as it is when the search begins.
The photo's mean is subtracted from its own hypercolumns, the painting's from all others.
Then the picture is moved to lower

    mean over layers and places i of  1 - cos(f_i, f_n(i))                                (2)

where f are the activations of one layer. The targets f_n(i) stay the same meanwhile. With *feature
splitting*, every layer has neighbours of its own, of the picture alone: it makes the strokes, and
forgets the photo.

Departures from the paper:

- (2) has a cosine for each layer, not one for the hypercolumn. So it is a sum over the positions
  of single layers, and exact in tiles. One layer of each block is enough.
- A cosine does not see how large activations are, and contrast would run away. The paper mends the
  colours of the finished picture. Here a second loss, `MomentsLoss`, holds mean and spread of every
  channel while painting.
- (1) is searched among the `DIRECTIONS` in which the painting's hypercolumns vary most, and in
  pictures that are too large for all pairs from coarse to fine, see `nearest_on_grid`.
- Activations are averaged over a place; the paper samples them. The painting is mirrored beyond its
  border, so that no place of it sees the encoder's zero padding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import device
from impasto.encoders.base import Layer, averaged, shrunk
from impasto.encoders.tiles import Part
from impasto.errors import ImpastoError
from impasto.kernels import ops
from impasto.losses.base import Loss, SumLoss, exact_sum
from impasto.losses.distributions import BatchNorm
from impasto.losses.matching import divided, nearest_on_grid
from impasto.losses.styles import LEAST_AREA, Exemplar, Measure, Paintings, Shares
from impasto.pictures import images
from impasto.settings import Scaling

SPACING = 4
"""Pixels from one place to the next."""

PHOTO = 0.75
"""The photo's share in what neighbours are searched for; the rest is the picture so far."""

DIRECTIONS = 128
"""Neighbours are searched along this many directions of hypercolumns; of single layers, half."""

MOMENTS = 1.0
"""The weight of means and spreads, relative to that of the neighbours."""

TURNS = 4
"""The painting is searched as it is, and turned by 90, 180 and 270 degrees."""

_MOMENTS = BatchNorm()
_SAMPLES = 8192  # places from which the directions are found
_AT_ONCE = 2**14  # places
_SILENT = 1e-4  # of a target's mean square: weaker activations have hardly a direction

Features = Mapping[str, Tensor]
Look = Callable[[Tensor, Mapping[str, int]], Features]
"""Measures an image: the activations of layers, averaged over squares of so many positions."""


@dataclass(frozen=True)
class NeighborLoss(SumLoss):
    """The mean over places of 1 - cos(f, target), equation (2) for one layer.

    target: [1 or batch, C, height, width], for squares of `side` x `side` positions, over which f
    is averaged. Each is a mean of vectors of length 1, times the weight of its place; `counted` is
    the mean weight. floor: is added to |f|^2, so that the slope is bounded where nothing is active.
    rounds_up: see `Layer`.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    side: int = 1
    counted: float = 1.0
    floor: float = 1e-6
    rounds_up: bool = False

    @property
    def name(self) -> str:
        return f"neighbors {self.layer}"

    def sums(self, features: Tensor, part: Part) -> Tensor:
        own, places = _averaged(features, part, self.side, self.rounds_up)
        target = self.target[(..., *places.core)].to(own)
        lengths = (own.square().sum(1) + self.floor).sqrt()
        return exact_sum((own * target).sum(1) / lengths)

    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor:
        return self.counted - sums / max(1, _count(shape, self.side, self.rounds_up))


@dataclass(frozen=True)
class MomentsLoss(SumLoss):
    """Mean and spread of every channel: |E[x] - E[y]|^2 + |s_x - s_y|^2, relative.

    As `distributions.BatchNorm`, but of activations that are averaged over squares of `side` x
    `side` positions. target: E[y] and E[y^2], [1 or batch, 2, C]. area: how much each square
    counts, [1 or batch, 1, height, width]; None: all count alike. region: the area's name.
    rounds_up: see `Layer`.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    side: int = 1
    area: Tensor | None = None
    region: str = ""
    rounds_up: bool = False

    @property
    def name(self) -> str:
        return f"moments {self.layer}" + (f" in {self.region}" if self.region else "")

    def sums(self, features: Tensor, part: Part) -> Tensor:
        own, places = _averaged(features, part, self.side, self.rounds_up)
        area = None if self.area is None else self.area[(..., *places.core)].to(own)
        return places.positions * _MOMENTS.moments(own, area).cpu().double()

    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor:
        count = _count(shape, self.side, self.rounds_up)
        if self.area is not None:
            sums = sums / self.area.cpu().double().mean((1, 2, 3)).view(-1, 1, 1)
        return _MOMENTS.distance(sums / count, self.target)


def _count(shape: tuple[int, int, int], side: int, rounds_up: bool) -> int:
    """How many squares of `side` positions a layer of (channels, height, width) has."""
    _, height, width = shape
    return shrunk(height, side, rounds_up) * shrunk(width, side, rounds_up)


def _averaged(features: Tensor, part: Part, side: int, rounds_up: bool) -> tuple[Tensor, Part]:
    """See `Part.averaged`; with the compiled kernels where they can do it."""
    fits = ops.suits(features) and not features.shape[1] % 64 and not rounds_up
    if side in (2, 4) and fits:
        core = part.core_of(features).contiguous(memory_format=torch.channels_last)
        for _ in range(side // 2):
            core = ops.average_pool(core)
        return core, part.shrunk(side)
    own, places = part.averaged(features, side, rounds_up)
    return places.core_of(own), places


class Where(NamedTuple):
    """A part of the picture, and the paintings that it takes its style from.

    weights: how much each pixel counts, [1, 1, height, width] in 0..1; None: all count fully. name:
    what its losses are called by.
    """

    paintings: Paintings
    weights: Tensor | None = None
    name: str = ""


@dataclass(frozen=True)
class Neighbors:
    """The style loss by neighbours. It needs a photo, so its losses are made by `losses`."""

    name = "neighbors"

    def losses(
        self, measure: Measure, paintings: Paintings, shares: Shares, scaling: Scaling = "relative"
    ) -> Sequence[Loss]:
        """Raises an `ImpastoError`: there is no photo."""
        del measure, paintings, shares, scaling
        raise ImpastoError(
            "the style loss 'neighbors' looks for a place of the painting for every place of a "
            "photo, and there is no photo here; choose another style loss"
        )


def losses(
    look: Look,
    rows: Mapping[str, Layer],
    shares: Shares,
    where: Sequence[Where],
    picture: Tensor,
    photo: Tensor,
    *,
    split: bool = False,
    kept: float = 0.0,
    remembers: bool = True,
) -> list[NeighborLoss | MomentsLoss]:
    """Find neighbours, and make the losses that draw a picture to them.

    The weights of the `NeighborLoss`es sum up to 1.

    Args:
        look: measures images.
        rows: the encoder's table, by layer.
        shares: the layers, with the shares of their losses.
        where: the parts of the picture, with their paintings.
        picture: the picture so far, [1, channels, height, width].
        photo: the photo at the same size.
        split: find neighbours for every layer by itself, and without the photo.
        kept: the share of the photo's own activations in the targets.
        remembers: keep the paintings' activations in all turns until the end of the search. It
            takes memory; otherwise they are measured again and again.
    """
    read = {layer: rows[layer] for layer in shares}
    border = border_of([*read.values()])
    strides = {layer: row.stride for layer, row in read.items()}
    paintings = _Paintings(look, strides, border, remembers)
    total = sum(shares.values())
    found: list[NeighborLoss | MomentsLoss] = []
    for layers in [[layer] for layer in shares] if split else [[*shares]]:
        search = _Search(paintings, {layer: read[layer] for layer in layers})
        found += search.losses(where, picture, None if split else photo)
    if kept:
        found = [_kept(loss, look, photo, kept, where, read[loss.layer]) for loss in found]
    return [replace(loss, weight=loss.weight * shares[loss.layer] / total) for loss in found]


def _kept(
    loss: NeighborLoss | MomentsLoss,
    look: Look,
    photo: Tensor,
    kept: float,
    where: Sequence[Where],
    row: Layer,
) -> NeighborLoss | MomentsLoss:
    """A loss that pulls to the photo as well, by the share `kept`; row: its layer."""
    if isinstance(loss, MomentsLoss):
        return replace(loss, weight=loss.weight * (1 - kept))
    (own,) = look(photo, {loss.layer: loss.side}).values()
    pixels = max(SPACING, row.stride)
    weights = [
        averaged(part.weights, pixels, row.rounds_up) for part in where if part.weights is not None
    ]
    seen = torch.stack(weights).sum(0) if weights else 1.0
    target = (1 - kept) * loss.target + kept * seen * _unit(own, 1)
    return replace(loss, target=target.to(loss.target))


def bytes_a_pixel(layers: Iterable[Layer]) -> float:
    """What the activations of an image take, averaged over places, for each pixel."""
    return sum(4 * row.channels / max(SPACING, row.stride) ** 2 for row in layers)


def kept_bytes_a_pixel(layers: Iterable[Layer]) -> float:
    """What the targets of a picture take, for each pixel."""
    return bytes_a_pixel(layers) / 2


def searching_bytes_a_pixel(layers: Iterable[Layer]) -> float:
    """What a search takes for each pixel.

    Activations; queries, keys, a copy of each and a term of a sum; three images.
    """
    return bytes_a_pixel(layers) + 5 * 4 * DIRECTIONS / SPACING**2 + 3 * 12


def border_of(layers: Sequence[Layer]) -> int:
    """How many pixels of its mirror image a painting needs, so that no place sees zero padding."""
    unit = math.lcm(SPACING, *(row.stride for row in layers))
    return -(-max(row.halo for row in layers) // unit) * unit


class _Paintings:
    """Measures paintings in all turns, with a mirrored `border`, and may remember what it saw."""

    def __init__(
        self, look: Look, strides: Mapping[str, int], border: int, remembers: bool
    ) -> None:
        self.look, self.strides = look, strides
        self.border, self.remembers = border, remembers
        self.known: dict[tuple[int, int], Features] = {}

    def __call__(self, painting: Exemplar, turn: int, layers: Collection[str]) -> Features:
        """The activations of a turned painting [1, C, rows, columns], averaged over places."""
        key = id(painting.image), turn
        found = self.known.get(key)
        if found is None:
            sides = {layer: _side(self.strides[layer]) for layer in self.strides}
            if not self.remembers:
                sides = {layer: sides[layer] for layer in layers}
            image = images.mirrored(_turned(painting.image, turn), self.border)
            found = {
                layer: _inside(x, self.border // max(SPACING, self.strides[layer]))
                for layer, x in self.look(image, sides).items()
            }
            if self.remembers:
                self.known[key] = found
        return {layer: found[layer] for layer in layers}


class _Search:
    """Finds neighbours by the hypercolumns of some layers: one for each square of `spacing` pixels.

    rows: the layers of the encoder's table, by name.
    """

    def __init__(self, paintings: _Paintings, rows: Mapping[str, Layer]) -> None:
        self.paintings, self.layers = paintings, [*rows]
        strides = {layer: row.stride for layer, row in rows.items()}
        self.rounds_up = any(row.rounds_up for row in rows.values())
        self.channels: dict[str, int] = {}
        self.directions = DIRECTIONS if len(strides) > 1 else DIRECTIONS // 2
        self.spacing = max(SPACING, min(strides.values()))
        # How many squares lie along the side of a position of the layer.
        self.across = {layer: max(1, stride // self.spacing) for layer, stride in strides.items()}
        self.finest = min(strides, key=lambda layer: strides[layer])
        self.sides = {layer: _side(stride) for layer, stride in strides.items()}

    def losses(
        self, where: Sequence[Where], picture: Tensor, photo: Tensor | None
    ) -> Iterator[NeighborLoss | MomentsLoss]:
        """The losses of each layer."""
        targets: dict[str, Tensor] = {}
        counted, floors = (dict.fromkeys(self.layers, 0.0) for _ in range(2))
        for part in where:
            directions = _Directions.of(self, part.paintings)
            features = self.paintings.look(picture, self.sides)
            shapes = {layer: x.shape for layer, x in features.items()}
            queries = directions.along(features, directions.means)
            if photo is not None:
                del features  # large, as are those of the photo
                features = self.paintings.look(photo, self.sides)
                means = {
                    layer: self._weighted_mean(x, part.weights, self.pixels(layer))
                    for layer, x in features.items()
                }
                queries.mul_(1 - PHOTO).add_(directions.along(features, means), alpha=PHOTO)
            del features
            weights = self._weights(part, queries)
            device.give_back()  # what was measured and is gone, before more is measured
            chosen = self._chosen(part.paintings, directions, queries, weights)
            del queries
            device.give_back()
            targets = targets or _empty(shapes, picture)
            self._put(part.paintings, chosen, weights, targets)
            for layer, moments in self._moments(part.paintings).items():
                area, seen = None, 1.0
                if part.weights is not None:
                    area = self._squares(part.weights, self.pixels(layer))
                    seen = area.mean().item()
                counted[layer] += seen
                floors[layer] += seen * _SILENT * moments[0, 1].sum().item()
                if seen >= LEAST_AREA:
                    weight, side = seen * MOMENTS, self.sides[layer]
                    yield MomentsLoss(layer, moments, weight, side, area, part.name, self.rounds_up)
        for layer, target in targets.items():
            floor = max(1e-6, floors[layer] / max(counted[layer], 1e-6))
            side, seen = self.sides[layer], counted[layer]
            yield NeighborLoss(layer, target, 1.0, side, seen, floor, self.rounds_up)

    def _squares(self, mask: Tensor, pixels: int) -> Tensor:
        """A mask of pixels averaged over squares, as many as the layers have."""
        return averaged(mask, pixels, self.rounds_up)

    def pixels(self, layer: str) -> int:
        """Along the side of a position of the layer, averaged over places."""
        return self.spacing * self.across[layer]

    def _moments(self, paintings: Paintings) -> dict[str, Tensor]:
        """E[f] and E[f^2] of each layer, [1, 2, C], averaged by the paintings' shares.

        With the encoder's zero padding, which is also around the picture.
        """
        total = dict.fromkeys(self.layers, torch.zeros((), dtype=torch.float32))
        for image, share, visible in paintings:
            for layer, x in self.paintings.look(image, self.sides).items():
                weights = None
                if visible is not None:
                    weights = self._squares(visible, self.pixels(layer))
                    weights = weights / weights.mean().clamp_min(1e-6)
                total[layer] = total[layer].to(x) + share * _MOMENTS.moments(x, weights)
        return total

    def samples(self, painting: Exemplar, turn: int) -> Tensor:
        """The hypercolumns of some places, evenly spaced, [n, channels]."""
        features = self.paintings(painting, turn, self.layers)
        self.channels = {layer: x.shape[1] for layer, x in features.items()}
        height, width = features[self.finest].shape[-2:]
        seen = torch.ones(height, width, dtype=torch.bool, device=painting.image.device)
        if (hidden := self._hidden(painting, turn)) is not None:
            seen &= ~hidden
        rows, columns = seen.nonzero(as_tuple=True)
        some = slice(None, None, -(-len(rows) // _SAMPLES))
        rows, columns = rows[some], columns[some]
        return torch.cat(
            [
                _sampled(x[0], rows, columns, self.across[layer]) / x.shape[1]
                for layer, x in features.items()
            ],
            1,
        )

    def _weighted_mean(self, x: Tensor, weights: Tensor | None, pixels: int) -> Tensor:
        """The mean of features [1, C, rows, columns] over squares of so many pixels, [C]."""
        if weights is None:
            return x.mean((0, 2, 3))
        counts = self._squares(weights, pixels)
        return (x * counts).sum((0, 2, 3)) / counts.sum().clamp_min(1e-6)

    def _weights(self, part: Where, like: Tensor) -> Tensor:
        """How much each square of the picture counts, [rows, columns]."""
        if part.weights is None:
            return torch.ones_like(like[..., 0])
        return self._squares(part.weights, self.spacing)[0, 0]

    def _chosen(
        self, paintings: Paintings, directions: _Directions, queries: Tensor, weights: Tensor
    ) -> Tensor:
        """The neighbour of each square: [3, rows, columns], its painting, turn and place."""
        queries = _unit(queries, -1)
        likeness, found = [], []
        for number, painting in enumerate(paintings):
            best = torch.full_like(queries[..., 0], -torch.inf)
            neighbors = torch.zeros(3, *best.shape, dtype=torch.long, device=best.device)
            for turn in range(TURNS):
                features = self.paintings(painting, turn, self.layers)
                keys = _unit(directions.along(features, directions.means), -1)
                del features  # large
                hidden = self._hidden(painting, turn)
                cosines, places = nearest_on_grid(queries, keys, hidden)
                del keys
                values = torch.tensor([number, turn, 0], device=best.device)[:, None, None]
                this = values.expand(3, *best.shape).clone()
                this[2] = places
                neighbors = this.where(cosines > best, neighbors)
                best = best.maximum(cosines)
            likeness.append(best)
            found.append(neighbors)
        shares = [painting.share for painting in paintings]
        which = divided(torch.stack(likeness), shares, weights > 0)
        chosen = found[0]
        for number, neighbors in enumerate(found[1:], 1):
            chosen = neighbors.where(which == number, chosen)
        return chosen

    def _hidden(self, painting: Exemplar, turn: int) -> Tensor | None:
        """Where a turned painting is transparent, [rows, columns]; None: nowhere."""
        if painting.visible is None:
            return None
        visible = self._squares(_turned(painting.visible, turn), self.spacing)[0, 0]
        return visible < min(0.5, visible.max().item())

    def _put(
        self, paintings: Paintings, chosen: Tensor, weights: Tensor, found: Mapping[str, Tensor]
    ) -> None:
        """Add the neighbours' activations to the targets."""
        for (number, painting), turn in itertools.product(enumerate(paintings), range(TURNS)):
            taken = (chosen[0] == number) & (chosen[1] == turn) & (weights > 0)
            if not taken.any():
                continue
            features = self.paintings(painting, turn, self.layers)
            columns = features[self.finest].shape[-1]
            for layer, across in self.across.items():
                cells = found[layer][0].permute(1, 2, 0)
                height, width = cells.shape[:2]
                for first in itertools.product(range(across), repeat=2):
                    # One square of every position of the layer.
                    part = tuple(slice(start, None, across) for start in first)
                    rows, cols = taken[part][:height, :width].nonzero(as_tuple=True)
                    at, factors = (each[part][rows, cols] for each in (chosen[2], weights))
                    for some in torch.split(torch.arange(len(rows), device=rows.device), _AT_ONCE):
                        place = at[some] // columns, at[some] % columns
                        values = _unit(_sampled(features[layer][0], *place, across), -1)
                        squares = _squares_of(chosen.shape[1], rows[some], across)
                        squares = squares * _squares_of(chosen.shape[2], cols[some], across)
                        values *= (factors[some] / squares)[:, None]
                        cells[rows[some], cols[some]] += values.to(cells)


@dataclass(frozen=True)
class _Directions:
    """The directions in which the hypercolumns of paintings vary most, and what is measured there.

    finest: the layer whose positions are the places. axes: for each layer, [C, directions]. means:
    the mean activations of each layer, [C].
    """

    finest: str
    axes: dict[str, Tensor]
    means: dict[str, Tensor]

    @classmethod
    def of(cls, search: _Search, paintings: Paintings) -> _Directions:
        total = torch.zeros((), dtype=torch.float64, device="cpu")
        for painting, turn in itertools.product(paintings, range(2)):  # upright and across
            samples = search.samples(painting, turn).cpu()
            for some in torch.split(samples, 1024):
                both = F.pad(some.double(), (0, 1), value=1.0)
                total = total + painting.share / 2 / len(samples) * (both.T @ both)
        second, mean = total[:-1, :-1], total[-1, :-1]
        _, vectors = torch.linalg.eigh(second - torch.outer(mean, mean))
        like, channels = paintings[0].image, search.channels
        counts = [*channels.values()]
        axes, means = (torch.split(x, counts) for x in (vectors[:, -search.directions :], mean))
        return cls(
            search.finest,
            {n: (x / channels[n]).to(like) for n, x in zip(channels, axes, strict=True)},
            {n: (x * channels[n]).to(like) for n, x in zip(channels, means, strict=True)},
        )

    def along(self, features: Features, means: Features) -> Tensor:
        """Hypercolumns minus these means along the directions, [rows, columns, directions]."""
        size = features[self.finest].shape[-2:]
        total: Tensor | None = None
        for layer, axes in self.axes.items():
            x = (features[layer][0].permute(1, 2, 0) - means[layer]) @ axes
            if x.shape[:2] != size:
                grid = x.permute(2, 0, 1)[None]
                grid = F.interpolate(grid, size, mode="bilinear", align_corners=False)
                x = grid[0].permute(1, 2, 0)
            total = x.contiguous() if total is None else total.add_(x)
        assert total is not None
        return total


def _side(stride: int) -> int:
    """How many positions of a layer lie along the side of a place."""
    return max(1, SPACING // stride)


def _empty(shapes: Mapping[str, torch.Size], like: Tensor) -> dict[str, Tensor]:
    """Targets [1, C, rows, columns] of nothing, channels last, in half precision."""
    return {
        layer: like.new_zeros(1, height, width, channels, dtype=torch.float16).permute(0, 3, 1, 2)
        for layer, (_, channels, height, width) in shapes.items()
    }


def _turned(image: Tensor, turn: int) -> Tensor:
    return torch.rot90(image, turn, (2, 3))


def _inside(x: Tensor, border: int) -> Tensor:
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def _squares_of(length: int, positions: Tensor, across: int) -> Tensor:
    """How many of the squares along the side of these positions are within the picture."""
    return (length - across * positions).clamp_max(across)


def _unit(x: Tensor, dim: int) -> Tensor:
    return F.normalize(x, dim=dim, eps=1e-8)


def _sampled(features: Tensor, rows: Tensor, columns: Tensor, across: int) -> Tensor:
    """Features [C, rows, columns] at the positions that hold these squares, [n, C]."""
    height, width = features.shape[1:]
    rows, columns = (rows // across).clamp_max(height - 1), (columns // across).clamp_max(width - 1)
    return features.permute(1, 2, 0)[rows, columns]
