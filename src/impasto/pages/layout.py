"""Pictures side by side on one labelled page: what layers keep, channels, comparisons, losses.

Each function takes pictures and labels and returns a page as a PIL image of mode RGB, the same
one every time, whatever style matplotlib has been given. Labels appear literally: wrapped to
their place, shortened with an ellipsis, and with a box for what the font lacks.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray
from PIL import Image

from impasto.pictures.images import resize

Labelled = tuple[str, Image.Image]
"""A picture and what is written with it."""

Series = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""The course of a run: evaluations, seconds and losses, each of the same length."""

_Size = tuple[int, int]
_Align = Literal["left", "center"]
_Weight = Literal["normal", "bold"]
_LineStyle = Literal["solid"] | tuple[float, tuple[float, ...]]

_PAGE: _Size = (2340, 1654)  # A4 landscape at 200 dpi
_POINT = 200 / 72  # pixels of a point on that page
_MARGIN = 80
_LONGEST = 6000  # pixels of a contact sheet
_DPI = 128  # a power of two, so that pixels / dpi * dpi are exactly the pixels again
_PITCH = 1.32  # from one line of text to the next, in text sizes

_INK = "#1a1a1a"
_QUIET = "#555555"
_HAIRLINE = "#c8c8c8"
_BLANK = "#f6f6f6"

# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow, which is
# faint on white. Four line styles are coprime to seven colours: 28 lines differ.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
_LINE_STYLES: tuple[_LineStyle, ...] = (
    "solid",
    (0, (6, 2)),
    (0, (6, 2, 1.5, 2)),
    (0, (1.5, 1.5)),
)


