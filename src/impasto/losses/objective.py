"""Encoder, losses and targets as one function: image -> loss, gradient and parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from impasto import device as machine
from impasto.device import ordinary, recordable
from impasto.encoders.tiles import Part, Segment, plan, sweep, whole_layer
from impasto.encoders.vgg import Vgg
from impasto.errors import ImpastoError
from impasto.kernels import ops as compiled
from impasto.losses.base import Loss, SumLoss, not_in_tiles
from impasto.losses.styles import Statistic


@dataclass(frozen=True)
class Evaluation:
    """What an objective says of an image.

    loss: the weighted sum. gradient: its derivative, shaped like the image. parts: each term's
    own value before weighting, by name.
    """

    loss: float
    gradient: Tensor
    parts: Mapping[str, float]


class Objective:
    """The weighted sum of losses over the layers of an encoder: Gatys et al. 2015, eq. 7.

    Calling it with an image [1, 3, height, width] in 0..1 (or [1, 1, height, width], a grey one)
    gives an `Evaluation`. Loss and gradient are those of exactly the same computation.

    In tiles the result is the same, not an approximation: losses depend on the whole picture only
    through sums over positions. A first pass over the tiles adds these up, their derivative is
    taken once, and a second pass pulls it back to the pixels.

    Args:
        encoder: the network.
        losses: the terms.
        memory: how many bytes an evaluation may take, with weights and targets; where the picture
            as a whole needs more, it is computed in tiles. None for no bound.
        tile: compute in tiles of about this many pixels a side, whatever the memory.

    Raises:
        ImpastoError: there are no losses, two share a name, or a layer does not exist; when
            called, a loss that is no `SumLoss` would have to be computed in tiles.
    """

    def __init__(
        self,
        encoder: Vgg,
        losses: Sequence[Loss],
        *,
        memory: float | None = None,
        tile: int | None = None,
    ) -> None:
        if not losses:
            raise ImpastoError("an objective needs at least one loss; give it content or style")
        names = [loss.name for loss in losses]
        if len(set(names)) < len(names):
            raise ImpastoError(f"two losses of an objective share a name: {', '.join(names)}")
        self.encoder = encoder
        self.losses = tuple(losses)
        self.layers = {loss.name: encoder.layer(loss.layer) for loss in losses}
        self.tile = tile
        targets = [target for loss in losses if isinstance(target := _target(loss), Tensor)]
        held = sum(target.numel() * target.element_size() for target in targets)
        self.memory = None if memory is None else memory - held

    @ordinary()
    def __call__(self, image: Tensor) -> Evaluation:
        image = recordable(image)
        with compiled.torch_on_one_thread():
            segments = self.segments((image.shape[-2], image.shape[-1]))
            if segments is None:
                return self._whole(image)
            # Tiles are for where memory is scarce: what lies idle goes before, and after it, when
            # the optimiser wants some of its own. It takes milliseconds.
            _give_back()
            try:
                return self._in_tiles(image, segments)
            finally:
                _give_back()

    def segments(self, size: tuple[int, int]) -> list[Segment] | None:
        """How a picture of (height, width) is computed: as a whole (none), or in these tiles.

        With circular padding always as a whole.
        """
        if self.encoder.padding == "circular":
            return None
        layers = self.layers.values()
        return plan(self.encoder, layers, size, memory=self.memory, tile=self.tile)

    def _whole(self, image: Tensor) -> Evaluation:
        variables = image.detach().requires_grad_(True)
        with torch.enable_grad():
            features = self.encoder(variables, self.layers.values())
            terms = {loss.name: loss(features[self.layers[loss.name]]) for loss in self.losses}
            del features
            total = torch.stack([loss.weight * terms[loss.name] for loss in self.losses]).sum()
            (gradient,) = torch.autograd.grad(total, variables)
        parts = {name: term.item() for name, term in terms.items()}
        return Evaluation(total.item(), gradient, parts)

    def _in_tiles(self, image: Tensor, segments: Sequence[Segment]) -> Evaluation:
        for loss in self.losses:
            if not isinstance(loss, SumLoss):
                raise not_in_tiles(loss.name)
        sums: dict[str, Tensor] = {}
        sizes: dict[str, tuple[int, int]] = {}

        def add(layer: str, features: Tensor, part: Part) -> None:
            for loss in self._losses_of(layer):
                sizes[loss.name] = part.size
                if part.positions:
                    term = loss.sums(features, part).cpu().double()
                    sums[loss.name] = sums[loss.name] + term if loss.name in sums else term

        starts = sweep(self.encoder, image, segments, add)
        with torch.enable_grad():
            for total in sums.values():
                total.requires_grad_(True)
            terms = {
                loss.name: loss.value(sums[loss.name], sizes[loss.name])
                for loss in self.losses
                if isinstance(loss, SumLoss)
            }
            loss_ = torch.stack([loss.weight * terms[loss.name] for loss in self.losses]).sum()
            slopes = dict(zip(sums, torch.autograd.grad(loss_, list(sums.values())), strict=True))
        gradient: Tensor | None = None
        for segment in reversed(segments):
            gradient = self._pull_back(starts.pop(segment.start), segment, slopes, gradient)
        assert gradient is not None
        parts = {name: term.item() for name, term in terms.items()}
        return Evaluation(loss_.item(), gradient, parts)

    def _pull_back(
        self,
        start: Tensor,
        segment: Segment,
        slopes: Mapping[str, Tensor],
        following: Tensor | None,
    ) -> Tensor:
        """The gradient with respect to a segment's start.

        slopes: the derivative with respect to each loss's sums. following: the gradient with
        respect to the start of the next segment, which is the last of this one's layers.
        """
        gradient = torch.zeros_like(start)
        for parts in segment.tiles((start.shape[-2], start.shape[-1])):
            place = parts[segment.start].crop
            crop = start[(..., *place)].detach().requires_grad_(True)
            outputs, factors = [], []
            with torch.enable_grad():
                features = self.encoder(crop, segment.layers, segment.start)
                for layer in segment.layers:
                    if not parts[layer].positions:
                        continue
                    for loss in self._losses_of(layer):
                        term = loss.sums(features[layer], parts[layer])
                        if term.requires_grad:  # it does not where no pixel counts
                            outputs.append(term)
                            factors.append(slopes[loss.name].to(term))
                last = segment.layers[-1]
                if following is not None and parts[last].positions:
                    outputs.append(parts[last].core_of(features[last]))
                    factors.append(following[(..., *parts[last].core)])
            del features
            if outputs:
                (pulled,) = torch.autograd.grad(outputs, crop, factors)
                gradient[(..., *place)] += pulled
        return gradient

    def _losses_of(self, layer: str) -> list[SumLoss]:
        return [
            loss
            for loss in self.losses
            if self.layers[loss.name] == layer and isinstance(loss, SumLoss)
        ]


@ordinary()
def measure(
    encoder: Vgg,
    image: Tensor,
    *,
    features: Iterable[str] = (),
    statistics: Mapping[str, Statistic] = MappingProxyType({}),
    memory: float | None = None,
) -> dict[str, Tensor]:
    """Targets: the `features` of some layers of an image, and `statistics` of others.

    Features are found under their layer's name, statistics under the names they have here. In
    tiles where the whole does not fit into `memory` bytes.
    """
    kept = [encoder.layer(name) for name in features]
    read = {name: encoder.layer(statistic.layer) for name, statistic in statistics.items()}
    size = image.shape[-2], image.shape[-1]
    segments = plan(encoder, {*kept, *read.values()}, size, memory=memory)
    found: dict[str, Tensor] = {}

    def visit(layer: str, activations: Tensor, part: Part) -> None:
        if layer in kept:
            if layer not in found:
                found[layer] = whole_layer(encoder, layer, part.size, image)
            found[layer][(..., *part.core)] = part.core_of(activations)
        share = part.positions / (part.size[0] * part.size[1])
        for name, statistic in statistics.items():
            if read[name] == layer and part.positions:
                term = share * statistic(activations, part).cpu().double()
                found[name] = found[name] + term if name in found else term

    with torch.no_grad(), compiled.torch_on_one_thread():
        if segments:
            sweep(encoder, image, segments, visit)
        else:
            for layer, activations in encoder(image, {*kept, *read.values()}).items():
                visit(layer, activations, Part.whole(activations))
    return {name: value.to(image) for name, value in found.items()}


def _give_back() -> None:
    compiled.clear()
    machine.give_back()


def _target(loss: Loss) -> object:
    return getattr(loss, "target", None)
