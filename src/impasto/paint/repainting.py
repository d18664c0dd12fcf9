"""The problem of repainting a photo: its losses, where it starts, and how it is shown."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from impasto import catalog
from impasto.errors import ImpastoError
from impasto.losses.base import Loss
from impasto.losses.content import ContentLoss
from impasto.losses.objective import content_floor
from impasto.losses.styles import LEAST_AREA, Exemplar, Style, StyleLoss
from impasto.paint.levels import Level, refine
from impasto.paint.regions import Place
from impasto.paint.run import Problem
from impasto.paint.studio import clouds
from impasto.pictures import colours, images
from impasto.pictures.images import Picture

if TYPE_CHECKING:
    from impasto.paint.stylize import Stylizer

MIN_STYLE_DISTANCE = 0.05
"""A photo's own relative style loss counts as this if it is lower."""

BLUR, LEAST_BLUR = 1 / 80, 4.5
"""The photo is blurred at the start: by `BLUR` of its longer side, but by `LEAST_BLUR` pixels at
least (standard deviation). All of its shapes are left, and nothing of the size of strokes.
"""

PALETTE, LEAST_SPREAD = 256, 0.05
"""The start has the colours of the painting, measured at a longer side of `PALETTE` pixels. If the
photo's colours have a standard deviation below `LEAST_SPREAD` (of 0..1), that is used instead.
"""

MARGIN, PIXELS_A_MARGIN = 8, 64
"""The margin has `MARGIN` pixels, and one more for every `PIXELS_A_MARGIN` of the longer side.
The effect of the encoder's zero padding is visible about ten pixels deep.
"""

SEEN = 512
"""Up to this longer side the content layer sees the shapes of a photo, beyond it only texture."""


