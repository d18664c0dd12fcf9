"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from impasto.errors import ImpastoError


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
