"""Train networks from files, with checkpoints: `train`, and `start_again` after an interruption."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from impasto import __version__
from impasto.errors import ImpastoError, notice
from impasto.networks import files
from impasto.networks.learning import Learning, TrainingStep
from impasto.networks.network import Network
from impasto.networks.photos import Photos
from impasto.networks.training import Training
from impasto.paint import checkpoints
from impasto.paint.checkpoints import Keeper
from impasto.pictures import images
from impasto.pictures.files import is_file, sha256_of
from impasto.pictures.images import PathLike, Picture, Source
from impasto.settings import CHECKPOINT_EVERY, TrainSettings, choose, hints

KIND = "training"
"""What the record of a checkpoint says of its kind, if it is that of a training."""


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A training: what it was begun with, and how far it has got; see `checkpoints.Checkpoint`.

    settings: the fields of its settings. inputs: files by role: painting, painting 2, ..., and
    network if there is a base. photos: the folder, as `path` and `from here`, like an input. known:
    the names of its photos in use, and those that are `held_out`. A generator has no photos.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    photos: Mapping[str, str] = field(default_factory=dict)
    known: Sequence[str] = ()
    held_out: Sequence[str] = ()
    note: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    kind: str = KIND
    impasto: str = __version__

    @property
    def record(self) -> dict[str, Any]:
        """Everything but the tensors, as values that JSON can hold."""
        return checkpoints.record_of(self)


_Trained = TypeVar("_Trained", bound=Learning)


class Course(Generic[_Trained]):
    """A training that writes checkpoints; iterating over it trains, step by step."""

    def __init__(self, training: _Trained, keeper: Keeper | None) -> None:
        self.training, self.keeper = training, keeper

    def __iter__(self) -> Iterator[TrainingStep]:
        for step in self.training:
            if self.keeper:
                self.keeper.keep(self.training.state)
            yield step

    def keep(self) -> None:
        """Write the checkpoint now, if one is kept."""
        if self.keeper:
            self.keeper.keep(self.training.state, now=True)

    @property
    def checkpoint(self) -> Path | None:
        """The path of the checkpoint, if one is kept."""
        return self.keeper.path if self.keeper else None

    def end(self) -> None:
        """Remove the checkpoint, once the network is saved."""
        if self.keeper:
            self.keeper.path.unlink(missing_ok=True)


def train(
    paintings: Source | Sequence[Source],
    photos: PathLike,
    *,
    base: PathLike | None = None,
    settings: TrainSettings | None = None,
    callback: Callable[[TrainingStep], None] | None = None,
    **choices: Any,
) -> Network:
    """Train a network to repaint any photo after these paintings in one pass.

    Johnson, Alahi & Fei-Fei 2016 (arXiv:1603.08155), for several paintings as in Dumoulin, Shlens &
    Kudlur 2017 (arXiv:1610.07629).

    Args:
        paintings: a picture file or several; a style is called by the stem of its file.
        photos: a folder with photos; those in the folders in it count, too.
        base: a network, to which these paintings are added. Only their scales and shifts are
            learned; the styles that it has stay as they are.
        settings: the settings to begin with, instead of the defaults.
        callback: called with every `TrainingStep`.
        **choices: single settings by name, see `TrainSettings`.

    Raises:
        ImpastoError: a file or setting is wrong, or there are too few photos.
    """
    course = start(paintings, photos, base=base, settings=settings, **choices)
    for step in course:
        if callback:
            callback(step)
    return Network(course.training.network)


def start(
    paintings: Source | Sequence[Source],
    photos: PathLike | Photos,
    *,
    base: PathLike | None = None,
    settings: TrainSettings | None = None,
    checkpoint: PathLike | None = None,
    checkpoint_every: float = CHECKPOINT_EVERY,
    note: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Course[Training]:
    """Begin a training; iterating over the result trains, step by step. See `train`.

    Args (beside those of `train`):
        checkpoint: a file to save the training in, so that `start_again` can continue it.
        checkpoint_every: seconds from one checkpoint to the next.
        note: anything else to write into the checkpoint.
    """
    chosen = choose(TrainSettings, settings, choices)
    pictures = opened(paintings)
    path = None if base is None else files.located(base)
    network = None if path is None else files.read(path)
    files.named([picture.name for picture in pictures], network)  # before all photos are read
    if network and chosen.licence:
        raise ImpastoError("a network that is trained on keeps its licence; leave licence out")
    known = photos if isinstance(photos, Photos) else Photos(photos, chosen.size, chosen.seed)
    training = Training(pictures, known, chosen, network)
    if checkpoint is None:
        return Course(training, None)
    folder = Path(os.path.realpath(checkpoint)).parent
    inputs = inputs_of(pictures, {"network": path, "weights": chosen.weights}, folder)
    written = dataclasses.asdict(chosen)
    written["weights"] = inputs["weights"]["path"] if "weights" in inputs else None
    where = checkpoints.input_of(str(known.folder), "", folder)
    used, held_out = ([known.name(p) for p in paths] for paths in (known.paths, known.held_out))
    begun = TrainingCheckpoint(written, inputs, where, used, held_out, dict(note or {}))
    return Course(training, Keeper(Path(checkpoint), begun, checkpoint_every))


def opened(paintings: Source | Sequence[Source]) -> list[Picture]:
    """A painting, or several, read.

    Raises:
        ImpastoError: there is none, or one cannot be read.
    """
    several = isinstance(paintings, Sequence) and not isinstance(paintings, str)
    given: Sequence[Any] = paintings if several else [paintings]  # type: ignore[assignment]
    if not given:
        raise ImpastoError("a network needs a style; give a painting")
    return [images.read_visible(each) for each in given]


def inputs_of(
    paintings: Sequence[Picture], others: Mapping[str, PathLike | None], folder: Path
) -> dict[str, dict[str, str]]:
    """The input files of a training, by role, for a checkpoint in this folder.

    Raises:
        ImpastoError: a painting is no file.
    """
    for picture in paintings:
        if not is_file(picture.name):
            raise ImpastoError(
                f"a checkpoint needs paintings that are files, and {picture.name} is none; save it "
                "first"
            )
    named = {role: (p.name, p.sha256) for role, p in images.by_role("painting", paintings).items()}
    for role, other in others.items():
        if other is not None and (digest := sha256_of(other)):
            named[role] = str(other), digest
    return {role: checkpoints.input_of(*told, folder) for role, told in named.items()}


def start_again(
    checkpoint: PathLike, *, checkpoint_every: float = CHECKPOINT_EVERY
) -> Course[Training]:
    """Continue a training from its checkpoint; iterating over the result trains, step by step.

    Raises:
        ImpastoError: the checkpoint is missing, damaged or of another version, an input file is
            gone or has changed, or too few photos are left.
    """
    record, tensors = checkpoints.read_parts(checkpoint)
    found = checkpoints.located(checkpoint, record)
    with checkpoints.of_this_version(checkpoint):
        for name in hints(TrainSettings).keys() ^ {*record["settings"]}:
            raise KeyError(name)  # another version has other settings
        weights = {"weights": found["weights"]} if "weights" in found else {}
        settings = TrainSettings(**record["settings"] | weights)
        photos = Photos(
            _folder(checkpoint, record["photos"]),
            settings.size,
            settings.seed,
            held_out=record["held_out"],
            others=record["known"],
        )
        gone = len({*record["known"], *record["held_out"]}) - len(photos.paths + photos.held_out)
        if gone:
            notice(f"photos that are gone since the training began: {gone}; it goes on without")
        roles = [role for role in record["inputs"] if role.startswith("painting")]
        course = start(
            [found[role] for role in roles],
            photos,
            base=found.get("network"),
            settings=settings,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            note=record["note"],
        )
        course.training.restore(record["progress"], tensors)
    return course


def _folder(checkpoint: PathLike, photos: Mapping[str, str]) -> Path:
    """The folder of photos: where it lies from the checkpoint, or at its old full path."""
    here = Path(os.path.realpath(checkpoint)).parent / photos.get("from here", "")
    return here if "from here" in photos and here.is_dir() else Path(photos["path"])
