"""Several pictures on one labelled page, and how the runs behind it are told of."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from impasto import __version__, images
from impasto.artworks import Artwork, Stopped
from impasto.errors import ImpastoNotice
from impasto.images import PathLike
from impasto.optimise import Callback, Step

RunCallback = Callable[[str, Step], None]
"""Called with every step of every run, and with what the run is called: `"2 of 5: relu2_1"`."""


@dataclass(frozen=True)
class Sheet:
    """A page of pictures.

    image: PIL image (RGB). record: what `save` writes into a PNG. stopped: `"budget"` when all of
    it was made, `"interrupted"` where something is missing.
    """

    image: Image.Image
    record: Mapping[str, Any] = field(repr=False)
    stopped: Stopped = "budget"

    def save(self, path: PathLike, *, force: bool = False) -> Path:
        """Write the page by the rules of `Artwork.save`; returns the path written."""
        return images.write(self.image, path, record=self.record, force=force)


class SheetInterrupted(KeyboardInterrupt):
    """Ctrl-C came on the way; `sheet` is the page with what there was by then."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__("interrupted on the way")
        self.sheet = sheet


def sheet_record(command: str, image: Image.Image, runs: Mapping[str, Artwork]) -> dict[str, Any]:
    """What a sheet's PNG carries: of each run what its own would, without the losses' course."""
    told = []
    for label, artwork in runs.items():
        record = {name: value for name, value in artwork.record.items() if name != "losses"}
        told.append({"run": label, **record, "loss": artwork.losses[-1]})
    return {"impasto": __version__, "command": command, "size": list(image.size), "runs": told}


def numbered(callback: RunCallback | None, number: int, runs: int, label: str) -> Callback:
    """The callback for the steps of one of several runs."""

    def report(step: Step) -> None:
        if callback:
            callback(f"{number} of {runs}: {label}", step)

    return report


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Let every notice through once, however many of the runs give it."""
    told: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def once(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, ImpastoNotice) or str(message) not in told:
                told.add(str(message))
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = once
        yield
