"""Comparisons: one photo painted with every combination of one or two varied options."""

from __future__ import annotations

import csv
import io
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from impasto.device import ordinary
from impasto.errors import ImpastoError, notice, reason_of, told_once
from impasto.optimise.base import Callback, Step
from impasto.pages.sheets import (
    RunCallback,
    Sheet,
    SheetInterrupted,
    check_drawing,
    drawn,
    numbered,
    sheet_record,
)
from impasto.paint.artworks import Artwork, Interrupted, Stopped
from impasto.paint.regions import Sources
from impasto.paint.studio import named
from impasto.paint.stylize import Stylizer
from impasto.pictures import files, images
from impasto.pictures.images import PathLike, Picture, Source

SIZE = 256
"""The longer side of the pictures where nothing is said of it."""

Values = Sequence[Any] | Mapping[str, Any]
"""What an option takes one after another; with labels, or labelled by what they are.

None leaves the option to its default, or to the preset.
"""

_OPTIONS = {"painting": "style", "style_layers": "style-layer", "regions": "region"}
"""What the command line calls arguments that have another name there."""


@dataclass(frozen=True)
class Run:
    """One cell of a comparison.

    choices: what the varied options were, by name. artwork: what came of it, or none and `error`
    says why. evaluations, seconds: at every step, as many as `artwork.losses`; the time from the
    first evaluation on, so that no run pays for what the first one sets up.
    """

    choices: Mapping[str, str]
    artwork: Artwork | None
    error: str = ""
    evaluations: Sequence[int] = ()
    seconds: Sequence[float] = ()

    @property
    def label(self) -> str:
        """Its choices in a line."""
        return _label(self.choices)

    @property
    def stopped(self) -> str:
        """Why there is no further step, see `Artwork`; `"failed"` where there is none at all."""
        return self.artwork.stopped if self.artwork else "failed"


@dataclass(frozen=True)
class Comparison(Sheet):
    """A contact sheet, and the runs on it."""

    runs: Sequence[Run] = field(default=(), repr=False)

    def table(self) -> str:
        """CSV: a line for each run with its options, loss and parts, steps, evaluations, seconds.

        Parts are the loss's terms, unweighted. What a run has none of is left empty. Where steps
        or evaluations are options, what came of them is called "steps made".
        """
        parts = dict.fromkeys(p for run in self.runs if run.artwork for p in run.artwork.parts)
        options = list(self.runs[0].choices)
        text = io.StringIO()
        columns = ["loss", *parts, "steps", "evaluations", "seconds", "stopped"]
        columns = [f"{name} made" if name in options else name for name in columns]
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*options, *columns])
        for run in self.runs:
            row: list[object] = [*run.choices.values()]
            if (artwork := run.artwork) is None:
                row += [""] * (len(columns) - 1) + ["failed"]
            else:
                row.append(f"{artwork.losses[-1]:.9g}")
                row += [f"{artwork.parts[p]:.9g}" if p in artwork.parts else "" for p in parts]
                row += [artwork.steps, artwork.evaluations, f"{run.seconds[-1]:.3f}"]
                row.append(artwork.stopped)
            table.writerow(row)
        return text.getvalue()

    @ordinary()
    def curves(self) -> Image.Image:
        """Loss against evaluations and against seconds, a line for each run.

        Raises:
            ImpastoError: matplotlib cannot draw them.
        """
        check_drawing()
        from impasto.pages import layout as figures

        series = {
            run.label: (run.evaluations, run.seconds, run.artwork.losses[: len(run.seconds)])
            for run in self.runs
            if run.artwork
        }
        try:
            return figures.curves(series)
        except Exception as error:
            raise ImpastoError(f"the curves cannot be drawn ({reason_of(error)})") from error

    def save_table(self, path: PathLike, *, force: bool = False) -> Path:
        """Write `table` by the rules of `Artwork.save`; returns the path written."""
        return files.write_whole(self.table().encode(), Path(path), force)

    def save_curves(self, path: PathLike, *, force: bool = False) -> Path:
        """Write `curves` by the rules of `Artwork.save`; returns the path written."""
        return images.write(self.curves(), path, record=self.record, force=force)