class Repainting(Problem):
    """The problem of repainting a photo in colour, or (to keep its colours) only its luminance.

    The photo is mirrored into a margin, which is painted too; `show` cuts it off.
    """

    refined = "painted"

    def __init__(self, stylizer: Stylizer, photo: Picture, levels: Sequence[Level]) -> None:
        self.stylizer, self.photo = stylizer, photo
        # A copy, since it counts this picture's memory and others may be painted at the same time.
        self.studio = copy.copy(stylizer.studio)
        self.settings = stylizer.settings
        self.levels, self.size, self.name = levels, levels[-1].size, photo.name
        self.record = stylizer.record(photo, self.size)
        self.tv = 2 * self.settings.strength * self.settings.tv
        self.restart = self.settings.restart
        self.longer = max(self.size)
        self.grey = self.settings.kept_colours == "luminance"
        self.is_everywhere = stylizer.places[0].mask is None
        self.style: Style = catalog.STYLES[self.settings.style_loss].made(self.settings)
        self.style_shares: Mapping[str, float] = stylizer.style_shares
        self._fitted: dict[tuple[int, tuple[int, int]], Image.Image] = {}

    def content(self, level: Level) -> Tensor:
        content = self._tensor(self.photo, level)
        return colours.luminance(content) if self.grey else content

    def losses(self, level: Level, content: Tensor, begun: Tensor) -> list[Loss]:  # noqa: ARG002
        settings, content_layer = self.settings, self.stylizer.content_layer
        style = self._style_losses(level, content) if settings.strength else []
        statistics = {loss.name: loss.statistic for loss in style if isinstance(loss, StyleLoss)}
        others = [loss for loss in style if not isinstance(loss, StyleLoss)]
        whole = [layer for loss in others for layer in loss.layers]
        measured = self.studio.measure(content, [content_layer, *whole], statistics)
        style_weight = 2 * settings.strength * settings.total_style_weight
        if settings.scaling == "relative":
            # Relative to the photo's own style loss: otherwise a photo far from the painting would
            # get more style than one close to it. Regions alone are relative to the area they
            # cover: otherwise a smaller region would get a stronger style.
            own = sum(loss.weight * _distance(loss, measured) for loss in style)
            covered = sum(loss.weight for loss in style) or 1.0
            style_weight /= max(own / covered, MIN_STYLE_DISTANCE)
        target, weight = measured[content_layer], self._content_weight(level)
        return [
            ContentLoss(content_layer, target, weight, settings.scaling, self._floor),
            *(weighted(loss, style_weight) for loss in style),
        ]

    @functools.cached_property
    def _floor(self) -> float:
        return content_floor(self.studio.encoder, self.stylizer.content_layer)

    def _content_weight(self, level: Level) -> float:
        """Lower at later levels beyond `SEEN`, whose shapes come from the level before."""
        held = 1.0 if level == self.levels[0] else min(1.0, SEEN / max(level.size))
        return 2 * (1 - self.settings.strength) * (held * self.settings.content_weight)

    def start(self, level: Level, content: Tensor) -> Tensor:
        given = self.stylizer.begins_with
        if given or self.settings.init == "painting":
            picture = given or self.stylizer.places[0].paintings[0][0]
            cut_out = self.studio.tensor(images.cover(picture.colours, level.size))
            image = self._with_margin(cut_out, level)
            if not given:
                return self._recoloured(image, None, content)
            return colours.luminance(image) if self.grey else image
        is_noise = self.settings.init == "noise"
        start = self.studio.noise(content.shape) if is_noise else content
        if self.settings.kept_detail == 1:  # as published: from white noise or the photo
            return start
        if is_noise:
            start = clouds(start)
        sigma = max(BLUR * self.longer, LEAST_BLUR) * max(level.size) / self.longer
        plain = images.blurred(start, sigma)
        if self.settings.kept_colours is None:
            plain = self._in_paintings_colours(plain, level)
        return plain + self._detail(level) * (start - plain)

    def refine(self, before: Level, level: Level, painted: Tensor) -> Tensor:
        coarse, fine = self.content(before), self.content(level)
        return refine(painted, coarse, fine, self._detail(level))

    def show(self, level: Level, image: Tensor) -> Tensor:
        visible, margin, shown = self._visible(level), self.margin(level), image
        if self.grey or not self.is_everywhere:
            photo = self._tensor(self.photo, level)
            shown = colours.with_luminance(photo, image) if self.grey else image
            if not self.is_everywhere:
                shown = photo + self._covered(level) * (shown - photo)
        # The photo's transparency is kept.
        shown = shown if visible is None else torch.cat([shown, visible], 1)
        width, height = level.size
        return shown[..., margin : margin + height, margin : margin + width].contiguous()

    def _covered(self, level: Level) -> Tensor:
        """How much of each pixel [1, 1, height, width] the masks cover (if all places have one)."""
        return torch.stack([mask for _, mask in self._masks(level) if mask is not None]).sum(0)

    def _detail(self, level: Level) -> float | Tensor:
        """How much of the photo's detail the start has: all of it where nothing is painted."""
        kept = self.settings.kept_detail
        if self.is_everywhere or kept == 1:
            return kept
        return 1 - (1 - kept) * self._covered(level)

    def _style_losses(self, level: Level, content: Tensor) -> list[Loss]:
        """The losses of all places; the weights sum to the painted share of the picture."""
        losses: list[Loss] = []
        for place, _, seen in self._areas(level):
            for loss in self._losses_of(place, seen, level, content):
                if seen is None:
                    losses.append(loss)
                elif not isinstance(loss, StyleLoss):
                    raise ImpastoError(
                        f"the style loss {self.settings.style_loss!r} takes whole pictures only; "
                        "leave out regions and transparent photos, or choose another"
                    )
                elif (area := self.studio.area(loss.layer, seen)) is not None:
                    there = dataclasses.replace(loss, area=area, place=place.name)
                    losses.append(weighted(there, seen.mean().item()))
        return losses

    def _losses_of(
        self, place: Place, mask: Tensor | None, level: Level, content: Tensor
    ) -> Sequence[Loss]:
        """A place's losses for the whole picture; kept for the next photo if they fit any photo."""
        settings, key = self.settings, (place.name, max(level.size))
        kept = self.stylizer.kept_losses if settings.kept_colours is None else {}
        if key in kept:
            return kept[key]
        losses: Sequence[Loss] = self.style.losses(
            self.studio.mixed,
            self._paintings(place, mask, level, content),
            self.style_shares,
            settings.scaling,
        )
        kept[key] = losses
        return losses

    def _paintings(
        self, place: Place, mask: Tensor | None, level: Level, content: Tensor
    ) -> list[Exemplar]:
        """A place's paintings, as large and in the colours that they have at a level."""
        paintings = []
        for painting, share in place.paintings:
            size = self.stylizer.painting_size(painting, max(level.size))
            own = self.studio.exemplar(painting, size, share)
            image = self._recoloured(own.image, mask, content, own.visible)
            paintings.append(own._replace(image=image))
        return paintings

    def _masks(self, level: Level) -> list[tuple[Place, Tensor | None]]:
        """Each place with its share of each pixel [1, 1, height, width] (None: all of each).

        Masks that overlap share a pixel.
        """
        places = self.stylizer.places
        masks = [colours.luminance(self._tensor(p.mask, level)) for p in places if p.mask]
        if not masks:
            return [(places[0], None)]
        covered = torch.stack(masks).sum(0)
        shares: list[Tensor | None] = [mask / covered.clamp_min(1.0) for mask in masks]
        if self.is_everywhere:
            shares.insert(0, (1 - covered).clamp_min(0))
        return list(zip(places, shares, strict=True))

    def _areas(self, level: Level) -> Iterator[tuple[Place, Tensor | None, Tensor | None]]:
        """Each visible place, with its share of each pixel and the visible part of that share."""
        visible = self._visible(level)
        for place, mask in self._masks(level):
            seen = mask if visible is None else visible if mask is None else mask * visible
            if seen is None or seen.mean() >= LEAST_AREA:
                yield place, mask, seen

    def _recoloured(
        self, painting: Tensor, mask: Tensor | None, content: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """A painting in the photo's colours, if the settings keep them."""
        if self.grey:
            return colours.match_luminance(colours.luminance(painting), content, mask, visible)
        if self.settings.kept_colours == "histogram":
            return colours.match_colours(painting, content, mask, visible)
        return painting

    def _in_paintings_colours(self, image: Tensor, level: Level) -> Tensor:
        """An image with the mean and covariance of the paintings' colours, each place by itself.

        A part of the photo in colours that the painting lacks would otherwise stay as it is, since
        a Gram matrix can be matched without it.
        """
        result = image
        for place, mask, seen in self._areas(level):
            recoloured = colours.match_colours(image, *self._palette(place), seen, LEAST_SPREAD)
            result = result + (1.0 if mask is None else mask) * (recoloured - image)
        return result

    def _palette(self, place: Place) -> tuple[Tensor, Tensor]:
        """The colours of a place's paintings [1, 3, 1, n], and their weights [1, 1, 1, n]."""
        found, weights = [], []
        for painting, share in place.paintings:
            size = images.fitted_size(painting.image.size, PALETTE)
            image, _, visible = self.studio.exemplar(painting, size)
            counts = (torch.ones_like(image[:, :1]) if visible is None else visible).flatten(2)
            found.append(image.flatten(2))
            weights.append(share * counts / counts.sum())
        return torch.cat(found, 2)[:, :, None], torch.cat(weights, 2)[:, :, None]

    def _tensor(self, picture: Picture, level: Level) -> Tensor:
        key = id(picture), level.size  # not the sha256: a photo may be its own mask
        fitted = self._fitted.get(key) or images.resize(picture.colours, level.size)
        if self.grey or not self.is_everywhere:  # `show` needs it at every step
            self._fitted[key] = fitted
        return self._with_margin(self.studio.tensor(fitted), level)

    def _visible(self, level: Level) -> Tensor | None:
        """How visible each pixel of the photo is (None: all fully)."""
        visible = self.studio.visible(self.photo, level.size)
        return None if visible is None else self._with_margin(visible, level)

    def _with_margin(self, image: Tensor, level: Level) -> Tensor:
        return images.mirrored(image, self.margin(level))

    def margin(self, level: Level) -> int:
        """The margin's width at a level; it doubles with the level, as the picture does."""
        if not self.settings.margin:
            return 0
        sizes = {each.size for each in self.levels}  # two levels may have the same
        shrunk = 1 << (len(sizes) - 1)  # how many times smaller the coarsest level is
        coarsest = math.ceil((MARGIN + self.longer // PIXELS_A_MARGIN) / shrunk)
        return round(coarsest * shrunk * max(level.size) / self.longer)


def weighted(loss: Any, factor: float) -> Loss:
    """The same loss with `factor` times the weight."""
    scaled: Loss = dataclasses.replace(loss, weight=factor * loss.weight)
    return scaled


def _distance(loss: Loss, measured: Mapping[str, Tensor]) -> float:
    """A loss, without its weight, of a picture with these statistics and features."""
    if isinstance(loss, StyleLoss):
        return loss.distance(measured[loss.name]).item()
    return float(loss(*(measured[layer] for layer in loss.layers)))
