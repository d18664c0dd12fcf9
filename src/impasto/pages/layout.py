"""Pictures side by side on a labelled page, a PIL image of mode RGB."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from impasto.pages.page import BLANK, MARGIN, PAGE, PITCH, POINT, QUIET, Page, Size, wrapped
from impasto.pictures.images import fitted

Labelled = tuple[str, Image.Image]
"""A picture and its caption."""

_Cell = tuple[str, Image.Image | None]
_Band = tuple[str, Sequence[str], Sequence[_Cell]]
"""A row of a contact sheet: its label, the labels above its columns, its cells."""

_LONGEST = 6000  # the longer side of a contact sheet, in pixels
_COLUMNS = 5  # of a single row; more are continued below

# Viridis, by van der Walt and Smith (CC0), in equal steps; interpolation is exact to 2/255.
_VIRIDIS = bytes.fromhex(
    "440154470f62481d6f472b7a4437814043873c4e8a37598c31648d2d6e8e29788e26818e228a8d"
    "1f958b1e9e8822a7842bb17d3ab9764cc26b62ca5f79d15193d741aedc2fc9e01ee3e318fde724"
)


def atlas(contents: Sequence[Labelled], styles: Sequence[Labelled]) -> Image.Image:
    """What each layer keeps of a photo, above what Gram matrices keep of a painting.

    Gatys et al. 2016 (CVPR), figure 1. After the photo, each of `contents` is reconstructed from
    one layer; after the painting, each of `styles` from the layers up to one. The page is as wide
    as A4 landscape at 200 dpi, not higher.
    """
    size, heading, gap, apart = 9 * POINT, 10.5 * POINT, 24, 84
    rows = {
        "what each layer keeps of the photo": contents,
        "what the Gram matrices up to each layer keep of the painting": styles,
    }
    columns = max(map(len, rows.values()))
    width = (PAGE[0] - 2 * MARGIN - apart - gap * (columns - 2)) // columns
    first = MARGIN + width + apart
    page = Page()
    y = MARGIN
    limit = (PAGE[1] - y - MARGIN - 40) / len(rows) - 2 * (heading + size) * PITCH
    for about, cells in rows.items():
        page.text(wrapped(about, PAGE[0] - MARGIN - first, heading, 1), first, y, heading)
        y += round(1.75 * heading)
        box = width, max(fitted(image.size, (width, limit))[1] for _, image in cells)
        ends = [
            _draw_row(page, cells[:1], MARGIN, y, 0, box, size),
            _draw_row(page, cells[1:], first, y, width + gap, box, size),
        ]
        y = round(max(ends)) + 40
    page.block(first - apart / 2, MARGIN, first - apart / 2 + 2, y - 40)
    return page.rendered((PAGE[0], y - 40 + MARGIN))


def channel_grid(
    layer: str,
    maps: Sequence[tuple[int, NDArray[np.floating[Any]]]],
    photo: Image.Image,
    title: str,
) -> Image.Image:
    """A photo beside the activations [height, width] of some channels of a layer.

    Each map goes from zero to its own maximum; its caption gives its channel and mean. The maps are
    as large as A4 landscape at 200 dpi allows.
    """
    size, gap, apart = 8 * POINT, 22, 84
    left = round(0.22 * PAGE[0])
    first = MARGIN + left + apart
    page = Page()
    large = 13 * POINT
    headline = wrapped(title, PAGE[0] - 2 * MARGIN, large, 2, bold=True)
    y = page.text(headline, MARGIN, MARGIN - 0.3 * large, large, bold=True)
    top = round(y + 0.9 * large)
    under = round(10 + 2 * size * PITCH + 26)
    room = (PAGE[0] - MARGIN - first, PAGE[1] - top - MARGIN)
    shape = max((values.shape for _, values in maps), key=max)
    columns, cell = _channel_cells(len(maps), (shape[1], shape[0]), room, gap, under)
    step = cell[0] + min(3 * gap, (room[0] - columns * cell[0]) // max(1, columns - 1))
    note = f"each map of {layer} goes from zero (dark) to its own maximum (bright)"
    y = page.picture(photo, MARGIN, top, (left, room[1] * 0.8), middle=False) + 10
    lines = ["photo", "", *wrapped(note, left, size, 6)]
    bottom = page.text(lines, MARGIN, y, size, colour=QUIET)
    cells = [
        (f"channel {number}\nmean {np.mean(values):.3g}", _coloured(values, cell))
        for number, values in maps
    ]
    for start in range(0, len(cells), columns):
        y = top + start // columns * (cell[1] + under)
        end = _draw_row(page, cells[start : start + columns], first, y, step, cell, size)
        bottom = max(bottom, end)
    page.block(first - apart / 2, top, first - apart / 2 + 2, bottom)
    return page.rendered((PAGE[0], round(bottom) + MARGIN))


def contact_sheet(
    cells: Sequence[_Cell],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    originals: Sequence[Labelled],
) -> Image.Image:
    """A comparison over one or two options, row by row, with the originals at its left.

    Each cell is a caption and a picture. If a picture is missing (None), the caption says why, in a
    frame. A single row of more than five cells is continued below. Pictures are as large as the
    largest of them, from 240 to 512 pixels; smaller if the sheet would exceed 6000 pixels.
    """
    columns = len(column_labels)
    if len(row_labels) == 1:
        columns = math.ceil(columns / math.ceil(columns / _COLUMNS))
    starts = range(0, len(cells), columns)
    labels = itertools.chain(row_labels, itertools.repeat(""))
    bands = [
        (label, column_labels[start : start + columns], cells[start : start + columns])
        for start, label in zip(starts, labels, strict=False)
    ]
    pictures = [image for _, image in cells if image]
    longer: float = min(512, max(240, *(max(image.size) for image in pictures)))
    text = max(14.0, longer / 24)
    while True:
        sizes = [fitted(image.size, (longer, longer)) for image in pictures]
        box = (max(w for w, _ in sizes), max(h for _, h in sizes))
        page, size = _sheet(bands, originals, box, text)
        if max(size) <= _LONGEST:
            return page.rendered(size)
        shrink = min(0.99, _LONGEST / max(size))
        longer, text = longer * shrink, text * shrink


def _channel_cells(
    count: int, shape: Size, room: tuple[float, float], gap: int, under: int
) -> tuple[int, Size]:
    """The number of columns that gives the largest maps, and the (width, height) of a cell."""
    narrowest = 170  # a caption's width

    def cell(columns: int) -> Size:
        rows = math.ceil(count / columns)
        width = (room[0] + gap) / columns - gap
        return fitted(shape, (width, max(1, room[1] / rows - under)))

    most = int((room[0] + gap) // (narrowest + gap))
    numbers = range(1, min(most, count) + 1)
    columns = max(numbers, key=lambda n: (cell(n)[0], -math.ceil(count / n), -n))
    width, height = cell(columns)
    return columns, (max(width, narrowest), height)


def _coloured(values: NDArray[np.floating[Any]], box: Size) -> Image.Image:
    """A map in viridis, from zero to its own maximum, as large as fits in a box."""
    finite = np.nan_to_num(np.asarray(values, dtype=np.float32), posinf=0, neginf=0).clip(0)
    share = Image.fromarray(finite / (finite.max() or 1))
    # Enlarged before it is coloured, since a mean of two colours may not be on the scale.
    share = share.resize(fitted(share.size, box), Image.Resampling.BICUBIC)
    colours = np.frombuffer(_VIRIDIS, np.uint8).reshape(-1, 3)
    at = np.linspace(0, 1, len(colours))
    channels = [np.interp(np.asarray(share), at, column) for column in colours.T]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def _sheet(
    bands: Sequence[_Band], originals: Sequence[Labelled], box: Size, size: float
) -> tuple[Page, Size]:
    """A contact sheet with pictures that fit in `box` and captions of `size`; and its own size."""
    margin, gap = round(2.2 * size), round(1.1 * size)
    column = max(box[0], round(10 * size))
    step = column + gap
    beside = math.ceil(len(originals) / len(bands))
    rule = margin + beside * step + gap
    first = rule + 2 * gap + round(2.9 * size) * any(label for label, _, _ in bands)
    right = first + max(len(cells) for _, _, cells in bands) * step - gap
    page = Page()
    y = margin
    for number, (label, heads, cells) in enumerate(bands):
        texts = [wrapped(head, column, 1.1 * size, 2) for head in heads]
        deepest = max(map(len, texts), default=0)
        y += round(deepest * 1.1 * size * PITCH)
        for n, lines in enumerate(texts):
            page.text(lines, first + n * step + column / 2, y, 1.1 * size, 0.5, 1)
        y += round(0.45 * size) * bool(deepest)
        lines = wrapped(label, box[1], 1.1 * size, 2)
        page.text_upwards(lines, first - 0.7 * size, y + box[1] / 2, 1.1 * size)
        there = originals[number :: len(bands)]
        ends = [
            _draw_row(page, there, margin, y, step, box, size, column, middle=False),
            _draw_row(page, cells, first, y, step, box, size, column),
        ]
        y = round(max(ends) + 1.5 * size)
    bottom = y - round(1.5 * size)
    page.block(rule, margin, rule + 2, bottom)
    return page, (right + margin, bottom + margin)


def _draw_row(
    page: Page,
    cells: Sequence[_Cell],
    x: int,
    y: int,
    step: int,
    box: Size,
    size: float,
    column: int = 0,
    *,
    middle: bool = True,
) -> float:
    """Draw pictures with captions below, or frames with captions inside; returns where they end.

    Each is centred in a `column` (0: as wide as its box), and the next is `step` to the right.
    """
    column = column or box[0]
    ends: list[float] = [y + box[1]]
    for number, (caption, image) in enumerate(cells):
        left = x + number * step + (column - box[0]) // 2
        centre = x + number * step + column / 2
        if image:
            below = page.picture(image, left, y, box, middle=middle) + 0.4 * size
            lines = wrapped(caption, column, size, 3)
            ends.append(page.text(lines, centre, below, size, 0.5, colour=QUIET))
        else:
            page.block(left, y, left + box[0], y + box[1])
            page.block(left + 1, y + 1, left + box[0] - 1, y + box[1] - 1, BLANK)
            most = max(1, int(box[1] / size / PITCH) - 1)
            lines = wrapped(caption, box[0] - 2 * size, size, most)
            page.text(lines, centre, y + box[1] / 2, size, 0.5, 0.5, colour=QUIET)
    return max(ends)
