"""What a run keeps of itself on disk, so that another can go on with it.

A checkpoint is one file. It replaces the one before it in one step, so that whatever happens there
is a whole one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impasto import __version__
from impasto.errors import ImpastoError, notice, reason_of
from impasto.pictures.files import is_file, settle
from impasto.pictures.images import PathLike
from impasto.settings import CHECKPOINT_EVERY, Settings

SUFFIX = ".checkpoint"
"""What is put behind the name of the picture that is being made."""

_RECORD = "record"


@dataclass
class Progress:
    """How far a picture has got: at which level, after how many steps, and what came of them.

    losses: at every step of all levels, the start first; a new level's own start is no step.
    evaluations: spent in all. seconds: of painting.
    """

    level: int = 0
    level_steps: int = 0
    level_evaluations: int = 0
    evaluations: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A run: what it was begun with, and how far it has got.

    settings: those of `Settings`, by name. inputs: by role, each with its `path`, its path `from
    here` (from the checkpoint's folder), and its `sha256`. paintings: their roles, each with its
    share. regions: the roles of masks and paintings. note: whatever else. tensors: the picture,
    and what the optimiser has learned.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, str]]
    paintings: list[tuple[str, float]]
    regions: list[tuple[str, str]]
    note: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    impasto: str = __version__

    @property
    def record(self) -> dict[str, Any]:
        """All but the tensors, as JSON holds it."""
        fields = dataclasses.asdict(dataclasses.replace(self, tensors={}))
        del fields["tensors"]
        record: dict[str, Any] = json.loads(json.dumps(fields))
        return record

    def is_same_run(self, record: Mapping[str, Any]) -> bool:
        """Whether another checkpoint's record is of a run that would make the same picture."""
        return _essence(self.record) == _essence(record)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: the disk is full, say. Whatever is raised, the checkpoint before it is still there.
    """
    text = np.frombuffer(json.dumps(checkpoint.record).encode(), np.uint8)
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in checkpoint.tensors.items()}
    # Always the same name: what a process that was killed has left is written over.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_RECORD: text}, **arrays)
            settle(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: PathLike) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ImpastoError: the file is missing, is no checkpoint, is damaged, or is another version's.
    """
    with _opened(path) as (record, arrays):
        tensors = {n: torch.from_numpy(arrays[n]) for n in arrays.files if n != _RECORD}
    with of_this_version(path):
        known = {setting.name for setting in dataclasses.fields(Settings)}
        for name in known ^ {*record["settings"]}:
            raise KeyError(name)  # another version had other ones
        _ = tensors["image"]
        record["progress"] = Progress(**record["progress"])
        return Checkpoint(**record, tensors=tensors)


def read_record(path: PathLike) -> dict[str, Any]:
    """A checkpoint's record alone, whatever the version; see `Checkpoint.record` and `read`."""
    with _opened(path) as (record, _):
        return record


def located(path: PathLike, record: Mapping[str, Any]) -> dict[str, Path]:
    """Where the files that a run was begun with are now, by role; the right ones by their sha256.

    A folder may have been moved or copied, with its checkpoint: they are looked for where they lay
    as seen from the checkpoint, then right beside it, then at their old place.

    Raises:
        ImpastoError: one of them is gone or has changed, or the record is another version's.
    """
    folder = Path(os.path.realpath(path)).parent
    found: dict[str, Path] = {}
    with of_this_version(path):
        for role, given in record["inputs"].items():
            old = Path(given["path"])
            places = [folder / given.get("from here", old.name), folder / old.name, old]
            there = [place for place in dict.fromkeys(places) if is_file(place)]
            right = [place for place in there if _sha256(place) == given["sha256"]]
            if not right:
                reason = f"{old}, which is gone; put the {role} back, or beside the checkpoint"
                if there:
                    reason = f"another {there[-1]}; put the {role} of then back, or begin anew"
                raise ImpastoError(f"{os.fspath(path)} was begun with {reason}")
            found[role] = right[0]
    return found


def input_of(name: str, digest: str, folder: Path) -> dict[str, str]:
    """What a checkpoint in a folder says of a file that went in."""
    path = os.path.abspath(name)  # noqa: PTH100
    told = {"path": path, "sha256": digest}
    with contextlib.suppress(ValueError):  # on another drive
        # As the system sees it: ".." of a folder that is a link leads elsewhere.
        told["from here"] = os.path.relpath(os.path.realpath(path), folder)
    return told


@contextlib.contextmanager
def of_this_version(path: PathLike) -> Iterator[None]:
    """Turn what is raised where a record lacks something into one sentence."""
    try:
        yield
    except ImpastoError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImpastoError(
            f"{os.fspath(path)} was written by another version of impasto "
            f"({error} is missing); begin anew"
        ) from None


class Keeper:
    """Keeps a checkpoint of a run up to date, every so many seconds.

    begun: the checkpoint of the run before its first step. What has come of it is only asked for
    when it is time. A disk that cannot take it is told of once; painting goes on.
    """

    def __init__(self, path: Path, begun: Checkpoint, every: float = CHECKPOINT_EVERY) -> None:
        self.path = path
        self.begun = begun
        self.every = every
        self.last = -float("inf")
        self.told = False

    def keep(
        self, state: Callable[[], tuple[Progress, dict[str, Tensor]]], *, now: bool = False
    ) -> None:
        """Write a checkpoint if it is time, or now."""
        if not now and time.monotonic() - self.last < self.every:
            return
        try:
            progress, tensors = state()
            write(self.path, dataclasses.replace(self.begun, progress=progress, tensors=tensors))
        except Exception as error:  # no memory for it, say: the painting is worth more
            if not self.told:
                self.told = True
                reason = getattr(error, "strerror", None) or reason_of(error)
                notice(
                    f"the checkpoint {self.path} cannot be written ({reason}); "
                    "painting goes on without a new one"
                )
        self.last = time.monotonic()


def _essence(record: Mapping[str, Any]) -> object:
    """What has to be the same in two checkpoints' records for one run to go on with the other."""
    inputs = {role: given["sha256"] for role, given in record.get("inputs", {}).items()}
    settings = {n: v for n, v in record.get("settings", {}).items() if n not in inputs}  # paths
    return inputs, settings, record.get("paintings"), record.get("regions")


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@contextlib.contextmanager
def _opened(path: PathLike) -> Iterator[tuple[dict[str, Any], Any]]:
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield json.loads(arrays[_RECORD].tobytes()), arrays
        return
    except FileNotFoundError:
        reason = f"there is no checkpoint {name}; a run that has ended removes its own"
    except (IsADirectoryError, PermissionError) as error:
        reason = f"{name} cannot be opened ({error.strerror}); check the path"
    except _DAMAGE:
        reason = f"{name} is no checkpoint of impasto, or it is damaged or cut short; begin anew"
    raise ImpastoError(reason)


# What NumPy, zip files and JSON raise on files that are not what they should be.
_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
