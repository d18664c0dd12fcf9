"""Several pictures on one labelled page, and how the runs behind it are told of."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from impasto import __version__
from impasto.errors import ImpastoError, notice, reason_of
from impasto.optimise.base import Callback, Step
from impasto.paint.artworks import Artwork, Stopped
from impasto.pictures import images
from impasto.pictures.images import PathLike

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


def check_drawing() -> None:
    """Import what draws pages, with matplotlib, which nothing else needs: before the work.

    Raises:
        ImpastoError: it cannot be imported.
    """
    try:
        if "matplotlib" not in sys.modules:
            _import_matplotlib()
        importlib.import_module("impasto.pages.layout")
    except Exception as error:
        raise ImpastoError(
            f"pages are drawn with matplotlib, which cannot be imported ({reason_of(error)}); "
            "mend it or its settings"
        ) from error


def _import_matplotlib() -> None:
    """Import it even where the environment names a backend that it does not know.

    It would refuse to be imported over what no page needs. A backend that it knows is the user's
    own choice, for what else is drawn, and is set as it would have set it.
    """
    name = "MPLBACKEND"
    backend = os.environ.pop(name, "")
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        if backend:
            os.environ[name] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def drawn(
    draw: Callable[[], Image.Image], pictures: Sequence[Sequence[Image.Image | None]]
) -> tuple[Image.Image, bool]:
    """The page that `draw` makes of pictures; or, where it fails, these alone, row by row.

    What was painted took its time and is not lost over its labels: there is a notice instead. Also
    whether Ctrl-C came meanwhile.
    """
    interrupted = False
    try:
        return draw(), interrupted
    except KeyboardInterrupt:
        reason, interrupted = "interrupted", True
    except Exception as error:
        reason = reason_of(error)
    page = _plain(pictures)
    notice(f"the page cannot be drawn ({reason}); its pictures are put side by side without labels")
    return page, interrupted


def _plain(pictures: Sequence[Sequence[Image.Image | None]]) -> Image.Image:
    """Pictures of up to 512 pixels in rows and columns, on white."""
    margin, longest = 16, 512
    cells = [(row, column) for row, line in enumerate(pictures) for column in range(len(line))]
    small = {}
    for row, column in cells:
        if image := pictures[row][column]:
            longer = min(longest, max(image.size))
            size = images.fitted_size(image.size, longer)
            small[row, column] = images.resize(image.convert("RGB"), size)
    width = max((image.width for image in small.values()), default=1) + margin
    height = max((image.height for image in small.values()), default=1) + margin
    columns = max((len(line) for line in pictures), default=0)
    page = Image.new("RGB", (columns * width + margin, len(pictures) * height + margin), "white")
    for (row, column), image in small.items():
        page.paste(image, (column * width + margin, row * height + margin))
    return page


def numbered(callback: RunCallback | None, number: int, runs: int, label: str) -> Callback:
    """The callback for the steps of one of several runs."""

    def report(step: Step) -> None:
        if callback:
            callback(f"{number} of {runs}: {label}", step)

    return report
