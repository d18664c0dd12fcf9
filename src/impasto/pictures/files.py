"""Read files and standard input; write files whole or not at all, or to standard output."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from impasto.errors import ImpastoError, notice

STANDARD = "-"
"""Given instead of a file's name: standard input for reading, standard output for writing."""

_one_at_a_time = threading.Lock()


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file exists; False if its name is too long or its folder may not be searched."""
    return os.path.isfile(path)  # noqa: PTH113 # Path.is_file raises


def sha256_of(path: str | os.PathLike[str]) -> str | None:
    """The sha256 of a file's bytes, in hexadecimal digits; None if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def read_whole(source: str | os.PathLike[str]) -> tuple[str, bytes]:
    """Read a picture's file; returns its name for messages, and its bytes.

    Raises:
        ImpastoError: it cannot be read, or is empty.
    """
    try:
        name = os.fspath(source)
        path = Path(name)
    except TypeError:
        raise ImpastoError(
            f"a picture can't be of the type {type(source).__name__}; give the path of a file, or "
            "a PIL image"
        ) from None
    if name == STANDARD:
        return "standard input", _read_standard_input()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImpastoError(f"there is no file {path}; check the path") from None
    except IsADirectoryError:
        raise ImpastoError(f"{path} is a folder; give a picture file") from None
    except (OSError, ValueError) as error:
        raise ImpastoError(f"{path} cannot be opened ({_reason(error)}); check the path") from None
    if not data:
        raise ImpastoError(f"{name} is empty; give a picture file")
    return name, data


def _read_standard_input() -> bytes:
    try:
        with _one_at_a_time:
            data = _all_of(sys.stdin.buffer)
    except AttributeError:
        raise ImpastoError("standard input is closed; give a file") from None
    except (OSError, ValueError) as error:
        raise ImpastoError(f"standard input cannot be read ({error}); give a file") from None
    if not data:
        raise ImpastoError(
            "standard input is empty; send a picture to it, as in: impasto stylize - < photo.jpg"
        )
    return data


@functools.lru_cache(maxsize=1)
def _all_of(stream: BinaryIO) -> bytes:
    """All bytes of a stream, kept because a stream can be read only once."""
    return stream.read()


def check_standard_output() -> BinaryIO:
    """Check, before the work begins, that standard output takes bytes; returns its raw stream.

    Raises:
        ImpastoError: it is closed, or takes only text.
    """
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None or stream.closed:
        raise ImpastoError("standard output is closed, or takes no bytes; name a file")
    # Not the buffered stream: bytes that cannot be written would fail again when Python exits.
    raw: BinaryIO = getattr(stream, "raw", stream)
    return raw


def write_standard_output(data: bytes) -> None:
    """Write `data` to standard output; it is no error if the reader has closed the pipe.

    Raises:
        ImpastoError: see `check_standard_output`; or the disk behind it is full.
    """
    stream, left = check_standard_output(), memoryview(data)
    try:
        sys.stdout.flush()  # keeps earlier prints before the data
        while left:
            left = left[stream.write(left) :]  # a pipe may take a part, or nothing yet (None)
    except BrokenPipeError:
        return
    except (OSError, ValueError) as error:
        raise ImpastoError(
            f"standard output cannot be written ({_reason(error)}); send it somewhere else"
        ) from None


def check_folder(target: Path) -> None:
    """Check, before the work begins, that the file `target` can be written.

    Raises:
        ImpastoError: it is a folder, or the folder that it goes to is missing or not writable.
    """
    try:
        if target.is_dir():
            raise ImpastoError(f"{target} is a folder; name a file")
        if not target.parent.is_dir():
            raise ImpastoError(f"there is no folder {target.parent}; create it first")
        target.with_stem(target.stem + "-99").exists()  # raises if the name is too long
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _unwritable(target, error) from None


def write_whole(data: bytes, path: Path, force: bool) -> Path:
    """Write a file whole or not at all, see `put`; returns the path that was written.

    Raises:
        ImpastoError: it cannot be written, or the disk is full.
    """
    return make_whole(lambda temporary: temporary.write_bytes(data), path, force)


def make_whole(make: Callable[[Path], object], path: Path, force: bool) -> Path:
    """As `write_whole`, with a file that `make` writes under a temporary name beside `path`."""
    temporary = path.parent / f".impasto-{secrets.token_hex(8)}.part"
    try:
        try:
            make(temporary)
            with temporary.open("rb+") as file:
                settle(file)
            return put(temporary, path, force)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def settle(file: BinaryIO) -> None:
    """Make sure that a written file is on the disk before it is renamed."""
    file.flush()
    os.fsync(file.fileno())


def put(temporary: Path, path: Path, force: bool) -> Path:
    """Give a finished file its name; returns the path that it got.

    An existing file is replaced only with `force`; otherwise `-2`, `-3`, ... is added to the name,
    and an `ImpastoNotice` says so.
    """
    if force:
        temporary.replace(path)
        return path
    for free in numbered(path):
        try:
            free.hardlink_to(temporary)  # fails if the name is taken, even at this very moment
        except FileExistsError:
            continue
        except OSError:  # a file system without links
            if free.exists():
                continue
            temporary.replace(free)
        break
    if free != path:
        notice(f"{path} exists already; {free} was written instead (force replaces it)")
    return free


def numbered(path: Path) -> Iterator[Path]:
    """The names that a file may get, to be tried in turn: NAME, NAME-2, NAME-3, ..."""
    yield path
    yield from (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))


def _unwritable(path: Path, error: OSError) -> ImpastoError:
    return ImpastoError(
        f"{path} cannot be written ({_reason(error)}); choose a place with free space where you "
        "may write"
    )


def _reason(error: OSError | ValueError) -> object:
    return getattr(error, "strerror", None) or error
