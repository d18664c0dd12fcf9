"""A picture that was made, and how one is told of that was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from impasto.pictures import images
from impasto.pictures.images import PathLike

Stopped = Literal["budget", "flat", "interrupted"]


@dataclass(frozen=True)
class Artwork:
    """A finished picture.

    image: PIL image: RGB, or RGBA where parts of the photo are transparent. losses: the loss at
    every step, the start first. parts: the terms of the last loss, unweighted, by name.
    evaluations: how many values and gradients it took. stopped: `"budget"` after the steps asked
    for, `"flat"` when the loss had stopped falling, `"interrupted"`. record: what `save` writes
    into a PNG. checkpoint: the file that the run was kept in, if any.
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
        return len(self.losses) - 1

    def save(self, path: PathLike, *, force: bool = False, format: str | None = None) -> Path:  # noqa: A002
        """Write the picture in the format of the extension; returns the path written.

        Whole or not at all; an existing file is only replaced with `force`, otherwise a free name
        is chosen (with a notice). A PNG carries `record`, see `read_record`. To standard output
        where the path is `"-"`, in a `format` such as `"png"`. Once the picture of a run that has
        ended is written, its checkpoint is removed.
        """
        written = images.write(self.image, path, record=self.record, force=force, format=format)
        if self.checkpoint and self.stopped != "interrupted":
            self.checkpoint.unlink(missing_ok=True)
        return written


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came while painting; `artwork` is the picture as it was then."""

    def __init__(self, artwork: Artwork) -> None:
        super().__init__("interrupted while painting")
        self.artwork = artwork
