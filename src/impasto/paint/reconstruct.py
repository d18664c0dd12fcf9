"""Reconstruction: from noise, the picture that has a photo's activations at some layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.losses.base import Loss
from impasto.losses.content import ContentLoss
from impasto.losses.styles import Exemplar
from impasto.optimise.base import Callback
from impasto.paint.artworks import Artwork
from impasto.paint.levels import Level
from impasto.paint.run import Painting, Problem, finish
from impasto.paint.studio import Studio
from impasto.pictures import images
from impasto.pictures.images import Picture, Source
from impasto.settings import ReconstructSettings, choose, plain

PRIORS = {4: 1.0, 8: 3.0, 16: 10.0}
"""Weight of the total variation by the deepest layer's stride: 0 below 4, 10 above 16."""


def reconstruct(
    photos: Source | Sequence[Source],
    *,
    weights_of_photos: Sequence[float] | None = None,
    settings: ReconstructSettings | None = None,
    callback: Callback | None = None,
    **choices: Any,
) -> Artwork:
    """Paint, from noise, the picture whose activations at some layers are the photo's.

    It shows what a layer keeps of the photo: early layers keep nearly all of it, late layers keep
    what they recognise in it. Mahendran & Vedaldi 2015 (arXiv:1412.0035), eq. 1, with the
    relative squared error and total variation as prior (eq. 6, beta = 2); Gatys et al. 2015
    (arXiv:1508.06576), eq. 1 and fig. 1.

    Args:
        photos: a picture file or a PIL image; or several, whose activations are averaged to a
            prototype. They are resized and cropped to the size of the first.
        weights_of_photos: how much each photo counts; all the same if not given.
        settings: the settings to begin with, instead of the defaults.
        callback: called with every `Step`, the start (step 0) included.
        **choices: single settings by name, see `ReconstructSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C was pressed; it carries the picture so far.
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
    """Begin to `reconstruct`; iterating over the result paints, step by step."""
    chosen = choose(ReconstructSettings, settings, choices)
    sources: list[Any] = list(photos) if isinstance(photos, list | tuple) else [photos]
    if not sources:
        raise ImpastoError("there is no photo to reconstruct; give at least one")
    pictures = [images.read_visible(source) for source in sources]
    return Painting(_Reconstruction(pictures, _shares(weights_of_photos, len(pictures)), chosen))


class _Reconstruction(Problem):
    """The problem of giving noise the mean activations of some photos."""

    spectrum = "noise"

    def __init__(
        self, photos: Sequence[Picture], shares: Sequence[float], settings: ReconstructSettings
    ) -> None:
        self.photos, self.shares, self.name = photos, shares, photos[0].name
        self.studio = studio = Studio(settings)
        encoder = studio.encoder
        self.layers = encoder.shares(settings.layers or [encoder.content_layer])
        studio.read((), targets=self.layers)
        self.size = studio.result_size(photos[0], settings.size)
        for photo in photos[1:]:
            images.tell_if_enlarged(photo, self.size, "to cover")
        studio.make_room(self.size, photos)
        self.levels = [Level(self.size, settings.steps, 1.0)]
        prior = PRIORS.get(min(encoder.deepest(self.layers).stride, max(PRIORS)), 0.0)
        self.tv = prior if settings.tv is None else settings.tv
        told = self.layers if len(set(self.layers.values())) > 1 else list(self.layers)
        inputs = images.by_role("photo", photos)
        self.record = studio.record("reconstruct", self.size, inputs, layers=told, tv=self.tv)
        if len(photos) > 1:
            self.record["shares"] = shares

    def content(self, level: Level) -> Tensor:
        return self._photo(self.photos[0], level)

    def losses(self, level: Level, content: Tensor, begun: Tensor) -> list[Loss]:  # noqa: ARG002
        pairs = zip(self.photos, self.shares, strict=True)
        photos = (Exemplar(self._photo(photo, level), share) for photo, share in pairs)
        targets = self.studio.mixed(photos, {}, self.layers)
        total = sum(self.layers.values())
        return [ContentLoss(n, targets[n], share / total) for n, share in self.layers.items()]

    def start(self, level: Level, content: Tensor) -> Tensor:  # noqa: ARG002
        # Grey with little noise: what the layers do not see of the start stays in the picture.
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
    number = len(given) if isinstance(given, list | tuple) else 1
    if not isinstance(given, list | tuple) or number != count:
        raise ImpastoError(
            f"there are {number} weights for {count} photos; give one for each photo, or none"
        )
    if not all(0 <= weight < float("inf") for weight in given) or not sum(given):
        raise ImpastoError(
            f"the photos weigh {', '.join(f'{weight:g}' for weight in given)}; "
            "give numbers of at least 0, and one above 0"
        )
    return [weight / sum(given) for weight in given]
