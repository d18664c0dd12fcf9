"""What users ask for, each a few lines on the modules below: stylise a photo after a painting."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto import __version__, images
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.images import PathLike, Picture
from impasto.losses import BorderLoss, ContentLoss, Loss, StyleLoss, TotalVariationLoss, gram
from impasto.objective import Objective
from impasto.optimise import OPTIMISERS, Callback, Outcome, Step
from impasto.settings import DEVICES, FULL, STARTS, make_settings, nearest
from impasto.vgg import Vgg, load_encoder

MIN_STYLE_DISTANCE = 0.05
"""A photo whose relative style loss is below this counts as being so far from the painting."""

Source = PathLike | Image.Image | Picture
Stopped = Literal["budget", "flat", "interrupted"]


@dataclass(frozen=True)
class Artwork:
    """A finished painting.

    image: PIL image (RGB). losses: the loss at every step, the start first. parts: the terms of
    the last loss, unweighted, by name. evaluations: how many values and gradients it took.
    stopped: `"budget"` after the steps asked for, `"flat"` when the loss had stopped falling,
    `"interrupted"`. record: what `save` writes into a PNG.
    """

    image: Image.Image
    losses: list[float]
    parts: Mapping[str, float]
    evaluations: int
    stopped: Stopped
    seconds: float
    record: Mapping[str, Any] = field(repr=False)

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.losses) - 1

    def save(self, path: PathLike, *, force: bool = False) -> Path:
        """Write the picture in the format of the extension; returns the path written.

        Whole or not at all; an existing file is only replaced with `force`, otherwise a free name
        is chosen (with an `ImpastoNotice`). A PNG carries `record`, see `read_record`.
        """
        return images.write(self.image, path, record=self.record, force=force)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came while painting; `artwork` is the picture as it was then."""

    def __init__(self, artwork: Artwork) -> None:
        super().__init__("interrupted while painting")
        self.artwork = artwork


def stylize(
    photo: Source,
    painting: Source,
    *,
    preset: str | None = None,
    callback: Callback | None = None,
    **settings: Any,
) -> Artwork:
    """Repaint a photo in the manner of a painting (Gatys, Ecker & Bethge 2015, arXiv:1508.06576).

    Args:
        photo: a picture file or a PIL image.
        painting: likewise.
        preset: `"gatys"` or `"lecture"` for published settings; none for impasto's own.
        callback: called with every `Step`, the start (step 0) included.
        **settings: see `Settings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        Interrupted: Ctrl-C; it carries the picture as it is.
    """
    return Stylizer(painting, preset=preset, **settings).paint(photo, callback=callback)