@contextlib.contextmanager
def _own_style() -> Iterator[None]:
    """Matplotlib as it comes, so that a user's settings do not change or break a page."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@_own_style()
def atlas(
    photo: Image.Image,
    painting: Image.Image,
    contents: Sequence[Labelled],
    styles: Sequence[Labelled],
    title: str = "",
) -> Image.Image:
    """What each layer keeps of a photo, above what Gram matrices keep of a painting.

    Gatys et al. 2016 (CVPR), figure 1. `contents` are reconstructions from one layer each,
    `styles` from the layers up to one. The page is as wide as A4 landscape at 200 dpi, and no
    higher.
    """
    rows = (
        ("photo", photo, "what each layer keeps of the photo", contents),
        (
            "painting",
            painting,
            "what the Gram matrices up to each layer keep of the painting",
            styles,
        ),
    )
    columns = 1 + max(len(contents), len(styles), 1)
    gap, apart = 24, 84
    size, heading = 9 * _POINT, 10.5 * _POINT
    width = (_PAGE[0] - 2 * _MARGIN - apart - gap * (columns - 2)) // columns
    first = _MARGIN + width + apart
    page = _Page()
    y = _headline(page, title, _PAGE[0] - 2 * _MARGIN)
    top, text = y, 2 * heading * _PITCH + 2 * size * _PITCH
    limit = (_PAGE[1] - y - _MARGIN - 40) / len(rows) - text
    for label, original, about, pictures in rows:
        lines = _wrapped(about, _PAGE[0] - _MARGIN - first, heading, 1)
        page.text(lines, first, y, heading)
        y += round(1.75 * heading)
        cells = [(label, original), *pictures]
        height = max(_fitted(image.size, (width, limit))[1] for _, image in cells)
        below = 0.0
        for index, (caption, image) in enumerate(cells):
            x = first + (index - 1) * (width + gap) if index else _MARGIN
            page.fitted(image, x, y, (width, height))
            lines = _wrapped(caption, width, size, 2)
            below = max(below, page.text(lines, x + width / 2, y + height + 10, size, "center"))
        y = round(below) + 40
    page.rule(first - apart / 2, top, y - 40)
    return page.rendered((_PAGE[0], y - 40 + _MARGIN))


@_own_style()
def channel_grid(
    layer: str,
    maps: Sequence[tuple[int, NDArray[np.floating[Any]]]],
    photo: Image.Image,
    title: str = "",
) -> Image.Image:
    """A photo beside the activations [height, width] of some channels of a layer.

    Each map goes from zero to its own maximum, and says its number and its mean. The maps are as
    large as fits A4 landscape at 200 dpi; the page is longer where they would get too small.
    """
    size, gap, apart = 8 * _POINT, 22, 84
    left = round(0.22 * _PAGE[0])
    first = _MARGIN + left + apart
    page = _Page()
    y = _headline(page, title or layer, _PAGE[0] - 2 * _MARGIN)
    under = round(10 + 2 * size * _PITCH + 26)
    room = (_PAGE[0] - _MARGIN - first, _PAGE[1] - y - _MARGIN)
    shape = max((values.shape for _, values in maps), key=max, default=(1, 1))
    columns, cell = _channel_cells(len(maps), (shape[1], shape[0]), room, gap, under)
    step = cell[0] + min(3 * gap, (room[0] - columns * cell[0]) // max(1, columns - 1))
    height = page.fitted(photo, _MARGIN, y, (left, room[1] * 0.8), middle=False)
    note = f"each map of {layer} goes from zero (dark) to its own maximum (bright)"
    lines = ["photo", "", *_wrapped(note, left, size, 6)]
    bottom = page.text(lines, _MARGIN, y + height + 10, size)
    for index, (number, values) in enumerate(maps):
        row, column = divmod(index, columns)
        x, top = first + column * step, y + row * (cell[1] + under)
        page.fitted(_coloured(values, cell), x, top, cell)
        caption = [f"channel {number}", f"mean {np.mean(values):.3g}"]
        foot = page.text(caption, x + cell[0] / 2, top + cell[1] + 10, size, "center")
        bottom = max(bottom, foot)
    page.rule(first - apart / 2, y, bottom)
    return page.rendered((_PAGE[0], round(bottom) + _MARGIN))


@_own_style()
def contact_sheet(
    rows: Sequence[Sequence[tuple[str, Image.Image | None]]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str = "",
    originals: Sequence[Labelled] = (),
) -> Image.Image:
    """A comparison over one or two options, with the originals at its left.

    Each cell is a caption and a picture, or None for one that there is not: then the caption
    says why, in a frame. A single row of more than five is continued below. Pictures have their
    own pixels up to 512, and fewer where the sheet's longer side would exceed 6000.

    Raises:
        ValueError: the labels are not as many as the rows, or fewer than the columns.
    """
    bands = _bands(rows, row_labels, column_labels)
    pictures = [cell.image for band in bands for cell in band.cells if cell.image]
    pictures = pictures or [image for _, image in originals] or [Image.new("RGB", (384, 256))]
    longer: float = min(512, max(240, *(max(image.size) for image in pictures)))
    text = max(14.0, longer / 24)
    while True:
        sizes = [_fitted(image.size, (longer, longer)) for image in pictures]
        box = (max(w for w, _ in sizes), max(h for _, h in sizes))
        page, size = _sheet(bands, originals, title, box, text)
        if max(size) <= _LONGEST:
            return page.rendered(size)
        shrink = min(0.99, _LONGEST / max(size))
        longer, text = longer * shrink, text * shrink


@_own_style()
def curves(series: Mapping[str, Series], title: str = "") -> Image.Image:
    """Losses of several runs, on a logarithmic scale, against evaluations and against seconds.

    Losses that are not positive and finite are left out.
    """
    size, width = 9 * _POINT, _PAGE[0]
    legend, left, gap = 430, _MARGIN + 110, 70
    page = _Page()
    top = _headline(page, title, width - 2 * _MARGIN)
    x = width - _MARGIN - legend
    y: float = top
    for index, label in enumerate(series):
        page.line(x, x + 90, y + 0.62 * size, *_pen(index))
        y = page.text(_wrapped(label, legend - 110, size, 2), x + 110, y, size) + 0.35 * size
    bottom = max(round(y), top + 760)
    figure = page.figure((width, bottom + 130))
    panel = (x - 60 - left - gap) / 2
    for number, name in enumerate(("evaluations", "seconds")):
        edge = left + number * (panel + gap)
        axes = page.axes(figure, edge, top, panel, bottom - top)
        for index, run in enumerate(series.values()):
            _draw_losses(axes, run[number], run[2], index)
        _dress(axes, name, [loss for run in series.values() for loss in run[2]])
        if number:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("loss", fontsize=_points(size), color=_INK)
    return _rendered(figure)


def _headline(page: _Page, title: str, width: float) -> int:
    """Write the title, if there is one; returns where the page goes on."""
    size = 13 * _POINT
    lines = _wrapped(title, width, size, 2, "bold")
    bottom = page.text(lines, _MARGIN, _MARGIN - 12, size, weight="bold")
    return round(bottom + 0.9 * size) if lines else _MARGIN


def _channel_cells(
    count: int, shape: _Size, room: tuple[float, float], gap: int, under: int
) -> tuple[int, _Size]:
    """How many columns make the largest maps, and their (width, height)."""
    narrowest, smallest = 170, 150  # the caption's width; what can still be made out
    count = max(count, 1)

    def cell(columns: int) -> _Size:
        rows = math.ceil(count / columns)
        width = (room[0] - gap * (columns - 1)) / columns
        return _fitted(shape, (width, max(1, room[1] / rows - under)))

    def best(columns: int) -> tuple[int, int, int]:
        return cell(columns)[0], -math.ceil(count / columns), -columns

    most = max(1, int((room[0] + gap) // (narrowest + gap)))
    columns = max(range(1, min(most, count) + 1), key=best)
    width, height = cell(columns)
    if max(width, height) < smallest:
        columns = most
        width, height = _fitted(shape, ((room[0] + gap) / columns - gap, 2 * smallest))
    return columns, (max(width, narrowest), height)


def _coloured(values: NDArray[np.floating[Any]], box: _Size) -> Image.Image:
    """A map in viridis, from zero to its own maximum, as large as fits in a box.

    It is enlarged before it is coloured: between two colours there may be a third.
    """
    finite = np.nan_to_num(np.asarray(values, dtype=np.float32), posinf=0, neginf=0).clip(0)
    share = Image.fromarray(finite / (finite.max(initial=0) or 1))
    share = share.resize(_fitted(share.size, box), Image.Resampling.BICUBIC)
    rgba = matplotlib.colormaps["viridis"](np.asarray(share).clip(0, 1), bytes=True)
    return Image.fromarray(np.asarray(rgba)).convert("RGB")


@dataclass(frozen=True)
class _Cell:
    """One place of a contact sheet."""

    head: str
    image: Image.Image | None
    caption: str


@dataclass(frozen=True)
class _Band:
    """One line of a contact sheet; where it is headed, its columns are named above it."""

    label: str
    headed: bool
    cells: list[_Cell]


def _bands(
    rows: Sequence[Sequence[tuple[str, Image.Image | None]]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
) -> list[_Band]:
    """The rows as they are laid out: a single long one is continued below."""
    columns = max((len(row) for row in rows), default=0)
    if len(rows) != len(row_labels) or columns > len(column_labels):
        raise ValueError("a contact sheet needs a label for each row and for each column")
    named = any(column_labels)
    bands = []
    for index, (label, row) in enumerate(zip(row_labels, rows, strict=True)):
        pairs = zip(column_labels, row, strict=False)
        cells = [_Cell(head, image, caption) for head, (caption, image) in pairs]
        bands.append(_Band(label, named and index == 0, cells))
    if len(bands) != 1 or columns <= 5:
        return bands
    cells = bands[0].cells
    step = math.ceil(columns / math.ceil(columns / 5))
    parts = [cells[start : start + step] for start in range(0, columns, step)]
    return [_Band("" if n else row_labels[0], named, part) for n, part in enumerate(parts)]


def _sheet(
    bands: Sequence[_Band], originals: Sequence[Labelled], title: str, box: _Size, size: float
) -> tuple[_Page, _Size]:
    """A contact sheet whose pictures fit in `box` and whose captions are of `size`; its size."""
    margin, gap = round(2.2 * size), round(1.1 * size)
    column = max(box[0], round(10 * size))
    step = column + gap
    beside = math.ceil(len(originals) / max(1, len(bands)))
    rule = margin + beside * step + gap
    gutter = round(2.9 * size) if any(band.label for band in bands) else 0
    first = (rule + 2 * gap if beside else margin) + gutter
    columns = max((len(band.cells) for band in bands), default=0)
    right = first + columns * step - gap if columns else rule
    page = _Page()
    lines = _wrapped(title, right - margin, 1.45 * size, 2, "bold")
    page.text(lines, margin, margin, 1.45 * size, weight="bold")
    y = margin + round(len(lines) * 1.45 * size * _PITCH + (0.9 * size if lines else 0))
    top = y
    for number, band in enumerate(bands):
        y = _draw_heads(page, band, first, y, step, column, size)
        label = _wrapped(band.label, box[1], 1.1 * size, 2)
        page.text_upwards(label, first - 0.7 * size, y + box[1] / 2, 1.1 * size)
        bottom = float(y + box[1])
        for n, (text, image) in enumerate(originals[number :: len(bands)]):
            x = margin + n * step
            height = page.fitted(image, x, y, (column, box[1]), middle=False, within=box)
            end = _draw_caption(page, text, x, y + height, column, size)
            bottom = max(bottom, end)
        for n, cell in enumerate(band.cells):
            end = _draw_cell(page, cell, first + n * step, y, column, box, size)
            bottom = max(bottom, end)
        y = round(bottom + 1.5 * size)
    bottom = y - 1.5 * size
    if beside:
        page.rule(rule, top, bottom)
    return page, (right + margin, round(bottom) + margin)


def _draw_heads(
    page: _Page, band: _Band, first: int, y: int, step: int, column: int, size: float
) -> int:
    """Name the columns above a band, if it is headed; returns where its pictures begin."""
    if not band.headed:
        return y
    heads = [_wrapped(cell.head, column, 1.1 * size, 2) for cell in band.cells]
    deepest = max((len(lines) for lines in heads), default=0)
    height = deepest * 1.1 * size * _PITCH
    for number, lines in enumerate(heads):
        above = (deepest - len(lines)) * 1.1 * size * _PITCH
        page.text(lines, first + number * step + column / 2, y + above, 1.1 * size, "center")
    return round(y + height + 0.45 * size)


def _draw_cell(
    page: _Page, cell: _Cell, x: int, y: int, column: int, box: _Size, size: float
) -> float:
    """A picture with its caption below, or a frame with its caption inside; returns its end."""
    if cell.image:
        page.fitted(cell.image, x, y, (column, box[1]), within=box)
        return _draw_caption(page, cell.caption, x, y + box[1], column, size)
    page.frame(x + (column - box[0]) // 2, y, box)
    pitch = size * _PITCH
    lines = _wrapped(cell.caption, box[0] - 2 * size, size, max(1, int(box[1] / pitch) - 1))
    start = y + (box[1] - len(lines) * pitch) / 2
    page.text(lines, x + column / 2, start, size, "center", _QUIET)
    return y + box[1]


def _draw_caption(page: _Page, text: str, x: int, y: int, column: int, size: float) -> float:
    """A caption below a picture that ends at `y`; returns where the caption ends."""
    lines = _wrapped(text, column, size, 3)
    return page.text(lines, x + column / 2, y + 0.4 * size, size, "center", _QUIET)


def _pen(index: int) -> tuple[str, _LineStyle]:
    """The colour and line style of a series."""
    return _COLOURS[index % len(_COLOURS)], _LINE_STYLES[index % len(_LINE_STYLES)]


def _draw_losses(axes: Axes, x: Sequence[float], losses: Sequence[float], index: int) -> None:
    """One line; a single point would be no line, and is marked."""
    color, style = _pen(index)
    drawn = [loss if _is_drawable(loss) else math.nan for loss in losses]
    marker = "o" if sum(map(_is_drawable, losses)) == 1 else ""
    line = Line2D(list(x), drawn, color=color, linestyle=style, linewidth=2.2, marker=marker)
    axes.add_line(line)


def _is_drawable(loss: float) -> bool:
    return math.isfinite(loss) and loss > 0


def _dress(axes: Axes, name: str, losses: Sequence[float]) -> None:
    """Scales, ticks in plain numbers and a thin grid."""
    drawn = [loss for loss in losses if _is_drawable(loss)] or [0.1, 1]
    low, high = min(drawn), max(drawn)
    margin = max((high / low) ** 0.04, 1.01)
    axes.set_yscale("log")
    axes.autoscale_view(scaley=False)
    axes.set_xlim(left=0)
    axes.set_ylim(low / margin, high * margin)
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    # Powers of ten are too few within one decade; on so short a way they can be spaced evenly.
    axes.yaxis.set_major_locator(
        LogLocator(subs=subs) if decades > 0.9 else MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    )
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.grid(color="#e2e2e2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)
    axes.tick_params(labelsize=_points(8.5 * _POINT), color=_QUIET, labelcolor=_INK)
    axes.set_xlabel(name, fontsize=_points(9 * _POINT), color=_INK)


@dataclass
class _Page:
    """What is on a page, in pixels from its top left corner, until its size is known."""

    pictures: list[tuple[Image.Image, int, int, _Size]] = field(default_factory=list)
    texts: list[tuple[str, float, float, dict[str, Any]]] = field(default_factory=list)
    lines: list[tuple[Sequence[float], Sequence[float], dict[str, Any]]] = field(
        default_factory=list
    )
    frames: list[tuple[int, int, _Size]] = field(default_factory=list)

    def fitted(
        self,
        image: Image.Image,
        x: int,
        y: int,
        box: tuple[float, float],
        *,
        middle: bool = True,
        within: tuple[float, float] | None = None,
    ) -> int:
        """Put a picture in the middle of a box, or at its top; returns the picture's height.

        It is resized to fit, or to fit `within` a smaller box in the middle of the other.
        """
        width, height = _fitted(image.size, within or box)
        x += round((box[0] - width) / 2)
        y += round((box[1] - height) / 2) if middle else 0
        self.pictures.append((image, x, y, (width, height)))
        return height

    def text(
        self,
        lines: Sequence[str],
        x: float,
        y: float,
        size: float,
        align: _Align = "left",
        color: str = _INK,
        weight: _Weight = "normal",
    ) -> float:
        """Write lines below `y`, from or about `x`; returns where they end."""
        for number, line in enumerate(lines):
            style = {"ha": align, "color": color, "fontproperties": _font(size, weight)}
            self.texts.append((line, x, y + (number * _PITCH + 0.95) * size, style))
        return y + len(lines) * _PITCH * size

    def text_upwards(self, lines: Sequence[str], x: float, y: float, size: float) -> None:
        """Write lines from bottom to top about `y`, the last of them standing on `x`."""
        for number, line in enumerate(reversed(lines)):
            style = {"ha": "center", "color": _INK, "fontproperties": _font(size, "normal")}
            turned = {"rotation": 90, "rotation_mode": "anchor"}
            self.texts.append((line, x - number * _PITCH * size, y, style | turned))

    def rule(self, x: float, top: float, bottom: float) -> None:
        """Draw a thin upright line."""
        self.lines.append(((x, x), (top, bottom), {"color": _HAIRLINE, "linewidth": 1}))

    def line(self, left: float, right: float, y: float, color: str, style: _LineStyle) -> None:
        """Draw a line as in a plot."""
        self.lines.append(
            ((left, right), (y, y), {"color": color, "linestyle": style, "linewidth": 2.2})
        )

    def frame(self, x: int, y: int, size: _Size) -> None:
        """Draw an empty frame."""
        self.frames.append((x, y, size))

    def axes(self, figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
        """Room for a plot on the figure that was made of this page."""
        w, h = (side * _DPI for side in figure.get_size_inches())
        return figure.add_axes((x / w, 1 - (y + height) / h, width / w, height / h))

    def figure(self, size: _Size) -> Figure:
        """All that is on the page, on a white sheet."""
        figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
        pixels, height = IdentityTransform(), size[1]
        for x, y, (w, h) in self.frames:
            # Lines are moved by half a pixel to where they are sharp, to the right and down.
            frame = Rectangle(
                (x, height - y - h + 1), w - 1, h - 1, fc=_BLANK, ec=_HAIRLINE, transform=pixels
            )
            frame.set_linewidth(72 / _DPI)
            figure.add_artist(frame)
        for xs, ys, style in self.lines:
            figure.add_artist(Line2D(xs, [height - y for y in ys], transform=pixels, **style))
        for image, left, top, shape in self.pictures:
            array = np.asarray(resize(image.convert("RGB"), shape))
            figure.figimage(array, left, height - top - shape[1], origin="upper")
        for text, at, base, style in self.texts:
            style = style | {"transform": pixels, "va": "baseline", "parse_math": False}
            figure.text(at, height - base, text, **style)
        return figure

    def rendered(self, size: _Size) -> Image.Image:
        """The page as a picture of (width, height)."""
        return _rendered(self.figure(size))


def _rendered(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)  # whatever backend the user has chosen
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


def _fitted(size: _Size, box: tuple[float, float]) -> _Size:
    """The largest (width, height) of the same shape that fits in a box."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _points(size: float) -> float:
    """A text size in pixels as matplotlib wants it."""
    return size * 72 / _DPI


