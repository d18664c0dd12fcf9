"""Comparisons: one photo painted with every combination of one or two varied options."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.pages import curves
from impasto.pages.layout import Labelled, contact_sheet
from impasto.pages.sheet import Begin, Run, RunCallback, Sheet, paint_sheet
from impasto.paint.regions import Regions, Sources
from impasto.paint.run import Painting
from impasto.paint.stylize import Stylizer
from impasto.pictures import files, images
from impasto.pictures.images import PathLike, Source
from impasto.settings import CompareSettings, choose

Values = Sequence[Any] | Mapping[str, Any]
"""The values of a varied option, with or without labels; None is its default or the preset's."""

_OPTIONS = {"painting": "style", "style_layers": "style-layer", "regions": "region"}
"""The arguments that have another name on the command line."""


@dataclass(frozen=True)
class Comparison(Sheet):
    """A contact sheet, and the runs on it."""

    def table(self) -> str:
        """CSV: a line for each run with its options, loss and parts, steps, evaluations, seconds.

        Parts are the loss's terms, unweighted. A cell without a value is empty. If an option is
        called like another column, say `steps`, that column is called `steps made`.
        """
        made = [run.artwork for run in self.runs if run.artwork]
        parts = dict.fromkeys(part for artwork in made for part in artwork.parts)
        options = list(self.runs[0].choices)
        columns = ["loss", *parts, "steps", "evaluations", "seconds", "stopped"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        heads = [f"{name} made" if name in options else name for name in columns]
        table.writerow([*options, *heads])
        for run in self.runs:
            cells: dict[str, object] = {"stopped": run.stopped}
            if run.artwork:
                terms = {"loss": run.artwork.losses[-1], **run.artwork.parts}
                cells |= {name: f"{term:.9g}" for name, term in terms.items()}
                cells |= {"steps": run.artwork.steps, "evaluations": run.artwork.evaluations}
                cells["seconds"] = f"{run.seconds[-1]:.3f}"
            table.writerow([*run.choices.values(), *(cells.get(name, "") for name in columns)])
        return text.getvalue()

    @ordinary()
    def curves(self) -> Image.Image:
        """Loss against evaluations and against seconds, a line for each run.

        Raises:
            ImpastoError: matplotlib cannot draw them.
        """
        return curves.curves(
            {
                run.label: (run.evaluations, run.seconds, run.artwork.losses[: len(run.seconds)])
                for run in self.runs
                if run.artwork
            }
        )

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
    regions: Regions = (),
    preset: str | None = None,
    settings: CompareSettings | None = None,
    callback: RunCallback | None = None,
    **choices: Any,
) -> Comparison:
    """Paint a photo with every combination of one or two varied options, side by side.

    Args:
        photo, painting, regions, preset: see `stylize`.
        vary: one or two arguments of `stylize` (settings, `painting`, `regions` or `preset`), each
            with its values: `{"optimizer": ["lbfgs", "cg"]}`; or with a label for each value:
            `{"painting": {"Hokusai": "great_wave.jpg"}}`. The value None stands for the default or
            the preset's value. Of two arguments, the first varies by row, the second by column.
        settings: the settings to begin with, instead of the defaults.
        callback: called at every step, with the name of the run and the `Step`.
        **choices: single settings by name, for all runs, see `CompareSettings`.

    Raises:
        ImpastoError: a file or setting of any combination is wrong; known before the first run, but
            for what depends on the photo's size or transparency.
        SheetInterrupted: Ctrl-C was pressed; it carries the comparison so far.
    """
    if not 1 <= len(vary) <= 2 or not all(map(len, vary.values())):
        raise ImpastoError("one or two options can vary, and each needs at least one value")
    picture = images.read_visible(photo)
    common = {"painting": painting, "regions": regions, "preset": preset, **choices}
    axes = {option: _labelled(values) for option, values in vary.items()}
    begins: list[Begin] = []

    def begin(arguments: Mapping[str, Any]) -> Painting:
        return _stylizer(settings, arguments).start(picture)

    for labels in itertools.product(*axes.values()):
        told = dict(zip(map(_option, axes), labels, strict=True))
        varied = {name: axes[name][label] for name, label in zip(axes, labels, strict=True)}
        arguments = common | varied
        stylizer = _stylizer(settings, arguments)  # raises most errors before the first run
        run = Run(", ".join(f"{option} {label}" for option, label in told.items()), told)
        begins.append((run, partial(begin, arguments)))
    originals = [("photo", picture.image)]
    originals += [
        (place.name or Path(source.name).stem.replace("_", " "), source.image)
        for place in stylizer.places
        if ("painting" if place.mask is None else "regions") not in vary
        for source, _ in place.paintings
    ]
    draw = partial(_drawn, axes, originals)
    return paint_sheet(Comparison, "compare", begins, draw, callback, photo=images.named(picture))


def _stylizer(settings: CompareSettings | None, arguments: Mapping[str, Any]) -> Stylizer:
    """The stylizer of one combination; None keeps the settings' or preset's value."""
    given = {name: value for name, value in arguments.items() if value is not None}
    painting, regions, preset = (given.pop(n, None) for n in ("painting", "regions", "preset"))
    chosen = choose(CompareSettings, settings, given, preset)
    return Stylizer(painting, regions=regions or (), settings=chosen)


def _option(argument: str) -> str:
    return _OPTIONS.get(argument, argument.replace("_", "-"))


def _labelled(values: Values) -> dict[str, Any]:
    """Values by their labels; a file's label is its stem, unless another value has the same."""
    if isinstance(values, Mapping):
        return {str(label): value for label, value in values.items()}
    short = [Path(v).stem if _is_file(v) else str(v) for v in values]
    return {
        label if short.count(label) == 1 else str(value): value
        for label, value in zip(short, values, strict=True)
    }


def _is_file(value: Any) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and files.is_file(value))


def _drawn(
    axes: Mapping[str, Mapping[str, Any]], originals: Sequence[Labelled], runs: Sequence[Run]
) -> Image.Image:
    """The contact sheet; the cells of runs that were not painted are empty."""
    heads = [[f"{_option(name)} {label}" for label in values] for name, values in axes.items()]
    rows, columns = heads if len(heads) == 2 else ([""], heads[0])
    cells = [(_caption(run), run.artwork.image if run.artwork else None) for run in runs]
    cells += [("not painted", None)] * (len(rows) * len(columns) - len(cells))
    return contact_sheet(cells, row_labels=rows, column_labels=columns, originals=originals)


def _caption(run: Run) -> str:
    if run.artwork is None:
        return run.error
    loss, evaluations = run.artwork.losses[-1], run.artwork.evaluations
    told = [f"loss {loss:.4g}", f"{evaluations} evaluations", f"{run.seconds[-1]:.0f} s"]
    return " · ".join(told + ["interrupted"] * (run.stopped == "interrupted"))
