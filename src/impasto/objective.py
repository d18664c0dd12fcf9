"""Encoder, losses and targets as one function: image -> loss, gradient and parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto import compiled
from impasto.errors import ImpastoError
from impasto.losses import Loss
from impasto.vgg import Vgg


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

    Raises:
        ImpastoError: there are no losses, two share a name, or a layer does not exist.
    """

    def __init__(self, encoder: Vgg, losses: Sequence[Loss]) -> None:
        if not losses:
            raise ImpastoError("an objective needs at least one loss; give it content or style")
        names = [loss.name for loss in losses]
        if len(set(names)) < len(names):
            raise ImpastoError(f"two losses of an objective share a name: {', '.join(names)}")
        self.encoder = encoder
        self.losses = tuple(losses)
        self.layers = {loss.name: encoder.layer(loss.layer) for loss in losses}

    def __call__(self, image: Tensor) -> Evaluation:
        variables = image.detach().requires_grad_(True)
        with torch.enable_grad(), compiled.torch_on_one_thread():
            features = self.encoder(variables, self.layers.values())
            terms = {loss.name: loss(features[self.layers[loss.name]]) for loss in self.losses}
            total = torch.stack([loss.weight * terms[loss.name] for loss in self.losses]).sum()
            (gradient,) = torch.autograd.grad(total, variables)
        parts = {name: term.item() for name, term in terms.items()}
        return Evaluation(total.item(), gradient, parts)
