"""A page to put pictures, labels and thin lines on, in pixels from its top left corner.

Labels appear literally: wrapped, shortened with an ellipsis if too long, with a box for a character
that the font lacks. They look the same on every machine.
"""

from __future__ import annotations

import bisect
import functools
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from impasto.pictures.images import composed, fitted, resize

Size = tuple[int, int]

PAGE: Size = (2340, 1654)  # A4 landscape at 200 dpi
POINT = 200 / 72  # pixels of a point on that page
MARGIN = 80
PITCH = 1.32  # from one line of text to the next, as a multiple of the text size

INK = "#1a1a1a"
QUIET = "#555555"
HAIRLINE = "#c8c8c8"
BLANK = "#f6f6f6"

_Font = ImageFont.FreeTypeFont


class Page:
    """Collects what is on a page, in drawing order; the page's size is only needed at the end."""

    def __init__(self) -> None:
        self._pasted: list[tuple[Any, Any, Image.Image | None]] = []

    def picture(
        self, image: Image.Image, x: int, y: int, box: tuple[float, float], *, middle: bool = True
    ) -> float:
        """Put a picture, as large as fits, in the middle of a box; returns the box's bottom.

        With `middle=False` it is at the top of the box; returns the picture's bottom.
        """
        size = fitted(image.size, box)
        left = x + round((box[0] - size[0]) / 2)
        top = y + round((box[1] - size[1]) / 2) * middle
        self._pasted.append((resize(composed(image), size), (left, top), None))
        return y + (box[1] if middle else size[1])

    def text(
        self,
        lines: Sequence[str],
        x: float,
        y: float,
        size: float,
        across: float = 0.0,
        down: float = 0.0,
        *,
        colour: str = INK,
        bold: bool = False,
    ) -> float:
        """Write lines at whole pixels, where letters are sharpest; returns their bottom.

        across, down: 0 to begin at `x` and `y`, 1/2 to be centred there, 1 to end there.
        """
        font = _font(size, bold)
        y -= down * len(lines) * PITCH * size
        for number, line in enumerate(lines):
            left, top, ink = _written(line, font)
            left += round(x - across * font.getlength(line))
            top += round(y + (number * PITCH + 0.95) * size)
            self._pasted.append((colour, (left, top), ink))
        return y + len(lines) * PITCH * size

    def text_upwards(self, lines: Sequence[str], x: float, y: float, size: float) -> None:
        """Write lines from bottom to top, centred at `y`; the last line stands on `x`."""
        for number, line in enumerate(reversed(lines)):
            _, top, ink = _written(line, _font(size))
            upright = ink.transpose(Image.Transpose.ROTATE_90)
            at = round(x - number * PITCH * size) + top, round(y - upright.height / 2)
            self._pasted.append((INK, at, upright))

    def block(
        self, x: float, y: float, right: float, bottom: float, colour: str = HAIRLINE
    ) -> None:
        """Fill a rectangle; one that is two pixels wide is a thin line."""
        self._pasted.append((colour, (round(x), round(y), round(right), round(bottom)), None))

    def rendered(self, size: Size) -> Image.Image:
        """The page as a picture of (width, height) and mode RGB."""
        sheet = Image.new("RGB", size, "white")
        for pasted in self._pasted:
            sheet.paste(*pasted)
        return sheet


@functools.lru_cache(64)
def _font(size: float, bold: bool = False) -> _Font:
    """DejaVu Sans from matplotlib's folder, or else Pillow's own font."""
    try:
        # Matplotlib is not imported: that takes longer than drawing a page.
        spec = importlib.util.find_spec("matplotlib")
        folder = next(iter(spec.submodule_search_locations or ()), "") if spec else ""
        file = Path(folder, "mpl-data", "fonts", "ttf", f"DejaVuSans{'-Bold' * bold}.ttf")
        # Without Raqm, which lays text out differently and is not installed everywhere.
        return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ValueError):
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font


def _written(line: str, font: _Font) -> tuple[int, int, Image.Image]:
    """A line as a mask, and the mask's (left, top) from the line's start on the baseline."""
    left, top, right, bottom = map(math.floor, font.getbbox(line, anchor="ls"))
    ink = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), line, 255, font, "ls")
    return left, top, ink


@functools.lru_cache(4096)  # a sheet repeats its texts often
def wrapped(
    text: str, width: float, size: float, most: int, *, bold: bool = False
) -> tuple[str, ...]:
    """A text in at most `most` lines, none of them wider than `width`.

    Lines break at a ·, or between words, or within a word that is wider than a line. A text that is
    too long ends in an ellipsis. A word that is too long has it in the middle, since file names
    tend to differ at their ends.
    """
    font = _font(size, bold)
    longest = width if most < 3 else 0.95 * width * (most - 1)
    lines: list[str] = []
    for paragraph in text[:1000].splitlines():  # far more than ever fits
        line = ""
        for word in _words(paragraph, width, font):
            for piece in _broken(_shortened(word, longest, font), width, font):
                joined = f"{line} {piece}".strip()
                if line and font.getlength(joined) > width:
                    lines.append(line.removesuffix(" ·"))
                    joined = piece
                line = joined
        lines += [line] * bool(line)
    if len(lines) > most:
        last = lines[most - 1]
        ended = _longest(lambda n: last[:n].rstrip(" ·") + "…", len(last), width, font)
        lines[most - 1 :] = [ended]
    return tuple(lines)


def _words(paragraph: str, width: float, font: _Font) -> Iterator[str]:
    """The parts that stay together: up to a · if that fits in a line, otherwise words."""
    *parts, last = " ".join(paragraph.split()).split(" · ")
    for part in [*(f"{part} ·" for part in parts), last]:
        yield from [part] if font.getlength(part) <= width else part.split()


def _shortened(word: str, width: float, font: _Font) -> str:
    """A word, with its middle left out if it is too wide."""
    if font.getlength(word) <= width:
        return word
    return _longest(lambda n: f"{word[:n]}…{word[-n:]}", len(word) // 2, width, font)


def _broken(word: str, width: float, font: _Font) -> list[str]:
    if font.getlength(word) <= width:
        return [word]
    piece = _longest(lambda n: word[:n], len(word), width, font)
    return [piece, *_broken(word[len(piece) :], width, font)]


def _longest(cut: Callable[[int], str], most: int, width: float, font: _Font) -> str:
    """The longest of cut(1), ..., cut(most) that fits, or else the first."""
    fit = bisect.bisect_right(range(1, most + 1), width, key=lambda n: font.getlength(cut(n)))
    return cut(max(1, fit))
