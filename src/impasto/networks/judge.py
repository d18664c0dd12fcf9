"""What a network's pictures are judged by while it is trained: the losses of `stylize`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from impasto import catalog
from impasto.losses.base import Loss
from impasto.losses.content import ContentLoss
from impasto.losses.grids import GridLoss
from impasto.losses.objective import Objective, content_floor, measure
from impasto.losses.smoothness import TotalVariationLoss
from impasto.optimise.base import Evaluation
from impasto.paint.studio import Studio
from impasto.pictures import images
from impasto.pictures.images import Picture
from impasto.settings import EncoderSettings, RunSettings, TrainSettings

PAINTED = 2
"""Paintings have a longer side of this many sides of a crop: photos are mostly seen that large."""

GRIDS: tuple[tuple[int, float], ...] = (1, 450.0), (4, 1800.0), (8, 1800.0)
"""Weights of grid losses at strength 1/2, in squares of eight periods: of the longest period that a
network can make, and of a quarter and an eighth of it, which are fainter. Of n x n repetitions, any
picture has about 1 / n^2 of its variance left, so that smaller squares weigh less.
"""


class Losses(NamedTuple):
    """The mean losses of some pictures: content and style as `ContentLoss` and `Style` have them.

    total: with the weights of training, total variation and grid.
    """

    content: float
    style: float
    total: float


class Judgement(NamedTuple):
    """Losses of pictures, and the gradient of their mean [N, 3, h, w]."""

    losses: Losses
    gradient: Tensor


class StyleJudge:
    """Judges pictures by the style losses of one goal per painting.

    settings: those of `EncoderSettings`, with style_loss and style_layers. longer: the longer side
    of the paintings in pixels.

    Raises:
        ImpastoError: a layer does not exist, or a painting is smaller than the encoder can see.
    """

    def __init__(self, paintings: Sequence[Picture], settings: Any, longer: int) -> None:
        common = {
            each.name: getattr(settings, each.name) for each in dataclasses.fields(EncoderSettings)
        }
        studio = Studio(RunSettings(**common))
        self.encoder, self.device, self.settings = studio.encoder, studio.device, settings
        self.weights_sha256 = studio.weights_sha256
        self.longer = longer
        self.style_layers = shares = self.encoder.shares(settings.style_layers)
        self.content_layer = self.encoder.content_layer
        studio.read(shares, [self.content_layer])
        style = catalog.STYLES[settings.style_loss].made(settings)
        self.goals: list[list[Any]] = []
        for painting in paintings:
            size = images.fitted_size(painting.image.size, longer)
            studio.check_size(f"the painting {painting.name}", size, shares)
            exemplar = studio.exemplar(painting, size)
            self.goals.append(list(style.losses(studio.mixed, [exemplar], shares)))

    @property
    def choices(self) -> dict[str, Any]:
        """What judged, as settings for a record: those that the encoder chose by itself, too."""
        own = {**self.encoder.choices, "style_layers": self.style_layers}
        return own | ({"weights_sha256": self.weights_sha256} if self.weights_sha256 else {})

    def style(self, pictures: Tensor, number: int) -> tuple[float, Tensor]:
        """The mean style loss of pictures [N, 3, h, w] in one style, and its gradient."""
        found = Objective(self.encoder, self.goals[number])(pictures)
        return found.loss / len(pictures), found.gradient / len(pictures)


class Judge(StyleJudge):
    """What pictures are judged by while a network is trained: the losses of one goal per painting.

    style_weight: see `weigh`. period: the longest of the grids that the network can make; grids:
    see `GRIDS`. Errors are those of `StyleJudge`.
    """

    settings: TrainSettings

    def __init__(self, paintings: Sequence[Picture], settings: TrainSettings) -> None:
        super().__init__(paintings, settings, round(PAINTED * settings.size * settings.style_scale))
        self.floor = content_floor(self.encoder, self.content_layer)
        self.style_weight = 0.0
        self.period, self.grids = 16, GRIDS

    def weigh(self, batches: Iterable[Tensor]) -> None:
        """Set the weight of style: relative to the style loss of photos that nobody has painted."""
        objectives = [Objective(self.encoder, goal) for goal in self.goals]
        own = [loss for photos in batches for each in objectives for loss in each(photos).losses]
        weight = catalog.STYLES[self.settings.style_loss].weight
        self.style_weight = 2 * self.settings.strength * weight / float(np.mean(own))

    def __call__(self, pictures: Tensor, photos: Tensor, styles: Sequence[int]) -> Judgement:
        """Judge pictures [N, 3, h, w] of photos, each painted in one of the styles."""
        features = measure(self.encoder, photos, features=[self.content_layer])[self.content_layer]
        gradient, sums = torch.zeros_like(pictures), np.zeros(3)
        for at, losses in self._by_entry(styles):
            ours = self._losses(losses, features[at])
            found = Objective(self.encoder, ours)(pictures[at])
            gradient[at] = found.gradient
            sums += self._sums(found, losses)
        return Judgement(Losses(*(sums / len(pictures)).tolist()), gradient / len(pictures))

    def _by_entry(self, styles: Sequence[int]) -> Iterator[tuple[list[int], list[Any]]]:
        """Groups of entries with their style losses: all together if targets can be stacked."""
        chosen = [self.goals[style] for style in styles]
        kinds = [[getattr(loss, "style", None) for loss in losses] for losses in chosen]
        stack = all(kind == kinds[0] and None not in kind for kind in kinds)
        if stack:
            yield (
                list(range(len(styles))),
                [
                    dataclasses.replace(losses[0], target=torch.cat([x.target for x in losses]))
                    for losses in zip(*chosen, strict=True)
                ],
            )
            return
        for style in sorted(set(styles)):
            yield [n for n, own in enumerate(styles) if own == style], self.goals[style]

    def _losses(self, style: Sequence[Any], content: Tensor) -> list[Loss]:
        strength = self.settings.strength
        weight = 2 * (1 - strength)
        return [
            ContentLoss(self.content_layer, content, weight, floor=self.floor),
            *(dataclasses.replace(x, weight=self.style_weight * x.weight) for x in style),
            TotalVariationLoss(2 * strength * self.settings.tv),
            *(
                self._grid(self.period // part, weight)
                for part, weight in self.grids
                if self.period // part > 1
            ),
        ]

    def _grid(self, period: int, weight: float) -> GridLoss:
        across = max(2, min(8, self.settings.size // (2 * period)))
        return GridLoss(period, 2 * self.settings.strength * weight * (across / 8) ** 2, across)

    def _sums(self, found: Evaluation, style: Sequence[Any]) -> np.ndarray[Any, Any]:
        content = found.parts[f"content {self.content_layer}"]
        return np.array([content, sum(x.weight * found.parts[x.name] for x in style), found.loss])