@functools.lru_cache
def _font(size: float, weight: _Weight) -> FontProperties:
    """The sans serif that comes with matplotlib."""
    return FontProperties(family="DejaVu Sans", size=_points(size), weight=weight)


def _width(text: str, size: float, weight: _Weight) -> float:
    """The width of a line of text in pixels."""
    font = _font(100, weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) * size / _points(100) * 1.01  # hinting makes it wider by up to so much


def _legible(text: str) -> str:
    """A text with a box for each character that the font lacks."""
    font = get_font(findfont(_font(10, "normal")))
    return "".join(sign if font.get_char_index(ord(sign)) else "□" for sign in text)


@functools.lru_cache(4096)  # a sheet says the same many times
def _wrapped(
    text: str, width: float, size: float, most: int, weight: _Weight = "normal"
) -> tuple[str, ...]:
    """A text in at most so many lines, none of them wider than `width`.

    Lines break where a · parts what is said, or between words, or within a word that is wider
    than a line. What is too long ends
    in an ellipsis; a word that is too long has it in its middle, for names of files tend to differ
    at their ends.
    """
    longest = width if most < 3 else 0.95 * width * (most - 1)
    lines: list[str] = []
    for paragraph in text[:1000].splitlines():  # far more than a place ever holds
        line = ""
        for word in _words(paragraph, width, size, weight):
            short = _shortened(word, longest, size, weight)
            joined = f"{line} {short}".strip()
            if _width(joined, size, weight) <= width:
                line = joined
                continue
            *broken, rest = _broken(short, width, size, weight)
            lines += [line.removesuffix(" ·")] * bool(line) + broken
            line = rest
        lines += [line] * bool(line)
    if len(lines) <= most:
        return tuple(lines)
    last = lines[most - 1]
    fits = _prefix(last, width - _width("…", size, weight), size, weight)
    return (*lines[: most - 1], last[:fits].rstrip(" ·") + "…")


