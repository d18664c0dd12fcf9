"""Train generators from files, with checkpoints: `generate`, and `start_again` to go on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from impasto.networks import files
from impasto.networks.generator import Generator
from impasto.networks.growth import Growth
from impasto.networks.learning import TrainingStep
from impasto.networks.train import Course, TrainingCheckpoint, inputs_of, opened
from impasto.paint import checkpoints
from impasto.paint.checkpoints import Keeper
from impasto.pictures.images import PathLike, Source
from impasto.settings import CHECKPOINT_EVERY, GenerateSettings, choose, hints

KIND = "growth"
"""What the record of a checkpoint says of its kind, if it is that of a generator's training."""


def generate(
    paintings: Source | Sequence[Source],
    *,
    settings: GenerateSettings | None = None,
    callback: Callable[[TrainingStep], None] | None = None,
    **choices: Any,
) -> Generator:
    """Train a generator that makes pictures of the kind of these paintings, from noise.

    Jetchev, Bergmann & Vollgraf 2016 (arXiv:1611.08207) by a critic, Ulyanov et al. 2016
    (arXiv:1603.03417) by Gram matrices; here by either or both.

    Args:
        paintings: a picture file or several; a style is called by the stem of its file.
        settings: the settings to begin with, instead of the defaults.
        callback: called with every `TrainingStep`.
        **choices: single settings by name, see `GenerateSettings`.

    Raises:
        ImpastoError: a file or setting is wrong, or a painting is too small.
    """
    course = start(paintings, settings=settings, **choices)
    for step in course:
        if callback:
            callback(step)
    return Generator(course.training.network)


def start(
    paintings: Source | Sequence[Source],
    *,
    settings: GenerateSettings | None = None,
    checkpoint: PathLike | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    note: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Course[Growth]:
    """Begin a training; iterating over the result trains, step by step. See `generate`.

    Args (beside those of `generate`):
        checkpoint: a file to save the training in, so that `start_again` can continue it.
        checkpoint_every: seconds from one checkpoint to the next.
        note: anything else to write into the checkpoint.
    """
    chosen = choose(GenerateSettings, settings, choices)
    pictures = opened(paintings)
    files.named([picture.name for picture in pictures])  # before anything is computed
    training = Growth(pictures, chosen)
    if checkpoint is None:
        return Course(training, None)
    folder = Path(os.path.realpath(checkpoint)).parent
    inputs = inputs_of(pictures, {"weights": chosen.weights}, folder)
    written = dataclasses.asdict(chosen)
    written["weights"] = inputs["weights"]["path"] if "weights" in inputs else None
    begun = TrainingCheckpoint(written, inputs, note=dict(note or {}), kind=KIND)
    return Course(training, Keeper(Path(checkpoint), begun, checkpoint_every))


def start_again(
    checkpoint: PathLike, *, checkpoint_every: float = CHECKPOINT_EVERY
) -> Course[Growth]:
    """Continue a training from its checkpoint; iterating over the result trains, step by step.

    Raises:
        ImpastoError: the checkpoint is missing, damaged or of another version, or an input file is
            gone or has changed.
    """
    record, tensors = checkpoints.read_parts(checkpoint)
    found = checkpoints.located(checkpoint, record)
    with checkpoints.of_this_version(checkpoint):
        for name in hints(GenerateSettings).keys() ^ {*record["settings"]}:
            raise KeyError(name)  # another version has other settings
        weights = {"weights": found["weights"]} if "weights" in found else {}
        course = start(
            [found[role] for role in record["inputs"] if role.startswith("painting")],
            settings=GenerateSettings(**record["settings"] | weights),
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            note=record["note"],
        )
        course.training.restore(record["progress"], tensors)
    return course
