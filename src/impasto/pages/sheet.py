"""A page of several runs, which are painted one after another."""

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
"""Called at every step of every run, with the run's title (`"2 of 5: relu2_1"`) and the step."""


@dataclass(frozen=True)
class Run:
    """One of several runs.

    label: its name. choices: the labels of a comparison's varied values, by option. artwork: its
    picture, or None if the run failed; then `error` says why. evaluations, seconds: at every step,
    one for each of `artwork.losses`. Seconds count from the first evaluation of the run, so that
    they leave out loading and compiling.
    """

    label: str
    choices: Mapping[str, str] = field(default_factory=dict)
    artwork: Artwork | None = None
    error: str = ""
    evaluations: Sequence[int] = ()
    seconds: Sequence[float] = ()

    @property
    def stopped(self) -> str:
        """Why the run ended, see `Artwork`; `"failed"` if there is no artwork."""
        return self.artwork.stopped if self.artwork else "failed"


@dataclass(frozen=True)
class Sheet:
    """A page of pictures.

    image: PIL image (RGB). record: what `save` writes into a PNG. stopped: `"interrupted"` if
    Ctrl-C was pressed before it was complete, else `"budget"`. runs: those on it, failed ones too.
    """

    image: Image.Image
    record: Mapping[str, Any] = field(repr=False)
    stopped: Stopped = "budget"
    runs: Sequence[Run] = field(default=(), repr=False)

    def save(self, path: PathLike, *, force: bool = False, format: str | None = None) -> Path:  # noqa: A002
        """Write the page by the rules of `Artwork.save`; returns the path written."""
        return images.write(self.image, path, record=self.record, force=force, format=format)


class SheetInterrupted(KeyboardInterrupt):
    """Ctrl-C was pressed on the way; `sheet` is the page so far."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__("interrupted on the way")
        self.sheet = sheet


Begin = tuple[Run, Callable[[], Painting]]
"""A run before its first step, and the function that begins to paint it."""

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

    A run that fails causes a notice, and the others go on. Painting takes much longer than drawing,
    so the page is drawn after Ctrl-C as well, and drawn again if Ctrl-C comes while it is drawn.

    Raises:
        SheetInterrupted: Ctrl-C was pressed. Without a picture, the first error is raised instead.
    """
    runs = _paint_all(begins, callback)
    interrupted = len(runs) < len(begins) or runs[-1].stopped == "interrupted"
    try:
        page = draw(runs)
    except KeyboardInterrupt:
        page, interrupted = draw(runs), True
    told = []
    for run in runs:
        if artwork := run.artwork:  # its own PNG's record, but only the last loss
            own = {name: value for name, value in artwork.record.items() if name != "losses"}
            told.append({"run": run.label, **own, "loss": artwork.losses[-1]})
    size = list(page.size)
    record = {"impasto": __version__, "command": command, "size": size, "runs": told, **inputs}
    sheet = kind(page, record, "interrupted" if interrupted else "budget", runs)
    if interrupted:
        raise SheetInterrupted(sheet)
    return sheet


def _paint_all(begins: Sequence[Begin], callback: RunCallback | None) -> list[Run]:
    """Paint the runs, up to Ctrl-C; those that failed have an `error`."""
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
    evaluations: list[int] = []
    times: list[float] = []
    with start() as painting:
        try:
            for step in painting:
                evaluations.append(step.evaluations)
                times.append(time.perf_counter())
                if callback:
                    callback(title, step)
                del step  # frees its picture while the next is painted
        except KeyboardInterrupt:
            if not times:
                raise
    seconds = [when - times[0] for when in times]
    return dataclasses.replace(
        run, artwork=painting.artwork, evaluations=evaluations, seconds=seconds
    )
