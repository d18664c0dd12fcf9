"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from impasto.errors import ImpastoError, notice

STANDARD_INPUT = "-"
"""The name of what is read from standard input."""


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file in the folder of `path`, to be filled, and then renamed by the caller.

    What was written is on the disk when the file is closed, with the permissions that a new file
    gets. Where it is still there at the end, it is removed.
    """
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=".impasto-", suffix=".part", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            yield file, temporary  # type: ignore[misc] # a wrapper that does what a file does
        finally:
            temporary.unlink(missing_ok=True)


def settle(file: BinaryIO, temporary: Path) -> None:
    """See to it that what was written is on the disk, ready to be renamed."""
    file.flush()
    os.fsync(file.fileno())
    temporary.chmod(_usual_mode())


def put(temporary: Path, path: Path, force: bool) -> Path:
    """Give a finished file its name; returns the path that it got.

    A file that exists is replaced only with `force`; otherwise `-2`, `-3`, ... is put behind the
    name, and an `ImpastoNotice` says so.
    """
    if force:
        temporary.replace(path)
        return path
    for number in itertools.count(1):
        free = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            free.hardlink_to(temporary)  # fails where the name is taken, whoever was faster
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            if free.exists():
                continue
            temporary.replace(free)
        if free != path:
            notice(f"{path} exists already; {free} was written instead (force replaces it)")
        return free
    raise AssertionError("unreachable")


def write_whole(data: bytes, path: Path, force: bool) -> Path:
    """Write a file whole or not at all, see `put`; returns the path that was written.

    Raises:
        ImpastoError: it cannot be written, or the disk is full.
    """
    try:
        with written_beside(path) as (file, temporary):
            file.write(data)
            settle(file, temporary)
            return put(temporary, path, force)
    except OSError as error:
        raise unwritable(path, error) from None


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there; a name that is too long, or may not be looked at, is none."""
    return os.path.isfile(path)  # noqa: PTH113 # Path.is_file raises


def check_folder(target: Path) -> None:
    """Find out before the work whether a file `target` can be written after it.

    Raises:
        ImpastoError: it is a folder, or its own folder is missing or not writable.
    """
    try:
        if target.is_dir():
            raise ImpastoError(f"{target} is a folder; name a file")
        if not target.parent.is_dir():
            raise ImpastoError(f"there is no folder {target.parent}; create it first")
        target.with_stem(target.stem + "-99").exists()  # a name too long is known at once
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise unwritable(target, error) from None


def unwritable(path: Path, error: OSError) -> ImpastoError:
    """What to say where a file cannot be written."""
    reason = error.strerror or error
    return ImpastoError(
        f"{path} cannot be written ({reason}); choose a place with free space where you may write"
    )


def _usual_mode() -> int:
    """The permissions that a new file gets here; temporary files are private."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
