"""A photo that is being repainted, as `Painting` sees it: its losses, its start, what is shown."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from impasto import catalog
from impasto.losses.base import Loss
from impasto.losses.content import ContentLoss
from impasto.losses.objective import Objective
from impasto.losses.smoothness import TotalVariationLoss
from impasto.losses.styles import Exemplar, StyleLoss
from impasto.optimise.base import Optimiser, Spectrum
from impasto.paint.levels import Level, refine
from impasto.paint.regions import Place, covers
from impasto.paint.run import Problem
from impasto.paint.studio import LEAST_AREA, clouds
from impasto.pictures import colours, images
from impasto.pictures.images import Picture

if TYPE_CHECKING:
    from impasto.paint.stylize import Stylizer

MIN_STYLE_DISTANCE = 0.05
"""A photo whose relative style loss is below this counts as being so far from the painting."""

BLUR, LEAST_BLUR = 1 / 80, 4.5
"""Painting begins with the photo blurred by so much of its longer side, and so many pixels.

Whichever is more; all of its shapes are left, and nothing of the size of strokes.
"""

PALETTE, LEAST_SPREAD = 256, 0.05
"""Painting begins in the colours that the painting has at so many pixels.

Colours of the photo that vary by less than the second, of 0..1, are taken to vary by as much.
"""

MARGIN, PIXELS_A_MARGIN = 8, 64
"""A margin has so many pixels, and one more for every so many of the picture's longer side.

