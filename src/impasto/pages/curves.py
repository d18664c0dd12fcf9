"""Losses of several runs as curves: matplotlib finds the ticks and strokes the lines.

It is imported when curves are asked for, and told everything, so that no style that a program has
given it matters; text and straight lines are the page's own.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from impasto.errors import ImpastoError, reason_of
from impasto.pages.page import MARGIN, PAGE, POINT, QUIET, Page, wrapped

Series = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""The course of a run: evaluations (or steps), seconds and losses, each of the same length."""

_Points = Sequence[tuple[float, float]]

# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow, which is
# faint on white. Four kinds of dashes are coprime to seven colours: 28 lines differ.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
_DASHES = (None, (24, 8), (24, 8, 6, 8), (6, 6))  # pixels drawn and left out
_WIDTH = 4
_GRID = "#e2e2e2"


Scale = Literal["log", "linear"]


def curves(
    series: Mapping[str, Series], counted: str = "evaluations", scale: Scale = "log"
) -> Image.Image:
    """Losses of several runs against what is counted and against seconds.

    On a logarithmic scale, losses that are not positive and finite are left out; on a linear one,
    the most extreme hundredth is drawn at the border. Returns a PIL image of mode RGB.

    Raises:
        ImpastoError: matplotlib cannot be imported.
    """
    try:
        agg = importlib.import_module("matplotlib.backends.backend_agg")
    except Exception as error:
        raise ImpastoError(
            f"curves are drawn with matplotlib, which cannot be imported ({reason_of(error)}); "
            "mend it or its settings"
        ) from error
    size, legend, gap = 9 * POINT, 430, 70
    left, right = MARGIN + 110, PAGE[0] - MARGIN - legend
    page = Page()
    lines: list[_Points] = []
    y: float = MARGIN
    for label in series:
        lines.append([(right, y + 0.62 * size), (right + 90, y + 0.62 * size)])
        y = page.text(wrapped(label, legend - 110, size, 2), right + 110, y, size) + 0.35 * size
    bottom = max(round(y), MARGIN + 760)
    page.text_upwards(["loss"], MARGIN + size, (MARGIN + bottom) / 2, size)
    width = (right - 60 - left - gap) // 2
    for number, name in enumerate((counted, "seconds")):
        runs = [(run[number], run[2]) for run in series.values()]
        start = left + number * (width + gap)
        page.text([name], start + width / 2, bottom + 46, size, 0.5)
        box = (start, MARGIN, start + width, bottom)
        lines += _panel(page, runs, box, scale, labelled=not number)
    sheet = page.rendered((PAGE[0], bottom + 130))
    renderer = agg.RendererAgg(*sheet.size, 72)  # so that a point is a pixel
    strokes = _stroked(lines, len(series), renderer)
    sheet.paste(strokes, mask=strokes)
    return sheet


def _panel(
    page: Page,
    runs: Sequence[tuple[Sequence[float], Sequence[float]]],
    box: tuple[int, int, int, int],
    scale: Scale,
    *,
    labelled: bool,
) -> list[_Points]:
    """Axes from left and top to right and bottom, over a grid; returns the lines within them."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    left, top, right, bottom = box
    all_losses = [loss for _, losses in runs for loss in losses]
    low, high = _range(all_losses, scale)
    most = 1.05 * max((x for xs, _ in runs for x in xs), default=0) or 1

    def at(x: float, loss: float) -> tuple[float, float]:
        if scale == "linear":
            share = (min(max(loss, low), high) - low) / (high - low)
        else:
            share = math.log(loss / low) / math.log(high / low) if _is_drawable(loss) else math.nan
        return left + x / most * (right - left), bottom - share * (bottom - top)

    even: Any = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    decades = 0.0 if scale == "linear" else math.log10(high / low)
    # Powers of ten are too few within one decade; on so short a way they can be spaced evenly.
    subs = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    upright = LogLocator(subs=subs, numticks=9) if decades > 0.9 else even
    size = 8.5 * POINT
    for tick in upright.tick_values(low, high):
        if low <= tick <= high:
            _, y = at(0, tick)
            page.block(left - 6, y - 1, right, y + 1, _GRID)
            if labelled:
                page.text([f"{tick:.6g}"], left - 14, y - 0.6 * size, size, 1)
    for tick in even.tick_values(0, most):
        if tick <= most:
            x, _ = at(tick, low)
            page.block(x - 1, top, x + 1, bottom + 6, _GRID)
            page.text([f"{tick:.6g}"], x, bottom + 10, size, 0.5)
    page.block(left - 1, top, left + 1, bottom + 1, QUIET)
    page.block(left - 1, bottom - 1, right, bottom + 1, QUIET)
    return [[at(x, loss) for x, loss in zip(*run, strict=True)] for run in runs]


def _range(losses: Sequence[float], scale: Scale) -> tuple[float, float]:
    """The lowest and the highest loss that is shown, with a margin."""
    if scale == "linear":
        there = [loss for loss in losses if math.isfinite(loss)] or [0.0, 1.0]
        low, high = np.quantile(there, (0.005, 0.995)).tolist()
        margin = 0.04 * (high - low) or 0.5
        return low - margin, high + margin
    there = [loss for loss in losses if _is_drawable(loss)] or [0.1, 1]
    ratio = max((max(there) / min(there)) ** 0.04, 1.01)
    return min(there) / ratio, max(there) * ratio


def _is_drawable(loss: float) -> bool:
    return math.isfinite(loss) and loss > 0


def _stroked(lines: Sequence[_Points], runs: int, renderer: Any) -> Image.Image:
    """Lines on nothing, in the colour and the dashes of their run; a single point is a dot.

    Drawn by the renderer itself: a figure would ask for the program's style.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    downwards = Affine2D().scale(1, -1).translate(0, renderer.height)
    for number, points in enumerate(lines):
        colour = to_rgb(_COLOURS[number % runs % len(_COLOURS)])
        pen = renderer.new_gc()
        pen.set_foreground(colour)
        pen.set_linewidth(_WIDTH)
        visible = [point for point in points if math.isfinite(point[1])]
        if len(visible) == 1:
            renderer.draw_path(pen, Path.circle(visible[0], _WIDTH), downwards, colour)
        else:
            pen.set_dashes(0, _DASHES[number % runs % len(_DASHES)])
            path = Path(np.reshape(points, (-1, 2)))
            path.should_simplify = False
            renderer.draw_path(pen, path, downwards)
    return Image.fromarray(np.asarray(renderer.buffer_rgba()))