@ordinary()
def compare(
    photo: Source,
    painting: Sources | None = None,
    *,
    vary: Mapping[str, Values],
    callback: RunCallback | None = None,
    **settings: Any,
) -> Comparison:
    """Paint a photo with every combination of one or two varied options, side by side.

    Args:
        photo, painting: see `stylize`.
        vary: one or two arguments of `stylize` (settings, `painting`, `regions` or `preset`),
            each with the values it is to take: `{"optimizer": ["lbfgs", "cg"]}`; or with a label
            for each value: `{"painting": {"Hokusai": "great_wave.jpg"}}`. None leaves it to its
            default or preset. Of two, the first varies from row to row, the second from column
            to column.
        callback: called with the name of the run and the `Step`, at every step.
        **settings: see `Settings`, for all runs; `size` is 256 if not given.

    Raises:
        ImpastoError: a file or setting is wrong, in any combination; found before the first run.
        SheetInterrupted: Ctrl-C; it carries the comparison of what was painted by then.
    """
    check_drawing()
    if not 1 <= len(vary) <= 2 or not all(map(len, vary.values())):
        raise ImpastoError("one or two options can vary, and each needs a value at least")
    picture = images.read(photo)
    common: dict[str, Any] = {"painting": painting, **settings}
    axes = [(option, _labelled(values)) for option, values in vary.items()]
    cells = [_Cell(axes, labels) for labels in itertools.product(*(values for _, values in axes))]
    for cell in cells:  # so that what is wrong with the last is known before the first is painted
        stylizer = Stylizer(**cell.among(common))
    originals = [("photo", picture.image)]
    originals += [
        (place.name or Path(source.name).stem.replace("_", " "), source.image)
        for place in stylizer.places
        if ("painting" if place.mask is None else "regions") not in vary
        for source, _ in place.paintings
    ]
    runs: list[Run] = []
    stopped: Stopped = "budget"
    failure: Exception | None = None
    with told_once():
        for number, cell in enumerate(cells, 1):
            report = numbered(callback, number, len(cells), cell.label)
            try:
                runs.append(_painted(Stylizer(**cell.among(common)), picture, cell, report))
            except KeyboardInterrupt:
                stopped = "interrupted"
            except Exception as error:  # the others are not lost over it
                failure = failure or error
                runs.append(Run(cell.choices, None, reason_of(error)))
            if stopped == "interrupted" or runs[-1].stopped == "interrupted":
                stopped = "interrupted"
                break
    if not any(run.artwork for run in runs):
        raise KeyboardInterrupt if stopped == "interrupted" or not failure else failure
    for run in runs:
        if run.error:
            notice(f"{run.label} is left out: {run.error}")
    page, late = _page(axes, runs, originals)
    stopped = "interrupted" if late else stopped
    made = {run.label: run.artwork for run in runs if run.artwork}
    record = sheet_record("compare", page, made) | {"photo": named(picture)}
    comparison = Comparison(page, record, stopped, runs)
    if stopped == "interrupted":
        raise SheetInterrupted(comparison)
    return comparison


_Axis = tuple[str, Mapping[str, Any]]
"""A varied option and its values by label."""


class _Cell:
    """A combination of values: what they are called, and the arguments that they are."""

    def __init__(self, axes: Sequence[_Axis], labels: Sequence[str]) -> None:
        pairs = list(zip(axes, labels, strict=True))
        self.choices = {_option(option): label for (option, _), label in pairs}
        self.arguments = {option: values[label] for (option, values), label in pairs}
        self.label = _label(self.choices)

    def among(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of its run; what is none is left out."""
        merged = {**common, **self.arguments}
        chosen = {name: value for name, value in merged.items() if value is not None}
        return {"size": SIZE, **chosen}


def _label(choices: Mapping[str, str]) -> str:
    return ", ".join(f"{option} {label}" for option, label in choices.items())


def _option(argument: str) -> str:
    """An argument of `stylize` as the command line calls it."""
    return _OPTIONS.get(argument, argument.replace("_", "-"))


def _labelled(values: Values) -> dict[str, Any]:
    """Values by what they are called; files by their stems, as far as these differ."""
    if isinstance(values, Mapping):
        return {str(label): value for label, value in values.items()}
    short = [Path(v).stem if _is_file(v) else str(v) for v in values]
    return {
        label if short.count(label) == 1 else str(value): value
        for label, value in zip(short, values, strict=True)
    }


def _is_file(value: Any) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and files.is_file(value))


def _painted(stylizer: Stylizer, photo: Picture, cell: _Cell, report: Callback) -> Run:
    """One run, interrupted or not."""
    evaluations: list[int] = []
    seconds: list[float] = []

    def timed(step: Step) -> None:
        evaluations.append(step.evaluations)
        seconds.append(time.perf_counter())
        report(step)

    try:
        artwork = stylizer.paint(photo, callback=timed)
    except Interrupted as interruption:
        artwork = interruption.artwork
    return Run(cell.choices, artwork, "", evaluations, [when - seconds[0] for when in seconds])


def _page(
    axes: Sequence[_Axis], runs: Sequence[Run], originals: Sequence[tuple[str, Image.Image]]
) -> tuple[Image.Image, bool]:
    """The runs in rows, see `drawn`; what was not painted any more is left empty."""
    cells: list[tuple[str, Image.Image | None]] = [
        (_caption(run), images.composed(run.artwork.image) if run.artwork else None) for run in runs
    ]
    heads = [[f"{_option(option)} {label}" for label in values] for option, values in axes]
    rows, columns = ([""], heads[0]) if len(axes) == 1 else heads
    cells += [("not painted", None)] * (len(rows) * len(columns) - len(cells))
    grid = [cells[start : start + len(columns)] for start in range(0, len(cells), len(columns))]

    def draw() -> Image.Image:
        from impasto.pages import layout as figures

        return figures.contact_sheet(
            grid, row_labels=rows, column_labels=columns, originals=originals
        )

    return drawn(draw, [[image for _, image in row] for row in grid])


def _caption(run: Run) -> str:
    if run.artwork is None:
        return run.error
    told = [
        f"loss {run.artwork.losses[-1]:.4g}",
        f"{run.artwork.evaluations} evaluations",
        f"{run.seconds[-1]:.0f} s",
    ]
    return " · ".join(told + ["interrupted"] * (run.stopped == "interrupted"))