The encoder's zeros around a picture are seen about ten pixels deep.
"""

SEEN = 512
"""The longer side up to which the content layer sees the shapes of a photo."""


class Repainting(Problem):
    """A photo as `Painting` sees it: in colour, or its luminance where that alone is painted.

    Around it is the margin, in which it is mirrored; what is shown is without.
    """

    refined: Spectrum = "painted"

    def __init__(self, stylizer: Stylizer, photo: Picture, levels: Sequence[Level]) -> None:
        self.first = levels[0]
        self.longer = max(levels[-1].size)
        self.shrunk = 1 << (len(levels) - 1)  # how many times smaller the coarsest level is
        self.stylizer = stylizer
        self.studio = stylizer.studio
        self.settings = stylizer.settings
        self.photo = photo
        self.grey = stylizer.settings.kept_colours == "luminance"
        self.is_everywhere = stylizer.places[0].mask is None
        self._fitted: dict[tuple[str, bool, tuple[int, int]], Image.Image] = {}

    def limits(self) -> Mapping[str, Any]:
        return self.studio.limits()

    def content(self, level: Level) -> Tensor:
        content = self._coloured(level)
        return colours.luminance(content) if self.grey else content

    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]:
        settings, content_layer = self.settings, self.stylizer.content_layer
        style = self._style_losses(level, content)
        statistics = {loss.name: loss.statistic for loss in style}
        measured = self.studio.measure(content, [content_layer], statistics)
        style_weight = 2 * settings.strength * settings.total_style_weight
        if settings.scaling == "relative":
            # Relative to the photo's own style loss, too: a photo that is far from the painting
            # would else be burdened with more style than one that is close. In regions alone,
            # relative to what they cover: else the smaller one is, the stronger its style.
            own = sum(loss.weight * loss.distance(measured[loss.name]).item() for loss in style)
            covered = sum(loss.weight for loss in style) or 1.0
            style_weight /= max(own / covered, MIN_STYLE_DISTANCE)
        losses: list[Loss] = [
            ContentLoss(
                content_layer,
                measured[content_layer],
                2 * (1 - settings.strength) * self._content_weight(level),
                settings.scaling,
                self._floor,
            ),
            *(dataclasses.replace(loss, weight=style_weight * loss.weight) for loss in style),
        ]
        if settings.tv:
            losses.append(TotalVariationLoss(2 * settings.strength * settings.tv))
        return self.studio.objective(losses, content), self.studio.optimiser(content)

    @functools.cached_property
    def _floor(self) -> float:
        return self.studio.floor(self.stylizer.content_layer)

    def _content_weight(self, level: Level) -> float:
        """Less at levels where the content layer sees the photo's texture and no shapes any more.

        The shapes are there: the level before has painted them.
        """
        held = 1.0 if level == self.first else min(1.0, SEEN / max(level.size))
        return held * self.settings.content_weight

    def start(self, level: Level, content: Tensor) -> Tensor:
        start = self._starting_image(level, content)
        return colours.luminance(start) if self.grey and start.shape[1] == 3 else start

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:
        coarse, fine = self.content(before), self.content(level)
        return refine(painted, coarse, fine, self._detail(level))

    def show(self, level: Level, image: Tensor) -> Tensor:
        visible = self._visible(level)
        shown = image
        if not self.is_everywhere or self.grey:
            photo = self._coloured(level)
            shown = colours.with_luminance(photo, image) if self.grey else image
            if not self.is_everywhere:
                shown = photo + self._covered(level) * (shown - photo)
        # What was cut out stays cut out.
        shown = shown if visible is None else torch.cat([shown, visible], 1)
        margin = self.margin(level)
        height, width = (side - 2 * margin for side in shown.shape[-2:])
        return shown[..., margin : margin + height, margin : margin + width].contiguous()

    def _covered(self, level: Level) -> Tensor:
        """How much of each pixel [1, 1, height, width] is painted, where there are regions."""
        masks = (mask for _, mask in self._masks(level))
        return torch.stack([mask for mask in masks if mask is not None]).sum(0)

    def _detail(self, level: Level) -> float | Tensor:
        """How much of the photo's detail there is at first; all where no paint is to go."""
        kept = self.settings.kept_detail
        if self.is_everywhere or kept == 1:
            return kept
        return 1 - (1 - kept) * self._covered(level)

    def _style_losses(self, level: Level, content: Tensor) -> list[StyleLoss]:
        """A loss for each place and layer; their weights sum up to 1."""
        losses = []
        for place, mask in self._areas(level):
            weight = 1.0 if mask is None else mask.mean().item()
            for loss in self._losses_of(place, mask, level, content):
                area = None if mask is None else self.studio.area(loss.layer, mask)
                if mask is None or area is not None:
                    there = dataclasses.replace(
                        loss, weight=weight * loss.weight, area=area, place=place.name
                    )
                    losses.append(there)
        return losses

    def _losses_of(
        self, place: Place, mask: Tensor | None, level: Level, content: Tensor
    ) -> Sequence[StyleLoss]:
        """A place's losses, as if it were everywhere; kept for the next photo."""
        settings, kept = self.settings, self.stylizer.kept_losses
        key = place.name, max(level.size)
        if settings.kept_colours is None and key in kept:
            return kept[key]
        paintings = []
        for painting, share in place.paintings:
            size = self.stylizer.painting_size(painting, max(level.size))
            visible = self.studio.visible(painting, size)
            fitted = self.studio.tensor(images.resize(painting.colours, size))  # needed but once
            image = self._recoloured(fitted, mask, content, visible)
            paintings.append(Exemplar(image, share, visible))
        style = catalog.STYLES[settings.style_loss].made(settings)
        losses: Sequence[StyleLoss] = style.losses(
            self.studio.mixed, paintings, self.stylizer.style_shares, settings.scaling
        )
        if settings.kept_colours is None:
            kept[key] = losses
        return losses

    def _masks(self, level: Level) -> list[tuple[Place, Tensor | None]]:
        """Each place with how much each pixel belongs to it, see `covers`."""
        masks = [place.mask for place in self.stylizer.places if place.mask]
        shown = [colours.luminance(self._tensor(mask, level)) for mask in masks]
        return covers(self.stylizer.places, shown)

    def _areas(self, level: Level) -> list[tuple[Place, Tensor | None]]:
        """The places of which something is to be seen, with how much of it is, as in `_masks`."""
        visible = self._visible(level)
        areas = []
        for place, mask in self._masks(level):
            area = mask if visible is None else visible if mask is None else mask * visible
            if area is None or area.mean() >= LEAST_AREA:
                areas.append((place, area))
        return areas

    def _recoloured(
        self,
        painting: Tensor,
        mask: Tensor | None,
        content: Tensor,
        visible: Tensor | None = None,
    ) -> Tensor:
        if self.settings.kept_colours == "luminance":
            return colours.match_luminance(colours.luminance(painting), content, mask, visible)
        if self.settings.kept_colours == "histogram":
            return colours.match_colours(painting, content, mask, visible)
        return painting

    def _starting_image(self, level: Level, content: Tensor) -> Tensor:
        if self.stylizer.begins_with:
            cut_out = images.cover(self.stylizer.begins_with.colours, level.size)
            return self._with_margin(self.studio.tensor(cut_out), level)
        if self.settings.init == "painting":
            painting, _ = self.stylizer.places[0].paintings[0]
            cut_out = images.cover(painting.colours, level.size)
            image = self._with_margin(self.studio.tensor(cut_out), level)
            return self._recoloured(image, None, content)
        start = content
        if self.settings.init == "noise":
            start = self.studio.noise(content.shape)
        if self.settings.kept_detail == 1:  # as published: white noise, or the photo itself
            return start
        if self.settings.init == "noise":
            start = clouds(start)
        sigma = max(BLUR * self.longer, LEAST_BLUR) * max(level.size) / self.longer
        plain = images.blurred(start, sigma)
        if self.settings.kept_colours is None:
            plain = self._in_paintings_colours(plain, level)
        return plain + self._detail(level) * (start - plain)

    def _in_paintings_colours(self, image: Tensor, level: Level) -> Tensor:
        """Recoloured to the paintings' mean and covariance, each place by itself.

        Strokes come in colours that are the painting's from the start; a part of the photo in
        others would stay as it is, since a Gram matrix can be met without it.
        """
        result, masks = image, {place.name: mask for place, mask in self._masks(level)}
        for place, area in self._areas(level):
            goal, weights = self._palette(place)
            recoloured = colours.match_colours(image, goal, weights, area, LEAST_SPREAD)
            mask = masks[place.name]
            result = result + (1.0 if mask is None else mask) * (recoloured - image)
        return result

    def _palette(self, place: Place) -> tuple[Tensor, Tensor]:
        """The colours of a place's paintings [1, 3, 1, n], and how much each counts."""
        found, weights = [], []
        for painting, share in place.paintings:
            size = images.fitted_size(painting.image.size, PALETTE)
            own = self.studio.tensor(images.resize(painting.colours, size)).flatten(2)
            visible = self.studio.visible(painting, size)
            counts = torch.ones_like(own[:, :1]) if visible is None else visible.flatten(2)
            found.append(own)
            weights.append(share * counts / counts.sum())
        return torch.cat(found, 2)[:, :, None], torch.cat(weights, 2)[:, :, None]

    def _coloured(self, level: Level) -> Tensor:
        return self._tensor(self.photo, level)

    def _tensor(self, picture: Picture, level: Level) -> Tensor:
        key = picture.sha256, picture.alpha is None, level.size
        fitted = self._fitted.get(key) or images.resize(picture.colours, level.size)
        if self.grey or not self.is_everywhere:  # at every step, and a large one takes its time
            self._fitted[key] = fitted
        return self._with_margin(self.studio.tensor(fitted), level)

    def _visible(self, level: Level) -> Tensor | None:
        """How much is there of each pixel of the photo; none: all of it."""
        visible = self.studio.visible(self.photo, level.size)
        return None if visible is None else self._with_margin(visible, level)

    def _with_margin(self, image: Tensor, level: Level) -> Tensor:
        return images.mirrored(image, self.margin(level))

    def margin(self, level: Level) -> int:
        """How many pixels are painted around the picture at a level, and cut off.

        At each half as many as at the next: what was painted is enlarged to where it belongs.
        """
        if not self.settings.margin:
            return 0
        coarsest = math.ceil((MARGIN + self.longer // PIXELS_A_MARGIN) / self.shrunk)
        return round(coarsest * self.shrunk * max(level.size) / self.longer)
