"""The pictures that browsers sent: kept in a folder for some days, each under a secret id."""

from __future__ import annotations

import re
import secrets
import threading
import time
from pathlib import Path

from impasto.errors import ImpastoError
from impasto.jobs.orders import check_picture
from impasto.pictures import files, images
from impasto.settings import WorkSettings

MOST, MOST_BYTES = 500, 2 * 2**30
"""The most pictures that are kept, and the most bytes that they may take."""

PREVIEW = 1280
"""The longer side of what the page shows of them, in pixels."""

_ID = re.compile(r"[\w-]{22}")


class Forgotten(ImpastoError):
    """There is no such picture, or no longer."""


class Photos:
    """Pictures in a folder; each is the bytes that came, and a JPEG that any browser can show."""

    def __init__(self, folder: Path, limits: WorkSettings) -> None:
        self.folder, self.limits = folder, limits
        folder.mkdir(parents=True, exist_ok=True)
        self._one_by_one = threading.Lock()  # a large picture takes much memory

    def add(self, data: bytes, name: str) -> str:
        """Keep a picture; returns its id.

        Raises:
            ImpastoError: it is no picture, is damaged, or has too many pixels.
        """
        check_picture(data, name, self.limits)
        with self._one_by_one:
            image = images.read_visible(images.read_bytes(data, name)).image
            if max(image.size) > PREVIEW:
                image = images.resize(image, images.fitted_size(image.size, PREVIEW))
            preview = images.encoded(image, "jpg")
        id_ = secrets.token_urlsafe(16)
        files.write_whole(preview, self.folder / f"{id_}.jpg", force=True)
        files.write_whole(data, self.folder / id_, force=True)
        self.tidy()
        return id_

    def data(self, id: str) -> bytes:  # noqa: A002
        """The bytes of a picture as they came; `Forgotten` if there is none."""
        return self._path(id).read_bytes()

    def preview(self, id: str) -> bytes:  # noqa: A002
        """A picture as a JPEG that is not too large to show."""
        return self._path(id).with_suffix(".jpg").read_bytes()

    def knows(self, id: str) -> bool:  # noqa: A002
        """Whether there is a picture with this id."""
        return bool(_ID.fullmatch(id)) and (self.folder / id).is_file()

    def _path(self, id: str) -> Path:  # noqa: A002
        if not self.knows(id):
            raise Forgotten("this photo is no longer here; choose it again")
        return self.folder / id

    def tidy(self) -> None:
        """Remove the oldest pictures that are beyond the limits."""
        oldest = time.time() - self.limits.kept_days * 86400
        found = [(path.stat(), path) for path in self.folder.glob("*") if not path.suffix]
        total = 0
        for number, (stat, path) in enumerate(sorted(found, key=lambda each: -each[0].st_mtime)):
            total += stat.st_size
            if number >= MOST or (number and total > MOST_BYTES) or stat.st_mtime < oldest:
                path.unlink(missing_ok=True)
                path.with_suffix(".jpg").unlink(missing_ok=True)
