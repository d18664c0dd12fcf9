"""The picture that a run made, and the exception that carries it when the run is interrupted."""

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
    """The picture that a run made.

    image: PIL image, RGB, or RGBA if parts of the photo are transparent. losses: the loss at every
    step, the start first. parts: the unweighted terms of the last loss, by name. evaluations: how
    often the loss and its gradient were computed. stopped: `"budget"` after the steps or
    evaluations asked for, `"flat"` when the loss had stopped falling, or `"interrupted"`. record:
    what `save` writes into a PNG. checkpoint: the run's checkpoint file, if any.
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

        The file is written whole or not at all. Only `force` replaces an existing file; otherwise
        a free name is chosen, with a notice. A PNG carries `record`, see `read_record`. The path
        `"-"` is standard output, which needs a `format` such as `"png"`. Once the picture of a
        run that was not interrupted is written, its checkpoint is removed.
        """
        written = images.write(self.image, path, record=self.record, force=force, format=format)
        if self.checkpoint and self.stopped != "interrupted":
            self.checkpoint.unlink(missing_ok=True)
        return written


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed while painting; `artwork` is the picture so far."""

    def __init__(self, artwork: Artwork) -> None:
        super().__init__("interrupted while painting")
        self.artwork = artwork
