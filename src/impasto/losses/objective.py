"""Encoder, losses and targets as one function: images -> loss, gradient and parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from impasto import device as machine
from impasto.device import ordinary, recordable
from impasto.encoders.base import Encoder
from impasto.encoders.tiles import Part, Segment, plan, put, sweep
from impasto.errors import ImpastoError
from impasto.kernels import ops
from impasto.losses.base import Loss, SumLoss
from impasto.losses.styles import Statistic
from impasto.optimise.base import Evaluation


class Objective:
    """The weighted sum of losses over the layers of an encoder: Gatys et al. 2015, eq. 7.

    Calling it with images [batch, 3, height, width] in 0..1 (1 channel if grey) gives an
    `Evaluation`: the loss of each, their sum, and the gradient for all, from a single computation.
    Targets and areas of the losses have an entry for each image, or one for all.

    Tiles give the same result, not an approximation: losses depend on the whole picture only
    through sums over positions. A first pass over the tiles adds up these sums, the derivative with
    respect to them is taken once, and a second pass carries it back to the pixels.

    Args:
        encoder: the network.
        losses: the terms.
        memory: how many bytes an evaluation may take, with weights and targets; images that need
            more are computed in tiles. None for no bound.
        tile: compute in tiles of about this many pixels a side, whatever the memory.

    Raises:
        ImpastoError: there are no losses, two share a name, or a layer does not exist; when called,
            a loss that would be computed in tiles is no `SumLoss`, or a loss has targets for
            another number of images.
    """

    def __init__(
        self,
        encoder: Encoder,
        losses: Sequence[Loss],
        *,
        memory: float | None = None,
        tile: int | None = None,
    ) -> None:
        if not losses:
            raise ImpastoError("an objective needs at least one loss; give it content or style")
        self.encoder = encoder
        self.losses = tuple(losses)
        self.layers = {loss.name: [encoder.layer(name) for name in loss.layers] for loss in losses}
        if len(self.layers) < len(losses):
            names = ", ".join(loss.name for loss in losses)
            raise ImpastoError(f"two losses of an objective share a name: {names}")
        self.read = {layer for layers in self.layers.values() for layer in layers}
        self.tile = tile
        targets = [getattr(loss, "target", None) for loss in losses]
        held = sum(target.nbytes for target in targets if isinstance(target, Tensor))
        self.memory = None if memory is None else memory - held

    @ordinary()
    def __call__(self, images: Tensor) -> Evaluation:
        images = recordable(images)
        self._check_batch(len(images))
        with self.encoder.threads():
            segments = self.segments((images.shape[-2], images.shape[-1]), len(images))
            if segments is None:
                return self._whole(images)
            # Memory is scarce: free what lies idle for the tiles, and then for the optimiser.
            _give_back()
            try:
                return self._in_tiles(images, segments)
            finally:
                _give_back()

    def segments(self, size: tuple[int, int], batch: int = 1) -> list[Segment] | None:
        """The segments in which images of (height, width) are computed; None: as a whole."""
        return plan(self.encoder, self.read, size, memory=self.memory, tile=self.tile, batch=batch)

    def _check_batch(self, count: int) -> None:
        for loss, name in itertools.product(self.losses, ("target", "area")):
            tensor = getattr(loss, name, None)
            if isinstance(tensor, Tensor) and len(tensor) not in (1, count):
                raise ImpastoError(
                    f"{loss.name} has {len(tensor)} entries in its {name}, and there are {count} "
                    "pictures; give one for each, or one for all"
                )

    def _whole(self, images: Tensor) -> Evaluation:
        variables = images.detach().requires_grad_(True)
        with torch.enable_grad():
            features = {
                layer: self.encoder.smoothed(layer, found)
                for layer, found in self.encoder(variables, self.read).items()
            }
            terms = {
                loss.name: loss(*(features[layer] for layer in self.layers[loss.name]))
                for loss in self.losses
            }
            del features
            each = self._weighted(terms)
            (gradient,) = torch.autograd.grad(each.sum(), variables)
        return _evaluation(each, gradient, terms)

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss of each image, [batch]."""
        each = [loss.weight * terms[loss.name].reshape(-1).cpu().double() for loss in self.losses]
        return torch.stack(each, 1).sum(1)

    def _in_tiles(self, images: Tensor, segments: Sequence[Segment]) -> Evaluation:
        for loss in self.losses:
            if not isinstance(loss, SumLoss):
                raise ImpastoError(
                    f"{loss.name} is no function of sums over positions, so it cannot be computed "
                    "in tiles; allow more memory, or use a smaller size"
                )
        sums: dict[str, Tensor] = {}
        shapes: dict[str, tuple[int, int, int]] = {}

        def add(layer: str, features: Tensor, part: Part) -> None:
            features = self.encoder.smoothed(layer, features)
            for loss in self._readers(layer):
                shapes[loss.name] = (features.shape[1], *part.size)
                if part.positions:
                    sums[loss.name] = sums.get(loss.name, 0) + loss.sums(features, part)

        starts = sweep(self.encoder, images, segments, add)
        with torch.enable_grad():
            for total in sums.values():
                total.requires_grad_(True)
            terms = {
                loss.name: loss.value(sums[loss.name], shapes[loss.name])
                for loss in self._readers(*self.read)
            }
            each = self._weighted(terms)
            slopes = torch.autograd.grad(each.sum(), list(sums.values()))
        by_name = dict(zip(sums, slopes, strict=True))
        gradient: Tensor | None = None
        for segment in reversed(segments):
            gradient = self._pull_back(starts.pop(segment.start), segment, by_name, gradient)
        assert gradient is not None
        return _evaluation(each, gradient, terms)

    def _pull_back(
        self, start: Tensor, segment: Segment, slopes: Mapping[str, Tensor], later: Tensor | None
    ) -> Tensor:
        """The gradient with respect to a segment's start.

        slopes: the derivative with respect to each loss's sums. later: the gradient with respect to
        the start of the next segment, which is the last layer of this one.
        """
        gradient = torch.zeros_like(start)
        encoder = self.encoder.like(padding="zeros")
        for parts in segment.tiles(start):
            # A crop of a picture that repeats may hold a pixel more than once.
            place = ... if segment.wraps else (..., *parts[segment.start].crop)
            variables = start[place].detach().requires_grad_(True)
            outputs, factors = [], []
            with torch.enable_grad():
                crop = parts[segment.start].crop_of(variables) if segment.wraps else variables
                whole = parts[segment.start].size
                features = encoder(crop, segment.layers, segment.start, whole)
                for layer in segment.layers:
                    readers = self._readers(layer) if parts[layer].positions else []
                    seen = encoder.smoothed(layer, features[layer])
                    for loss in readers:
                        term = loss.sums(seen, parts[layer])
                        if term.requires_grad:  # False where no pixel counts
                            outputs.append(term)
                            factors.append(slopes[loss.name])
                part, last = parts[segment.layers[-1]], features[segment.layers[-1]]
                if later is not None and part.positions:
                    outputs.append(part.core_of(last))
                    factors.append(later[(..., *part.core)])
            del features, crop, last
            if outputs:
                (pulled,) = torch.autograd.grad(outputs, variables, factors)
                gradient[place] += pulled
        return gradient

    def _readers(self, *layers: str) -> list[SumLoss]:
        return [
            loss
            for loss in self.losses
            if isinstance(loss, SumLoss) and self.layers[loss.name][0] in layers
        ]


