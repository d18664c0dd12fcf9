"""A page of several runs: how they are painted one after another, and what is handed over."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from impasto import __version__
from impasto.errors import notice, reason_of, told_once
from impasto.optimise.base import Step
from impasto.paint.artworks import Artwork, Stopped
from impasto.paint.run import Painting
from impasto.pictures import images
from impasto.pictures.images import PathLike

RunCallback = Callable[[str, Step], None]
"""Called with every step of every run, and with what the run is called: `"2 of 5: relu2_1"`."""


@dataclass(frozen=True)
class Run:
    """One of several runs.

    label: what it is called. choices: what the varied options of a comparison were, by name.
    artwork: what came of it, or none and `error` says why. evaluations, seconds: at every step,
    as many as `artwork.losses`; the time from the first evaluation on, so that no run pays for
    what the first one sets up.
    """

    label: str
    choices: Mapping[str, str] = field(default_factory=dict)
    artwork: Artwork | None = None
    error: str = ""
    evaluations: Sequence[int] = ()
    seconds: Sequence[float] = ()

    @property
    def stopped(self) -> str:
        """Why there is no further step, see `Artwork`; `"failed"` where there is none at all."""
        return self.artwork.stopped if self.artwork else "failed"


@dataclass(frozen=True)
class Sheet:
    """A page of pictures.

    image: PIL image (RGB). record: what `save` writes into a PNG. stopped: `"budget"` when all of
    it was made, `"interrupted"` where something is missing. runs: what is on it, if it was painted.
    """

    image: Image.Image
    record: Mapping[str, Any] = field(repr=False)
    stopped: Stopped = "budget"
    runs: Sequence[Run] = field(default=(), repr=False)

    def save(self, path: PathLike, *, force: bool = False, format: str | None = None) -> Path:  # noqa: A002
        """Write the page by the rules of `Artwork.save`; returns the path written."""
        return images.write(self.image, path, record=self.record, force=force, format=format)


class SheetInterrupted(KeyboardInterrupt):
    """Ctrl-C came on the way; `sheet` is the page with what there was by then."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__("interrupted on the way")
        self.sheet = sheet


Begin = tuple[Run, Callable[[], Painting]]
"""A run before its first step, and what begins to paint it."""

_Kind = TypeVar("_Kind", bound=Sheet)


def paint_sheet(
    kind: type[_Kind],
    command: str,
    begins: Sequence[Begin],
    draw: Callable[[Sequence[Run]], Image.Image],
    callback: RunCallback | None,
    **inputs: Any,
) -> _Kind:
    """Paint runs one after another and draw them on a page.

    What goes wrong with one is its own affair: there is a notice. What is painted took longer than
    to draw it: after Ctrl-C it is drawn all the same, and drawn anew where it comes meanwhile.

    Raises:
        SheetInterrupted: Ctrl-C; or, where there is no picture at all, whatever was raised first.
    """
    runs = _paint_all(begins, callback)
    stopped: Stopped = "budget"
    if len(runs) < len(begins) or runs[-1].stopped == "interrupted":
        stopped = "interrupted"
    try:
        page = draw(runs)
    except KeyboardInterrupt:
        page, stopped = draw(runs), "interrupted"
    told = []
    for run in runs:
        if artwork := run.artwork:  # what its own PNG would carry, without the losses' course
            own = {name: value for name, value in artwork.record.items() if name != "losses"}
            told.append({"run": run.label, **own, "loss": artwork.losses[-1]})
    size = list(page.size)
    record = {"impasto": __version__, "command": command, "size": size, "runs": told, **inputs}
    sheet = kind(page, record, stopped, runs)
    if stopped == "interrupted":
        raise SheetInterrupted(sheet)
    return sheet


def _paint_all(begins: Sequence[Begin], callback: RunCallback | None) -> list[Run]:
    """What came of the runs; of as many as there were before Ctrl-C."""
    runs: list[Run] = []
    failure: Exception | None = None
    with told_once():
        for number, (run, start) in enumerate(begins, 1):
            try:
                title = f"{number} of {len(begins)}: {run.label}"
                runs.append(_painted(run, start, title, callback))
            except KeyboardInterrupt:
                if not any(run.artwork for run in runs):
                    raise
                break
            except Exception as error:
                failure = failure or error
                runs.append(dataclasses.replace(run, error=reason_of(error)))
            if runs[-1].stopped == "interrupted":
                break
    if failure and not any(run.artwork for run in runs):
        raise failure
    for run in runs:
        if run.error:
            notice(f"{run.label} is left out: {run.error}")
    return runs


def _painted(
    run: Run, start: Callable[[], Painting], title: str, callback: RunCallback | None
) -> Run:
    """A run painted to its end, or to where it was interrupted."""
    evaluations: list[int] = []
    times: list[float] = []
    with start() as painting:
        try:
            for step in painting:
                evaluations.append(step.evaluations)
                times.append(time.perf_counter())
                if callback:
                    callback(title, step)
                del step  # and with it a picture, while the next is painted
        except KeyboardInterrupt:
            if not times:
                raise
    seconds = [when - times[0] for when in times]
    return dataclasses.replace(
        run, artwork=painting.artwork, evaluations=evaluations, seconds=seconds
    )
