"""What a run keeps of itself on disk, so that another can go on with it.

A checkpoint is one file: a record of what is painted and how far it has got, and tensors. It
replaces the one before it in one step, so that whatever happens there is a whole one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impasto.errors import ImpastoError, notice
from impasto.pictures.files import settle

SUFFIX = ".checkpoint"
"""What is put behind the name of the picture that is being made."""

EVERY = 30.0
"""Seconds from one checkpoint to the next."""

_RECORD = "record"


def write(path: Path, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: the disk is full, say. Whatever is raised, the checkpoint before it is still there.
    """
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    # Always the same name: what a process that was killed has left is written over.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_RECORD: text}, **arrays)
            settle(file, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint's record and tensors.

    Raises:
        ImpastoError: the file is missing, is no checkpoint, or is damaged.
    """
    with _opened(path) as arrays:
        names = [name for name in arrays.files if name != _RECORD]
        tensors = {name: torch.from_numpy(arrays[name]) for name in names}
        return _record_of(arrays), tensors


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A checkpoint's record alone; see `read`."""
    with _opened(path) as arrays:
        return _record_of(arrays)


def _record_of(arrays: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(arrays[_RECORD].tobytes())
    return record


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except FileNotFoundError:
        raise ImpastoError(
            f"there is no checkpoint {os.fspath(path)}; a run that has ended removes its own"
        ) from None
    except (IsADirectoryError, PermissionError) as error:
        raise ImpastoError(
            f"{os.fspath(path)} cannot be opened ({error.strerror}); check the path"
        ) from None
    except _DAMAGE:
        raise ImpastoError(
            f"{os.fspath(path)} is no checkpoint of impasto, or it is damaged or cut short; "
            "begin anew"
        ) from None


# What NumPy, zip files and JSON raise on files that are not what they should be.
_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class Keeper:
    """Keeps a checkpoint of a run up to date, every so many seconds.

    What is kept is only computed when it is time. A disk that cannot take it is told of once;
    painting goes on.
    """

    def __init__(self, path: Path, every: float = EVERY) -> None:
        self.path = path
        self.every = every
        self.last = -float("inf")
        self.told = False

    def keep(
        self,
        state: Callable[[], tuple[Mapping[str, Any], Mapping[str, Tensor]]],
        *,
        now: bool = False,
    ) -> None:
        """Write a checkpoint if it is time, or now."""
        if not now and time.monotonic() - self.last < self.every:
            return
        try:
            write(self.path, *state())
        except Exception as error:  # no memory for it, say: the painting is worth more
            if not self.told:
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                notice(
                    f"the checkpoint {self.path} cannot be written ({reason}); "
                    "painting goes on without a new one"
                )
            self.told = True
        self.last = time.monotonic()
