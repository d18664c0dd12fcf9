"""What users ask for, each a few lines on the modules below: stylise a photo after a painting."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
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

from impasto import __version__, checkpoints, images
from impasto import memory as memory_of
from impasto.checkpoints import Keeper
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.images import PathLike, Picture
from impasto.levels import Level, plan_levels
from impasto.losses import BorderLoss, ContentLoss, Loss, StyleLoss, TotalVariationLoss
from impasto.objective import Objective, measure
from impasto.optimise import HISTORY, OPTIMISERS, Callback, Optimiser, Step, lbfgs
from impasto.painting import Painting
from impasto.settings import DEVICES, FULL, STARTS, make_settings, nearest, parse_memory
from impasto.tiles import needed, plan, weights
from impasto.vgg import IMAGE, Vgg, load_encoder

MIN_STYLE_DISTANCE = 0.05
"""A photo whose relative style loss is below this counts as being so far from the painting."""

LEAST_HISTORY = 3
"""Pairs of past steps that L-BFGS remembers even where memory is scarce."""

OPTIMISER_VECTORS = 13
"""Vectors as large as the image that an optimiser needs beside its history."""

Source = PathLike | Image.Image | Picture
Stopped = Literal["budget", "flat", "interrupted"]


@dataclass(frozen=True)
class Artwork:
    """A finished painting.

    image: PIL image (RGB). losses: the loss at every step, the start first. parts: the terms of
    the last loss, unweighted, by name. evaluations: how many values and gradients it took.
    stopped: `"budget"` after the steps asked for, `"flat"` when the loss had stopped falling,
    `"interrupted"`. record: what `save` writes into a PNG. checkpoint: the file that the run was
    kept in, if any.
    """

    image: Image.Image
    losses: list[float]
    parts: Mapping[str, float]
    evaluations: int
    stopped: Stopped
    seconds: float
    record: Mapping[str, Any] = field(repr=False)
    checkpoint: Path | None = None

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.losses) - 1

    def save(self, path: PathLike, *, force: bool = False) -> Path:
        """Write the picture in the format of the extension; returns the path written.

        Whole or not at all; an existing file is only replaced with `force`, otherwise a free name
        is chosen (with an `ImpastoNotice`). A PNG carries `record`, see `read_record`. Once the
        picture of a run that has ended is written, its checkpoint is removed.
        """
        written = images.write(self.image, path, record=self.record, force=force)
        if self.checkpoint and self.stopped != "interrupted":
            self.checkpoint.unlink(missing_ok=True)
        return written


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


def resume(
    checkpoint: PathLike,
    *,
    callback: Callback | None = None,
    checkpoint_every: float = checkpoints.EVERY,
) -> Artwork:
    """Go on with a run from the checkpoint that it left, to its end.

    Arguments and errors are those of `Stylizer.paint`.

    Raises:
        ImpastoError: also, the checkpoint is missing or damaged, or a picture that it was begun
            with is gone or has changed.
    """
    record, tensors = checkpoints.read(checkpoint)
    try:
        inputs, settings, note = record["inputs"], record["settings"], record["note"]
        saved = {name: record[name] for name in ("progress", "seconds")}
        Painting.check(saved["progress"], tensors)
        files = {role: (expected["path"], expected["sha256"]) for role, expected in inputs.items()}
        photo, painting = files["photo"][0], files["painting"][0]
    except (KeyError, TypeError, AttributeError) as error:
        raise ImpastoError(
            f"{os.fspath(checkpoint)} was written by another version of impasto "
            f"({error} is missing); begin anew"
        ) from None
    for role, (path, digest) in files.items():
        _check_unchanged(checkpoint, role, Path(path), digest)
    stylizer = Stylizer(painting, **settings)
    keeper = Keeper(Path(checkpoint), checkpoint_every)
    return stylizer._paint(images.read(photo), callback, keeper, note, (saved, tensors))


def _check_unchanged(checkpoint: PathLike, role: str, path: Path, expected: str) -> None:
    if not path.is_file():
        raise ImpastoError(
            f"{os.fspath(checkpoint)} was begun with {path}, which is gone; put the {role} back"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ImpastoError(
            f"{os.fspath(checkpoint)} was begun with another {path}; "
            f"put the {role} of then back, or begin anew"
        )


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

    def paint(
        self,
        photo: Source,
        *,
        callback: Callback | None = None,
        checkpoint: PathLike | None = None,
        checkpoint_every: float = checkpoints.EVERY,
        note: Mapping[str, Any] | None = None,
    ) -> Artwork:
        """Repaint one photo; see `stylize`.

        Args:
            photo: a picture file or a PIL image.
            callback: called with every `Step`, the start (step 0) included.
            checkpoint: a file to keep the run in, from which `resume` goes on if it breaks off;
                `Artwork.save` removes it. All inputs have to be files, then.
            checkpoint_every: seconds from one checkpoint to the next.
            note: what else to write into the checkpoint.
        """
        picture = images.read(photo)
        keeper = None
        if checkpoint is not None:
            for source in self._inputs(picture).values():
                if not Path(source.name).is_file():
                    raise ImpastoError(
                        f"a checkpoint needs inputs that are files, and {source.name} is none; "
                        "save it first"
                    )
            keeper = Keeper(Path(checkpoint), checkpoint_every)
        return self._paint(picture, callback, keeper, dict(note or {}), None)

    def _paint(
        self,
        picture: Picture,
        callback: Callback | None,
        keeper: Keeper | None,
        note: Mapping[str, Any],
        saved: tuple[Mapping[str, Any], Mapping[str, Tensor]] | None,
    ) -> Artwork:
        size = self._result_size(picture)
        self._tell_of_memory(size)
        levels = plan_levels(size, self.settings.steps, self.settings.levels, self._is_possible)
        painting = Painting(_Scene(self, picture), levels, self.settings.evaluations)
        earlier = 0.0
        if saved:
            record, tensors = saved
            painting.restore(record["progress"], tensors)
            earlier = record["seconds"]
        began = time.perf_counter() - earlier

        def state() -> tuple[dict[str, Any], dict[str, Tensor]]:
            record = self._resumable_record(picture) | {"note": note}
            record |= {"progress": painting.record(), "seconds": time.perf_counter() - began}
            return record, painting.tensors()

        def report(step: Step) -> None:
            if callback:
                callback(step)
            if keeper:
                keeper.keep(state)

        def artwork(stopped: Stopped) -> Artwork:
            step = painting.last
            assert step
            record = self._record(picture, size) | {
                "levels": [list(level.size) for level in levels],
                "stopped": stopped,
                "steps": step.step,
                "evaluations": step.evaluations,
                "parts": dict(step.parts),
                "losses": painting.losses,
            }
            # What is interrupted on the way is still as large as was asked for.
            image = images.resize(images.to_image(step.image), size)
            return Artwork(
                image,
                painting.losses,
                step.parts,
                step.evaluations,
                stopped,
                time.perf_counter() - began,
                record,
                keeper.path if keeper else None,
            )

        try:
            with _fitting_into_memory(picture.name, size):
                outcome = painting.paint(report, self.settings.restart)
            return artwork(outcome.reason)
        except KeyboardInterrupt:
            if painting.last is None:
                raise
            if keeper:
                keeper.keep(state, now=True)
            raise Interrupted(artwork("interrupted")) from None

    def _objective(self, content: Tensor, targets: Mapping[str, Tensor]) -> Objective:
        settings = self.settings
        measured = self._measure(content, [self.content_layer], self.style_shares)
        total = sum(self.style_shares.values())
        style = [
            StyleLoss(layer, targets[f"gram {layer}"], share / total, settings.scaling)
            for layer, share in self.style_shares.items()
        ]
        style_weight = 2 * settings.strength * settings.style_weight
        if settings.scaling == "relative":
            # Relative to the photo's own style loss, too: a photo that is far from the painting
            # would else be burdened with more style than one that is close.
            distances = (loss.distance(measured[f"gram {loss.layer}"]).item() for loss in style)
            own = sum(loss.weight * d for loss, d in zip(style, distances, strict=True))
            style_weight /= max(own, MIN_STYLE_DISTANCE)
        losses: list[Loss] = [
            ContentLoss(
                self.content_layer,
                measured[self.content_layer],
                2 * (1 - settings.strength) * settings.content_weight,
                settings.scaling,
            ),
            *(dataclasses.replace(loss, weight=style_weight * loss.weight) for loss in style),
        ]
        if settings.tv:
            losses.append(TotalVariationLoss(2 * settings.strength * settings.tv))
        if settings.border:
            losses.append(BorderLoss(2 * settings.strength * settings.border))
        _, memory = self._shares_of_memory(content.numel())
        return Objective(self.encoder, losses, memory=memory)

    def _measure(
        self, image: Tensor, features: Iterable[str], means: Iterable[str]
    ) -> dict[str, Tensor]:
        _, memory = self._shares_of_memory(image.numel())
        return measure(self.encoder, image, features=features, means=means, memory=memory)

    def _shares_of_memory(self, values: int) -> tuple[int, float]:
        """For an image of so many values: how many pairs of steps the optimiser may remember, and
        how many bytes are left to the objective.
        """
        bound, vector = self._memory(), values * 4
        if self.settings.optimizer != "lbfgs":
            return 0, bound - OPTIMISER_VECTORS * vector
        spare = bound - weights(self.encoder, self._layers())
        pairs = min(HISTORY, max(LEAST_HISTORY, int(spare / 4 / (2 * vector))))
        return pairs, bound - (2 * pairs + OPTIMISER_VECTORS) * vector

    def _memory(self) -> int:
        """How many bytes painting may take."""
        bound = self.settings.memory
        if bound is not None:
            return parse_memory(bound)
        return int(memory_of.SHARE * memory_of.free(self.device))

    def _layers(self) -> list[str]:
        return [IMAGE, self.content_layer, *self.style_shares]

    def _tell_of_memory(self, size: tuple[int, int]) -> None:
        """Say so where not even the smallest tiles keep within the bound."""
        values = size[0] * size[1] * (1 if self.settings.keep_colors else 3)
        _, left = self._shares_of_memory(values)
        bound = self._memory()
        upright = size[1], size[0]
        segments = plan(self.encoder, self._layers(), upright, memory=left)
        needs = bound - left + needed(self.encoder, self._layers(), upright, segments)
        if needs > bound:
            warnings.warn(
                f"{size[0]} x {size[1]} pixels take about {needs / 1e9:.1f} GB even in small "
                f"tiles, more than the {bound / 1e9:.1f} GB allowed; a smaller size takes less",
                ImpastoNotice,
                stacklevel=4,
            )

    def _optimiser(self, content: Tensor) -> Optimiser:
        if self.settings.optimizer != "lbfgs":
            return OPTIMISERS[self.settings.optimizer]
        pairs, _ = self._shares_of_memory(content.numel())
        return functools.partial(lbfgs, history=pairs)

    def _style_targets(self, longer: int, matching: Tensor | None = None) -> dict[str, Tensor]:
        """The painting's Gram matrices; those of its luminance where a photo's is to be matched."""
        if matching is None and longer in self._targets:
            return self._targets[longer]
        style = self._tensor(images.resize(self.painting.image, self._painting_size(longer)))
        if matching is not None:
            style = images.match_luminance(images.luminance(style), matching)
        targets = self._measure(style, [], self.style_shares)
        if matching is None:
            self._targets[longer] = targets
        return targets

    def _result_size(self, photo: Picture) -> tuple[int, int]:
        own = photo.image.size
        wanted = self.settings.size
        size = own if wanted == FULL else images.fitted_size(own, int(wanted))
        self._check_size(photo.name, size, self._layers())
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

    def _is_possible(self, size: tuple[int, int]) -> bool:
        """Whether photo and painting are large enough for all layers at this size."""
        try:
            self._check_size("", size, self._layers())
            self._painting_size(max(size))
        except ImpastoError:
            return False
        return True

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
        inputs = self._inputs(photo)
        if self.start:
            settings["init"] = Path(self.start.name).name
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

    def _inputs(self, photo: Picture) -> dict[str, Picture]:
        inputs = {"photo": photo, "painting": self.painting}
        return inputs | ({"init": self.start} if self.start else {})

    def _resumable_record(self, photo: Picture) -> dict[str, Any]:
        """What `resume` needs to begin the same run again."""
        settings = dataclasses.asdict(self.settings)
        inputs = {
            role: {"path": os.path.abspath(picture.name), "sha256": picture.sha256}  # noqa: PTH100
            for role, picture in self._inputs(photo).items()
        }
        if self.start:
            settings["init"] = inputs["init"]["path"]
        if self.settings.weights is not None and self._weights:
            path = os.path.abspath(self.settings.weights)  # noqa: PTH100
            settings["weights"] = path
            inputs["weights"] = {"path": path, "sha256": self._weights["sha256"]}
        return {"impasto": __version__, "settings": settings, "inputs": inputs}

    def _hash_weights(self) -> dict[str, str] | None:
        if self.settings.weights is None:
            return None
        path = Path(self.settings.weights)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": path.name, "sha256": digest}


class _Scene:
    """A photo as `Painting` sees it: in colour, or its luminance where colours are kept."""

    def __init__(self, stylizer: Stylizer, photo: Picture) -> None:
        self.stylizer = stylizer
        self.photo = photo
        self.grey = stylizer.settings.keep_colors

    def content(self, level: Level) -> Tensor:
        content = self._coloured(level)
        return images.luminance(content) if self.grey else content

    def objective(self, level: Level, content: Tensor) -> tuple[Objective, Optimiser]:
        matching = content if self.grey else None
        targets = self.stylizer._style_targets(max(level.size), matching)
        return self.stylizer._objective(content, targets), self.stylizer._optimiser(content)

    def start(self, level: Level, content: Tensor) -> Tensor:
        start = self.stylizer._starting_image(content, level.size)
        return images.luminance(start) if self.grey and start.shape[1] == 3 else start

    def show(self, level: Level, image: Tensor) -> Tensor:
        return images.with_luminance(self._coloured(level), image) if self.grey else image

    def _coloured(self, level: Level) -> Tensor:
        return self.stylizer._tensor(images.resize(self.photo.image, level.size))


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
