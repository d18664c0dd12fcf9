"""What a layer keeps of a photo: the picture that has its activations, found from noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from impasto.device import ordinary
from impasto.errors import ImpastoError, notice
from impasto.losses.base import Loss
from impasto.losses.content import ContentLoss
from impasto.losses.objective import Objective
from impasto.losses.smoothness import TotalVariationLoss
from impasto.optimise.base import Callback, Optimiser, Spectrum
from impasto.paint.artworks import Artwork
from impasto.paint.levels import Level
from impasto.paint.run import Painting, Problem, finish
from impasto.paint.studio import Studio, named
from impasto.pictures import images
from impasto.pictures.images import Picture, Source
from impasto.settings import ReconstructSettings, choose, plain

PRIORS = {4: 1.0, 8: 3.0, 16: 10.0}
"""Weight of the total variation by the deepest layer's stride; none below, the last beyond."""


def reconstruct(
    photos: Source | Sequence[Source],
    *,
    weights_of_photos: Sequence[float] | None = None,
    settings: ReconstructSettings | None = None,
    callback: Callback | None = None,
    **choices: Any,
) -> Artwork:
    """From noise, the picture whose activations at some layers are the photo's.

    It shows what a layer keeps: of early ones the photo comes back nearly exactly, of late ones
    what was recognised in it. Mahendran & Vedaldi 2015 (arXiv:1412.0035), eq. 1, with the
    relative squared error and total variation as prior (eq. 6, beta = 2); Gatys et al. 2015
    (arXiv:1508.06576), eq. 1 and fig. 1.

    Args:
        photos: a picture file or a PIL image; or several, whose activations are averaged: a
            prototype. They are resized and cropped to the size of the first.
        weights_of_photos: how much each photo counts; all the same if not given.
        settings: how to, where that was put together before.
        callback: called with every `Step`, the start (step 0) included.
        **choices: single settings, see `ReconstructSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    painting = start(photos, weights_of_photos=weights_of_photos, settings=settings, **choices)
    return finish(painting, callback)


@ordinary()
def start(
    photos: Source | Sequence[Source],
    *,
    weights_of_photos: Sequence[float] | None = None,
    settings: ReconstructSettings | None = None,
    **choices: Any,
) -> Painting:
    """Begin to `reconstruct`: whoever iterates paints, step by step."""
    chosen = choose(ReconstructSettings, settings, choices)
    sources: list[Any] = list(photos) if isinstance(photos, list | tuple) else [photos]
    if not sources:
        raise ImpastoError("there is no photo to reconstruct; give at least one")
    pictures = [images.read_visible(source) for source in sources]
    shares = _shares(weights_of_photos, len(pictures))
    studio = Studio(chosen)
    encoder = studio.encoder
    layers = encoder.shares([encoder.content_layer] if chosen.layers is None else chosen.layers)
    studio.read((), targets=layers)
    size = studio.result_size(pictures[0], chosen.size)
    for picture in pictures[1:]:
        if max(size) > max(picture.image.size):
            notice(
                f"{picture.name} has only {picture.image.width} x {picture.image.height} pixels "
                f"and is enlarged to cover {size[0]} x {size[1]}"
            )
    studio.pictures = sum(math.prod(picture.image.size) for picture in pictures)
    studio.tell_of_memory(size)
    stride = encoder.deepest(layers).stride
    prior = PRIORS.get(min(stride, max(PRIORS)), 0.0)
    tv = prior if chosen.tv is None else chosen.tv
    told = layers if len(set(layers.values())) > 1 else list(layers)
    record = studio.record("reconstruct", size, layers=told, tv=tv)
    for number, picture in enumerate(pictures, 1):
        record["photo" if number == 1 else f"photo {number}"] = named(picture)
    if len(pictures) > 1:
        record["shares"] = shares
    return Painting(
        _Reconstruction(studio, layers, pictures, shares, tv),
        [Level(size, chosen.steps, 1.0)],
        pictures[0].name,
        record,
        evaluations=chosen.evaluations,
    )


class _Reconstruction(Problem):
    """Photos as `Painting` sees them: noise that is to have their mean activations."""

    spectrum: Spectrum = "noise"

    def __init__(
        self,
        studio: Studio,
        layers: Mapping[str, float],
        photos: Sequence[Picture],
        shares: Sequence[float],
        tv: float,
    ) -> None:
        self.studio = studio
        self.layers = layers
        self.photos = photos
        self.shares = shares
        self.tv = tv

    def limits(self) -> Mapping[str, Any]:
        return self.studio.limits()

    def content(self, level: Level) -> Tensor:
        return self._photo(self.photos[0], level)

    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]:
        targets: dict[str, Tensor] = {}
        for photo, share in zip(self.photos, self.shares, strict=True):
            measured = self.studio.measure(self._photo(photo, level), self.layers)
            for layer, found in measured.items():  # in place: they can be large
                found.mul_(share)
                targets[layer] = targets[layer].add_(found) if layer in targets else found
        total = sum(self.layers.values())
        losses: list[Loss] = [
            ContentLoss(layer, targets[layer], share / total)
            for layer, share in self.layers.items()
        ]
        if self.tv:
            losses.append(TotalVariationLoss(self.tv))
        return self.studio.objective(losses, content), self.studio.optimiser(content)

    def start(self, level: Level, content: Tensor) -> Tensor:
        del level
        # Grey with little noise: what a layer does not see of it stays as it is.
        return 0.5 + 0.02 * (self.studio.noise(content.shape) - 0.5)

    def show(self, level: Level, image: Tensor) -> Tensor:
        visible = self.studio.visible(self.photos[0], level.size) if len(self.photos) == 1 else None
        return image if visible is None else torch.cat([image, visible], 1)

    def _photo(self, photo: Picture, level: Level) -> Tensor:
        same_shape = images.fitted_size(photo.image.size, max(level.size)) == level.size
        fit = images.resize if same_shape else images.cover
        return self.studio.tensor(fit(photo.colours, level.size))


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else plain(weights)
    if not isinstance(given, list | tuple) or len(given) != count:
        number = len(given) if isinstance(given, list | tuple) else 1
        raise ImpastoError(
            f"there are {number} weights for {count} photos; give each one, or give none"
        )
    if not all(0 <= weight < float("inf") for weight in given) or not sum(given):
        raise ImpastoError(
            f"the photos weigh {', '.join(f'{weight:g}' for weight in given)}; "
            "give numbers of at least 0, one of them above"
        )
    return [weight / sum(given) for weight in given]