def _words(paragraph: str, width: float, size: float, weight: _Weight) -> Iterator[str]:
    """What is to stay together: all up to a · where it fits in a line, or else a word."""
    *parts, last = _legible(" ".join(paragraph.split())).split(" · ")
    for part in [*(f"{part} ·" for part in parts), last]:
        yield from [part] if _width(part, size, weight) <= width else part.split()


def _shortened(word: str, width: float, size: float, weight: _Weight) -> str:
    """A word with its middle left out, where it is too wide."""
    if _width(word, size, weight) <= width:
        return word
    half = (width - _width("…", size, weight)) / 2
    end = word[::-1][: _prefix(word[::-1], half, size, weight)][::-1]
    return word[: _prefix(word, half, size, weight)] + "…" + end


def _broken(word: str, width: float, size: float, weight: _Weight) -> list[str]:
    """A word in pieces that fit."""
    pieces = []
    while len(word) > 1 and _width(word, size, weight) > width:
        end = max(1, _prefix(word, width, size, weight))
        pieces.append(word[:end])
        word = word[end:]
    return [*pieces, word]


def _prefix(text: str, width: float, size: float, weight: _Weight) -> int:
    """How many characters of a text fit."""
    lengths = range(1, len(text) + 1)
    return bisect.bisect_right(lengths, width, key=lambda n: _width(text[:n], size, weight))