def _evaluation(each: Tensor, gradient: Tensor, terms: Mapping[str, Tensor]) -> Evaluation:
    parts = {name: term.sum().item() for name, term in terms.items()}
    return Evaluation(each.sum().item(), gradient, parts, tuple(each.tolist()))


@ordinary()
def measure(
    encoder: Encoder,
    image: Tensor,
    *,
    features: Iterable[str] | Mapping[str, int] = (),
    statistics: Mapping[str, Statistic] = MappingProxyType({}),
    memory: float | None = None,
) -> dict[str, Tensor]:
    """Measure targets on images: the `features` of some layers, and `statistics`.

    A mapping of features gives for each layer the side of the squares of positions to average; what
    is left over at the right and at the bottom is dropped, unless the layer rounds up. Returns
    features by their layer's name, statistics by the names given here. Images that do not fit into
    `memory` bytes are computed in tiles.
    """
    sides = features if isinstance(features, Mapping) else dict.fromkeys(features, 1)
    kept = {encoder.layer(name): side for name, side in sides.items()}
    read = {name: encoder.layer(statistic.layer) for name, statistic in statistics.items()}
    wanted = {*kept, *read.values()}
    size = image.shape[-2], image.shape[-1]
    segments = plan(encoder, wanted, size, memory=memory, batch=len(image))
    found: dict[str, Tensor] = {}

    def visit(layer: str, activations: Tensor, part: Part) -> None:
        activations = encoder.smoothed(layer, activations)
        if layer in kept:
            up = encoder.rows[layer].rounds_up
            put(found, layer, *part.averaged(activations, kept[layer], up))
        share = part.positions / math.prod(part.size)
        for name, statistic in statistics.items():
            if read[name] == layer and part.positions:
                mean = statistic(activations, part).cpu().double()
                found[name] = found.get(name, 0) + share * mean

    with torch.no_grad(), encoder.threads():
        if segments:
            sweep(encoder, image, segments, visit)
        else:
            for layer, activations in encoder(image, wanted).items():
                visit(layer, activations, Part.whole(activations))
    return {name: value.to(image) for name, value in found.items()}


def content_floor(encoder: Encoder, layer: str) -> float:
    """The `floor` of a `ContentLoss`: half the mean square of a black picture's activations.

    All photos with clear content are above it. Pictures below it (flat ones near the network's
    mean colour, photos with next to no contrast) get as much paint as a photo of fog.
    """
    black = torch.zeros(1, 3, 64, 64, dtype=torch.float32, device=encoder.device)
    (found,) = measure(encoder.like(padding="zeros"), black, features=[layer]).values()
    return 0.5 * float(found.square().mean())


def _give_back() -> None:
    ops.clear()
    machine.give_back()
