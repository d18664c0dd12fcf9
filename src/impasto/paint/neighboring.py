"""Repainting by neighbours: what is matched at each level, and how strength becomes splitting."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from impasto.encoders.base import IMAGE, Encoder
from impasto.losses import neighbors
from impasto.losses.base import Loss
from impasto.losses.content import ContentLoss
from impasto.losses.distributions import Covariance
from impasto.losses.neighbors import Where
from impasto.paint.levels import Level
from impasto.paint.repainting import Repainting, weighted
from impasto.pictures.images import Picture

if TYPE_CHECKING:
    from impasto.paint.stylize import Stylizer

DEEPEST = 8
"""Layers with a larger stride than this (in pixels) know things, not strokes."""

COLOURS = 0.1
"""The weight of the colours' covariance, relative to that of the neighbours."""

FADES = 1 / 4
"""Below this strength the targets fade into the photo's own activations."""

MOST_SPLIT, ROUND = 0.9, 25
"""Layers are split in this share of the last level's steps times the strength. These steps are made
in rounds of at most so many with the same neighbours.
"""


def matched_layers(encoder: Encoder) -> dict[str, float]:
    """The layers whose neighbours are found unless others are given, each with its share.

    Strides are those of one look.
    """
    strides = {layer: encoder.looks * encoder.rows[layer].stride for layer in encoder.style_layers}
    deepest = max(DEEPEST, min(strides.values()))
    return {layer: 1.0 for layer, stride in strides.items() if stride <= deepest}


class Neighboring(Repainting):
    """The problem of repainting a photo by neighbours, see `losses.neighbors`.

    There is no content loss: shapes come from the photo's share in what is matched. The covariance
    of the painting's colours is held by a style loss on the pixels themselves.
    """

    looks_back = True

    def __init__(self, stylizer: Stylizer, photo: Picture, levels: Sequence[Level]) -> None:
        super().__init__(stylizer, photo, with_split(levels, stylizer.settings.strength))
        self.style, self.style_shares = Covariance(), {IMAGE: 1.0}
        self.kept = max(0.0, 1 - self.settings.strength / FADES)

    def losses(self, level: Level, content: Tensor, begun: Tensor) -> list[Loss]:
        where = [
            Where(self._paintings(place, mask, level, content), seen, place.name)
            for place, mask, seen in self._areas(level)
        ]
        if not where:  # nothing is to be painted
            return [ContentLoss(IMAGE, begun)]
        found = neighbors.losses(
            self.studio.measure,
            self.studio.encoder.rows,
            self.stylizer.style_shares,
            where,
            begun,
            content,
            split=level.split,
            kept=self.kept,
            remembers=self.studio.remembers,
        )
        weight = 2 * self.settings.strength * self.settings.total_style_weight
        held = COLOURS * (1 - self.kept)
        colours = [weighted(loss, held) for loss in self._style_losses(level, content)]
        return [weighted(loss, weight) for loss in (*found, *colours)]


def with_split(levels: Sequence[Level], strength: float) -> list[Level]:
    """The same levels, with the last steps of the last one split into rounds of new neighbours."""
    *coarse, last = levels
    steps = round(MOST_SPLIT * strength * last.steps)
    rounds = math.ceil(steps / ROUND)
    split = [
        dataclasses.replace(last, steps=steps * (n + 1) // rounds - steps * n // rounds, split=True)
        for n in range(rounds)
    ]
    before = dataclasses.replace(last, steps=last.steps - steps)
    return [*coarse, *([before] if before.steps or not split else []), *split]
