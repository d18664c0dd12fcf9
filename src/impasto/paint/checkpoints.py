"""Checkpoints: files from which a run can be continued; a new one replaces the last in one step."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from impasto import __version__
from impasto.errors import ImpastoError, notice, reason_of
from impasto.pictures.files import is_file, settle, sha256_of
from impasto.pictures.images import PathLike
from impasto.settings import Settings, hints

SUFFIX = ".checkpoint"
"""Appended to the name of a picture, it gives the name of the picture's checkpoint."""

_RECORD = "record"


@dataclass
class Progress:
    """How far a run has got.

    level: counted from 0. level_steps, level_evaluations: those at this level. evaluations: all.
    losses: at every step of all levels, the start first; a later level's start is no step.
    seconds: spent painting.
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

    settings: the fields of `Settings`, by name. inputs: by role, each with its `path`, its path
    `from here` (relative to the checkpoint's folder) and its `sha256`. paintings: pairs of a role
    and a share. regions: pairs of a mask's and a painting's role. note: anything that the caller
    adds. tensors: the picture, and what the optimiser has learned.
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
        """Everything but the tensors, as values that JSON can hold."""
        return record_of(self)


def record_of(checkpoint: Any) -> dict[str, Any]:
    """The fields of a checkpoint of any kind, but for its tensors, as values that JSON can hold."""
    fields = dataclasses.asdict(dataclasses.replace(checkpoint, tensors={}))
    del fields["tensors"]
    record: dict[str, Any] = json.loads(json.dumps(fields))
    return record


class Kept(Protocol):
    """A dataclass with `progress` and `tensors`; `record` is all but the tensors."""

    @property
    def tensors(self) -> dict[str, Tensor]: ...
    @property
    def record(self) -> dict[str, Any]: ...


def write(path: Path, checkpoint: Kept) -> None:
    """Write a checkpoint; after any error (such as a full disk) the previous one is still there."""
    text = np.frombuffer(json.dumps(checkpoint.record).encode(), np.uint8)
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in checkpoint.tensors.items()}
    # The name never changes, so a file that a killed process left behind is overwritten.
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
    """Read a checkpoint; `ImpastoError` if it is missing, damaged or another version's."""
    record, tensors = read_parts(path)
    with of_this_version(path):
        for name in hints(Settings).keys() ^ {*record["settings"]}:
            raise KeyError(name)  # another version has other settings
        _ = tensors["image"]
        record["progress"] = Progress(**record["progress"])
        return Checkpoint(**record, tensors=tensors)


def read_parts(path: PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the record and the tensors of a checkpoint of any kind; errors are those of `read`."""
    with _opened(path) as (record, arrays):
        return record, {n: torch.from_numpy(arrays[n]) for n in arrays.files if n != _RECORD}


def read_record(path: PathLike) -> dict[str, Any]:
    """Read only the `Checkpoint.record`, of any version; errors are those of `read`."""
    with _opened(path) as (record, _):
        return record


def located(path: PathLike, record: Mapping[str, Any]) -> dict[str, Path]:
    """Find the files that a run was begun with, by role; each must have its recorded sha256.

    They may have been moved or copied together with the checkpoint. So each file is looked for at
    its old path relative to the checkpoint, then beside the checkpoint, then at its old full path.

    Raises:
        ImpastoError: a file is gone or has changed, or the record is another version's.
    """
    folder = Path(os.path.realpath(path)).parent
    found: dict[str, Path] = {}
    with of_this_version(path):
        for role, given in record["inputs"].items():
            old = Path(given["path"])
            places = [folder / given.get("from here", old.name), folder / old.name, old]
            there = [place for place in dict.fromkeys(places) if is_file(place)]
            right = [place for place in there if sha256_of(place) == given["sha256"]]
            if not right:
                reason = f"{old}, which is gone; put the {role} back, or beside the checkpoint"
                if there:
                    reason = f"another {there[-1]}; put the original {role} back, or begin anew"
                raise ImpastoError(f"{os.fspath(path)} was begun with {reason}")
            found[role] = right[0]
    return found


def input_of(name: str, digest: str, folder: Path) -> dict[str, str]:
    """The entry for an input file in a checkpoint that lies in `folder`."""
    path = os.path.abspath(name)  # noqa: PTH100
    told = {"path": path, "sha256": digest}
    with contextlib.suppress(ValueError):  # Windows: the file is on another drive
        # Links are resolved first, since ".." of a linked folder leads to another place.
        told["from here"] = os.path.relpath(os.path.realpath(path), folder)
    return told


@contextlib.contextmanager
def of_this_version(path: PathLike) -> Iterator[None]:
    """Turn an error about something missing in a record into an `ImpastoError`."""
    try:
        yield
    except ImpastoError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ImpastoError(
            f"{os.fspath(path)} was written by another version of impasto "
            f"({error} is missing); begin anew"
        ) from None


@dataclass
class Keeper:
    """Writes a run's checkpoint to `path` every `every` seconds.

    begun: the checkpoint as it is before the first step. The first checkpoint that cannot be
    written causes a notice; the work goes on.
    """

    path: Path
    begun: Any  # a `Kept`
    every: float
    last: float = -math.inf
    told: bool = False

    def keep(
        self, state: Callable[[], tuple[Any, dict[str, Tensor]]], *, now: bool = False
    ) -> None:
        """Write a checkpoint if one is due, or if `now`; only then is `state` called."""
        if not now and time.monotonic() - self.last < self.every:
            return
        try:
            progress, tensors = state()
            write(self.path, dataclasses.replace(self.begun, progress=progress, tensors=tensors))
        except Exception as error:  # even a lack of memory must not end painting
            if not self.told:
                self.told = True
                reason = getattr(error, "strerror", None) or reason_of(error)
                notice(
                    f"the checkpoint {self.path} cannot be written ({reason}); "
                    "the work goes on without a new one"
                )
        self.last = time.monotonic()


def essence(record: Mapping[str, Any]) -> object:
    """What is the same in the records of two runs that would make the same picture."""
    inputs = {role: given["sha256"] for role, given in record.get("inputs", {}).items()}
    settings = {n: v for n, v in record.get("settings", {}).items() if n not in inputs}  # no paths
    return inputs, settings, record.get("paintings"), record.get("regions")


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


# What NumPy, zipfile and json raise on a file that is damaged or no checkpoint.
_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
