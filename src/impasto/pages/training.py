"""A training as a table and as curves, and what was made along the way as a sheet or a film."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from impasto.networks.critics import Round
from impasto.networks.growth import SHEET, Growth
from impasto.networks.judge import Losses
from impasto.networks.learning import Learning
from impasto.networks.training import Training
from impasto.optimise.base import Step
from impasto.pages import layout
from impasto.pages.curves import Series, curves
from impasto.pictures import images
from impasto.pictures.films import Film

_FIRST = 2  # column of the losses, after step and seconds

POINTS = 200
"""The most points of a curve; each is a mean over as many steps as it takes."""


def table(training: Learning) -> str:
    """The losses of a training as CSV, a row for each step; held-out photos' where measured."""
    measured = {int(row[0]): row[_FIRST:] for row in training.validation}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    held_out = Losses._fields if isinstance(training, Training) else ()
    names = [f"validation {name}" for name in held_out]
    writer.writerow(["step", "seconds", *training.columns, *names])
    for step, seconds, *losses in training.course:
        row = [*losses, *measured.get(int(step), [])]
        writer.writerow([int(step), f"{seconds:.1f}", *(f"{value:.6g}" for value in row)])
    return buffer.getvalue()


def plot(training: Learning) -> Image.Image | None:
    """The losses of a training as curves, against steps and against seconds; None without any.

    Raises:
        ImpastoError: matplotlib cannot be imported.
    """
    if isinstance(training, Growth):
        if not training.judge:
            return None
        return curves({"style": _series(training.course, _FIRST)}, "steps")
    total = _FIRST + Losses._fields.index("total")
    series: dict[str, Series] = {"training, total": _series(training.course, total)}
    for column, name in enumerate(Losses._fields, _FIRST):
        if training.validation:
            series[f"held-out photos, {name}"] = _series(training.validation, column)
    return curves(series, "steps")


def adversaries(training: Learning) -> Image.Image | None:
    """The losses of generator and critic, and the critic's estimate; None without a critic.

    Raises:
        ImpastoError: matplotlib cannot be imported.
    """
    if not training.opponent:
        return None
    named = {name: _FIRST + training.columns.index(name) for name in Round._fields}
    series = {name: _series(training.course, column) for name, column in named.items()}
    return curves(series, "steps", scale="linear")


def _series(rows: Sequence[tuple[float, ...]], column: int) -> Series:
    parts = np.array_split(np.array(rows), min(len(rows), POINTS))
    means = np.array([part.mean(0) for part in parts])
    return means[:, 0].tolist(), means[:, 1].tolist(), means[:, column].tolist()


def previews(training: Learning) -> Image.Image:
    """What was made along the way, a row for each look.

    Above a network's pictures stand the held-out photos; those of a generator are of one noise.
    """
    count = len(training.previews[0][1]) if training.previews else 0
    names = [training.names[number % len(training.names)] for number in range(count)]
    rows = [(f"step {step}", pictures) for step, pictures in training.previews]
    if isinstance(training, Growth):
        chosen = np.unique(np.linspace(0, len(rows) - 1, SHEET).round().astype(int))
        rows = [rows[at] for at in chosen]
    elif isinstance(training, Training):
        photos = training.held_out[:count].cpu()
        rows = [("photo", photos.mul(255).round().byte()), *rows]
    cells = [
        ("", images.to_image(picture[None].float() / 255)) for _, row in rows for picture in row
    ]
    labels = [label for label, _ in rows]
    return layout.contact_sheet(cells, row_labels=labels, column_labels=names, originals=[])


def film(training: Growth, path: Path) -> Path | None:
    """A film of what a generator made of one noise along the way; None if there was no look.

    Raises:
        ImpastoError: it cannot be written.
    """
    looks = training.previews
    if not looks:
        return None
    with Film(path, len(looks) - 1, force=True) as made:
        for number, (_, pictures) in enumerate(looks):
            image = torch.cat([*pictures], dim=-1)[None].float() / 255
            made.add(Step(number, 0, 0.0, {}, image))
    return made.written
