"""A training as a table, as curves, and as a contact sheet of what was painted along the way."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from impasto.networks.judge import Losses
from impasto.networks.training import Training
from impasto.pages import layout
from impasto.pages.curves import Series, curves
from impasto.pictures import images

_TOTAL = Losses._fields.index("total")

POINTS = 200
"""The most points of a curve; each is a mean over as many steps as it takes."""


def table(training: Training) -> str:
    """The losses of a training as CSV, a row for each step; held-out photos' where measured."""
    measured = {int(row[0]): row[2:] for row in training.validation}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = Losses._fields
    writer.writerow(["step", "seconds", *names, *(f"validation {name}" for name in names)])
    for step, seconds, *losses in training.course:
        row = [*losses, *measured.get(int(step), [])]
        writer.writerow([int(step), f"{seconds:.1f}", *(f"{value:.6g}" for value in row)])
    return buffer.getvalue()


def plot(training: Training) -> Image.Image:
    """The losses of a training as curves, against steps and against seconds.

    Raises:
        ImpastoError: matplotlib cannot be imported.
    """
    series: dict[str, Series] = {"training, total": _series(training.course, 2 + _TOTAL)}
    for column, name in enumerate(Losses._fields, 2):
        if training.validation:
            series[f"held-out photos, {name}"] = _series(training.validation, column)
    return curves(series, "steps")


def _series(rows: Sequence[tuple[float, ...]], column: int) -> Series:
    parts = np.array_split(np.array(rows), min(len(rows), POINTS))
    means = np.array([part.mean(0) for part in parts])
    return means[:, 0].tolist(), means[:, 1].tolist(), means[:, column].tolist()


def previews(training: Training) -> Image.Image:
    """Held-out photos as they were painted along the way, a row for each look."""
    count = len(training.previews[0][1]) if training.previews else 0
    photos = training.held_out[:count].cpu()
    rows = [("photo", photos.mul(255).round().byte()), *training.previews]
    labels = ["photo", *(f"step {step}" for step, _ in training.previews)]
    names = [training.names[number % len(training.names)] for number in range(count)]
    cells = [
        ("", images.to_image(picture[None].float() / 255)) for _, row in rows for picture in row
    ]
    return layout.contact_sheet(cells, row_labels=labels, column_labels=names, originals=[])
