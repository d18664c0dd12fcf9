"""Labels: literally there, within their places, in a font that is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image, ImageFont

from impasto.pages import page as pages
from impasto.pages.page import Page, wrapped

GONE = {ord(sign): None for sign in map(chr, range(0x110000)) if sign.isspace() or sign == "·"}


def written(text: str, *, bold: bool = False) -> Image.Image:
    page = Page()
    page.text([text], 20, 20, 40, bold=bold)
    return page.rendered((400, 80))


def test_what_the_font_lacks_is_a_box() -> None:
    box = np.asarray(written("漢"))[..., 0] < 128
    assert written("漢") == written("🎨") != written("x")
    ys, xs = np.nonzero(box)
    assert box[ys.min(), xs.min() : xs.max()].all()
    assert box[ys.min() : ys.max(), xs.max()].all()
    assert box.sum() < 0.5 * np.ptp(ys) * np.ptp(xs), "it is empty"


def test_bold_is_bolder() -> None:
    light, dark = (np.asarray(written("title", bold=bold), int).sum() for bold in (False, True))
    assert dark < light


def test_without_the_font_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(font: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(font, Path):
            raise OSError("no such file")
        return load(font, *arguments, **options)

    own, load = written("title"), ImageFont.truetype
    monkeypatch.setattr(ImageFont, "truetype", found)
    pages._font.cache_clear()
    other = written("title")
    pages._font.cache_clear()
    assert other.getextrema()[0][0] < 50  # type: ignore[index]
    assert other != own


def test_upwards_is_a_quarter_turn() -> None:
    level, upright = Page(), Page()
    level.text(["Upwards"], 200, 100, 40, 0.5)
    upright.text_upwards(["Upwards"], 100, 200, 40)
    turned = upright.rendered((400, 400)).transpose(Image.Transpose.ROTATE_270)
    boxes = [
        Image.eval(page.convert("L"), lambda value: 255 - value).getbbox()
        for page in (level.rendered((400, 400)), turned)
    ]
    sizes = [(right - left, bottom - top) for left, top, right, bottom in filter(None, boxes)]
    assert sizes[0] == sizes[1]


@given(
    st.text(st.sampled_from("abc·. WM_漢\n")) | st.text(),
    st.integers(60, 500),
    st.integers(1, 5),
)
def test_lines_fit(text: str, width: int, most: int) -> None:
    lines = wrapped(text, width, 20, most)
    font = pages._font(20)
    assert len(lines) <= most
    assert all(font.getlength(line) <= width for line in lines)
    if "…" not in "".join(lines) + text:
        assert "".join(lines).translate(GONE) == text.translate(GONE), "all of it is there"


def test_lines_break_where_a_dot_parts_what_is_said() -> None:
    told = "loss 0.532 · 151 evaluations · 13 s"
    assert wrapped(told, 1000, 20, 3) == (told,)
    assert wrapped(told, 280, 20, 3) == ("loss 0.532", "151 evaluations · 13 s")


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    (line,) = wrapped("many words of a sentence that goes on", 200, 20, 1)
    assert line.endswith("…")
    assert line.startswith("many words")
    first, second = wrapped("name " + "x" * 99 + "1.jpg", 200, 20, 2)
    assert first == "name"
    assert second.startswith("xxx")
    assert second.endswith("1.jpg")
    assert "…" in second
    pieces = wrapped("x" * 40, 200, 20, 4)
    assert "".join(pieces) == "x" * 40