class Stylizer:
    """Paints any number of photos after one painting.

    The encoder is loaded once, and the painting's targets are computed once for each size.
    Arguments and errors are those of `stylize`.
    """

    def __init__(self, painting: Source, *, preset: str | None = None, **settings: Any) -> None:
        self.settings = make_settings(preset, **settings)
        self.device = choose_device(self.settings.device)
        self.painting = images.read(painting)
        init = self.settings.init
        self.start = None if init in STARTS else images.read(init)
        self.encoder = load_encoder(self.settings.weights, self.settings.pooling).to(self.device)
        self.content_layer = self.encoder.layer(self.settings.content_layer)
        self.style_shares = _canonical(self.settings.style_shares, self.encoder)
        self._targets: dict[int, dict[str, Tensor]] = {}
        self._weights = self._hash_weights()
        if self.settings.size != FULL:
            self._painting_size(int(self.settings.size))  # a painting too small is known at once

    def paint(self, photo: Source, *, callback: Callback | None = None) -> Artwork:
        """Repaint one photo; see `stylize`."""
        began = time.perf_counter()
        picture = images.read(photo)
        size = self._result_size(picture)
        losses: list[float] = []
        last: list[Step] = []

        def note(step: Step) -> None:
            losses.append(step.loss)
            last[:] = [step]
            if callback:
                callback(step)

        def artwork(stopped: Stopped) -> Artwork:
            (step,) = last
            record = self._record(picture, size) | {
                "stopped": stopped,
                "steps": step.step,
                "evaluations": step.evaluations,
                "parts": dict(step.parts),
                "losses": losses,
            }
            seconds = time.perf_counter() - began
            image = images.to_image(step.image)
            return Artwork(image, losses, step.parts, step.evaluations, stopped, seconds, record)

        try:
            with _fitting_into_memory(picture.name, size):
                outcome = self._optimise(picture, size, note)
            return artwork(outcome.reason)
        except KeyboardInterrupt:
            if not last:
                raise
            raise Interrupted(artwork("interrupted")) from None

    def _optimise(self, photo: Picture, size: tuple[int, int], callback: Callback) -> Outcome:
        content = self._tensor(images.resize(photo.image, size))
        start = self._starting_image(content, size)
        report = callback
        if self.settings.keep_colors:
            grey = images.luminance(content)
            objective = self._objective(grey, self._style_targets(max(size), matching=grey))
            start = images.luminance(start)

            def report_in_colour(step: Step) -> None:
                coloured = images.with_luminance(content, step.image)
                callback(dataclasses.replace(step, image=coloured))

            report = report_in_colour
        else:
            objective = self._objective(content, self._style_targets(max(size)))
        return OPTIMISERS[self.settings.optimizer](
            objective,
            start,
            steps=self.settings.steps,
            evaluations=self.settings.evaluations,
            restart=self.settings.restart,
            callback=report,
        )

    def _objective(self, content: Tensor, targets: Mapping[str, Tensor]) -> Objective:
        settings = self.settings
        with torch.no_grad():
            features = self.encoder(content, [self.content_layer, *self.style_shares])
        total = sum(self.style_shares.values())
        style = [
            StyleLoss(layer, targets[layer], share / total, settings.scaling)
            for layer, share in self.style_shares.items()
        ]
        style_weight = 2 * settings.strength * settings.style_weight
        if settings.scaling == "relative":
            # Relative to the photo's own style loss, too: a photo that is far from the painting
            # would else be burdened with more style than one that is close.
            own = sum(loss.weight * loss(features[loss.layer]).item() for loss in style)
            style_weight /= max(own, MIN_STYLE_DISTANCE)
        losses: list[Loss] = [
            ContentLoss(
                self.content_layer,
                features[self.content_layer],
                2 * (1 - settings.strength) * settings.content_weight,
                settings.scaling,
            ),
            *(dataclasses.replace(loss, weight=style_weight * loss.weight) for loss in style),
        ]
        if settings.tv:
            losses.append(TotalVariationLoss(2 * settings.strength * settings.tv))
        if settings.border:
            losses.append(BorderLoss(2 * settings.strength * settings.border))
        return Objective(self.encoder, losses)

    def _style_targets(self, longer: int, matching: Tensor | None = None) -> dict[str, Tensor]:
        """The painting's Gram matrices; those of its luminance where a photo's is to be matched."""
        if matching is None and longer in self._targets:
            return self._targets[longer]
        style = self._tensor(images.resize(self.painting.image, self._painting_size(longer)))
        if matching is not None:
            style = images.match_luminance(images.luminance(style), matching)
        with torch.no_grad():
            features = self.encoder(style, self.style_shares)
            targets = {layer: gram(features[layer]) for layer in self.style_shares}
        if matching is None:
            self._targets[longer] = targets
        return targets

    def _result_size(self, photo: Picture) -> tuple[int, int]:
        own = photo.image.size
        wanted = self.settings.size
        size = own if wanted == FULL else images.fitted_size(own, int(wanted))
        self._check_size(photo.name, size, [self.content_layer, *self.style_shares])
        if max(size) > max(own):
            warnings.warn(
                f"{photo.name} has only {own[0]} x {own[1]} pixels "
                f"and is enlarged to {size[0]} x {size[1]}",
                ImpastoNotice,
                stacklevel=4,
            )
        return size

    def _painting_size(self, longer: int) -> tuple[int, int]:
        scaled = max(1, round(longer * self.settings.style_scale))
        size = images.fitted_size(self.painting.image.size, scaled)
        self._check_size(self.painting.name, size, self.style_shares)
        return size

    def _check_size(self, name: str, size: tuple[int, int], layers: Iterable[str]) -> None:
        smallest = self.encoder.min_size(layers)
        if min(size) < smallest:
            deepest = max(layers, key=self.encoder.layers.index)
            raise ImpastoError(
                f"{name} would be {size[0]} x {size[1]} pixels, but {deepest} needs at least "
                f"{smallest} x {smallest}; use a larger size, or layers before it"
            )

    def _starting_image(self, content: Tensor, size: tuple[int, int]) -> Tensor:
        if self.start:
            return self._tensor(images.cover(self.start.image, size))
        if self.settings.init == "painting":
            return self._tensor(images.cover(self.painting.image, size))
        if self.settings.init == "noise":
            generator = torch.Generator().manual_seed(self.settings.seed)
            return torch.rand(content.shape, generator=generator).to(self.device)
        return content

    def _tensor(self, image: Image.Image) -> Tensor:
        return images.to_tensor(image).to(self.device)

    def _record(self, photo: Picture, size: tuple[int, int]) -> dict[str, Any]:
        """What made a picture, without what differs between two runs that made the same."""
        settings = dataclasses.asdict(self.settings)
        settings["content_layer"] = self.content_layer
        settings["style_layers"] = self.style_shares
        inputs = {"photo": photo, "painting": self.painting}
        if self.start:
            settings["init"] = Path(self.start.name).name
            inputs["init"] = self.start
        record: dict[str, Any] = {
            "impasto": __version__,
            "torch": torch.__version__,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "command": "stylize",
            "size": list(size),
            "settings": settings,
        }
        for role, picture in inputs.items():
            record[role] = {"name": Path(picture.name).name, "sha256": picture.sha256}
        if self._weights:
            settings["weights"] = self._weights["name"]
            record["weights"] = self._weights
        return record

    def _hash_weights(self) -> dict[str, str] | None:
        if self.settings.weights is None:
            return None
        path = Path(self.settings.weights)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": path.name, "sha256": digest}


def choose_device(name: str) -> torch.device:
    """The device called `name`; `"auto"` is the first of CUDA, MPS and the CPU that is there.

    Raises:
        ImpastoError: the device is unknown or not on this machine.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if name not in there:
        raise ImpastoError(f"there is no device {name!r}; did you mean {nearest(name, DEVICES)!r}?")
    if not there[name]:
        raise ImpastoError(f"the device {name!r} is not on this machine; use 'cpu' or 'auto'")
    return torch.device(name)


@contextlib.contextmanager
def _fitting_into_memory(name: str, size: tuple[int, int]) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # How torch says it, on a CPU and on accelerators.
        told = re.search("allocate memory|out of memory", str(error), re.IGNORECASE)
        if isinstance(error, MemoryError) or told:
            raise ImpastoError(
                f"{name} at {size[0]} x {size[1]} pixels does not fit into memory; "
                "use a smaller size"
            ) from None
        raise


def _canonical(shares: Mapping[str, float], encoder: Vgg) -> dict[str, float]:
    canonical: dict[str, float] = {}
    for name, share in shares.items():
        layer = encoder.layer(name)
        canonical[layer] = canonical.get(layer, 0.0) + share
    return canonical
