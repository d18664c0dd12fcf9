"""Pages of labelled pictures: everything is there, at its place and in its shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from impasto.pages import layout

COLOURS = [
    (red, green, blue)
    for red, green, blue in itertools.product((0, 90, 180, 255), repeat=3)
    if max(red, green, blue) - min(red, green, blue) > 80
]
NASTY = [
    "price $5 and $x_1$",
    "under_score ^ \\frac{1}{2} {",
    "漢字の名前.jpg",
    "🎨🖼️ \udcff \x07 \u202e rtl \u200b",
    "a_file_name_of_many_letters_" * 30 + ".jpg",
    "many words of a sentence that goes on, " * 30,
    "two\nlines\r\nor three",
    "_private",
    "100 % & #hash ~",
    " ",
    "",
]


def solid(index: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.new("RGB", size, COLOURS[index])


def packed(page: Image.Image) -> NDArray[np.uint32]:
    """One number a pixel."""
    return np.asarray(page.convert("RGBA")).view(np.uint32)[..., 0]


def place(page: Image.Image, index: int) -> tuple[int, int, int, int]:
    """Where a solid picture is, as left, top, width and height; it has no holes."""
    ys, xs = np.nonzero(packed(page) == packed(solid(index))[0, 0])
    assert len(xs), f"picture {index} is not on the page"
    left, top = int(xs.min()), int(ys.min())
    width, height = int(xs.max()) - left + 1, int(ys.max()) - top + 1
    assert len(xs) == width * height
    return left, top, width, height


def in_row(places: Sequence[tuple[int, int, int, int]]) -> bool:
    """From left to right without touching, on one height."""
    apart = all(a[0] + a[2] < b[0] for a, b in itertools.pairwise(places))
    return apart and len({(top, height) for _, top, _, height in places}) == 1


def is_white_around(page: Image.Image) -> bool:
    pixels = np.asarray(page)
    edges = (pixels[:20], pixels[-20:], pixels[:, :20], pixels[:, -20:])
    return all((edge == 255).all() for edge in edges)


@pytest.mark.parametrize(
    ("photo", "painting"),
    [((96, 64), (64, 96)), ((64, 96), (96, 64)), ((60, 300), (60, 300)), ((300, 60), (1, 1))],
)
def test_atlas(photo: tuple[int, int], painting: tuple[int, int]) -> None:
    contents = [(f"relu{n}_1", solid(n, photo)) for n in range(6)]
    styles = [(f"+ relu{n}_1", solid(n + 10, painting)) for n in range(6)]
    page = layout.atlas(contents, styles)
    assert page.mode == "RGB"
    assert page.width == 2340
    assert page.height <= 1654
    assert is_white_around(page)
    above, below = ([place(page, row + n) for n in range(6)] for row in (0, 10))
    assert in_row(above)
    assert in_row(below)
    assert above[0][1] + above[0][3] < below[0][1]
    for row, shape in ((above, photo), (below, painting)):
        for _, _, width, height in row:
            assert width / height == pytest.approx(shape[0] / shape[1], rel=0.05)
        gaps = [b[0] - a[0] for a, b in itertools.pairwise(row)]
        assert gaps[0] > max(gaps[1:]) + 30, "the original is set apart"


def test_atlas_rows_may_differ_in_length() -> None:
    page = layout.atlas([("photo", solid(0)), ("relu1_1", solid(2))], [("painting", solid(1))])
    assert place(page, 0)[1] == place(page, 2)[1]
    assert place(page, 1)[0] == place(page, 0)[0]


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, (8, 12)), (7, (12, 8)), (16, (90, 128)), (24, (4, 20)), (24, (20, 4)), (24, (200, 300))],
)
def test_channel_grid(count: int, shape: tuple[int, int]) -> None:
    maps = [(number, np.ones(shape)) for number in range(count)]
    page = layout.channel_grid("relu3_1", maps, solid(0, (shape[1] * 8, shape[0] * 8)), "title")
    assert page.width == 2340
    assert is_white_around(page)
    photo = place(page, 0)
    yellow = Image.new("RGB", (1, 1), (253, 231, 36))  # the upper end of viridis
    bright = packed(page) == packed(yellow)[0, 0]
    rows, columns = bright.any(1), bright.any(0)
    starts = [int((np.diff(line.astype(int), prepend=0) == 1).sum()) for line in (rows, columns)]
    assert starts[0] * starts[1] >= count > (starts[0] - 1) * starts[1]
    assert np.flatnonzero(columns)[0] > photo[0] + photo[2]
    area = bright.sum() / count
    height = rows.sum() / starts[0]
    assert area / height**2 == pytest.approx(shape[1] / shape[0], rel=0.1)


def test_a_map_goes_from_zero_to_its_own_maximum() -> None:
    ramp = np.linspace(0, 1, 24).reshape(1, 24).repeat(16, 0)
    one = layout.channel_grid("relu1_1", [(3, ramp)], solid(0), "title")
    for scaled in (ramp * 1e-3, ramp.astype(np.float32) * 1e4):
        other = layout.channel_grid("relu1_1", [(3, scaled)], solid(0), "title")
        middle = slice(200, 600), slice(700, None)
        difference = np.asarray(one, int)[middle] - np.asarray(other, int)[middle]
        assert np.abs(difference).max() <= 2
    pixels = np.asarray(one, int)[200:600, 700:].reshape(-1, 1, 3)
    colours = matplotlib.colormaps["viridis"](range(256), bytes=True)[:, :3].astype(int)
    coloured = pixels[pixels[:, 0].min(-1) < 200][::50]
    assert len(coloured) > 1000
    assert np.abs(coloured - colours).max(-1).min(-1).max() <= 5
    for end in colours[[0, -1]]:
        assert (np.asarray(one) == end).all(-1).any()


def test_maps_without_a_maximum() -> None:
    maps = [np.full((4, 6), value) for value in (0.0, -1.0, np.nan, np.inf)]
    page = layout.channel_grid("relu1_1", list(enumerate(maps)), solid(0), "title")
    dark = Image.new("RGB", (1, 1), (68, 1, 84))  # the lower end of viridis
    assert (packed(page) == packed(dark)[0, 0]).mean() > 0.2


def sheet(
    rows: int, columns: int, size: tuple[int, int] = (96, 64), originals: int = 0
) -> Image.Image:
    return layout.contact_sheet(
        [
            (f"loss 0.532 · {151 + n % columns} evaluations · 13 s", solid(n, size))
            for n in range(rows * columns)
        ],
        row_labels=[f"optimizer = {r}" for r in range(rows)],
        column_labels=[f"pooling = {c}" for c in range(columns)],
        originals=[(f"original {n}", solid(-1 - n, (60, 80))) for n in range(originals)],
    )


@pytest.mark.parametrize(
    ("rows", "columns", "originals"),
    [(1, 1, 0), (1, 5, 2), (2, 3, 0), (2, 3, 2), (2, 3, 3), (5, 4, 2), (3, 1, 1)],
)
def test_contact_sheet(rows: int, columns: int, originals: int) -> None:
    page = sheet(rows, columns, originals=originals)
    assert is_white_around(page)
    grid = [[place(page, r * columns + c) for c in range(columns)] for r in range(rows)]
    assert all(in_row(row) for row in grid)
    assert all(in_row([(y, x, h, w) for x, y, w, h in line]) for line in zip(*grid, strict=True))
    for n in range(originals):
        left, top, width, height = place(page, -1 - n)
        assert left + width < grid[0][0][0]
        assert top == grid[n % rows][0][1]
        assert width / height == pytest.approx(60 / 80, rel=0.05)


def test_a_long_row_is_continued_below() -> None:
    page = sheet(1, 7)
    places = [place(page, n) for n in range(7)]
    assert in_row(places[:4])
    assert in_row(places[4:])
    assert places[0][1] + places[0][3] < places[4][1]
    assert [x for x, *_ in places[4:]] == [x for x, *_ in places[:3]]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((400, 300), (400, 300)),
        ((512, 288), (512, 288)),
        ((300, 512), (300, 512)),
        ((1024, 768), (512, 384)),
        ((60, 40), (240, 160)),
    ],
)
def test_pictures_have_their_own_pixels(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert place(sheet(1, 2, size), 1)[2:] == shown


def test_pixels_are_untouched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    noise[0, 0] = COLOURS[0]
    picture = Image.fromarray(noise)
    page = layout.contact_sheet([("", picture)], row_labels=[""], column_labels=[""], originals=[])
    pixels = np.asarray(page)
    corners = np.argwhere((pixels == COLOURS[0]).all(-1))
    assert any((pixels[y : y + 300, x : x + 400] == noise).all() for y, x in corners)


def test_sheets_have_bounds() -> None:
    assert 5500 < sheet(2, 15, (512, 100)).width <= 6000
    tall = sheet(15, 1, (100, 512))
    assert 5500 < tall.height <= 6000
    for n in range(15):
        width, height = place(tall, n)[2:]
        assert width / height == pytest.approx(100 / 512, rel=0.02)


def test_pictures_of_several_shapes_share_a_grid() -> None:
    shapes = [(96, 64), (64, 96), (80, 80)]
    cells = [("a", solid(n, shape)) for n, shape in enumerate(shapes)]
    page = layout.contact_sheet(cells, row_labels=[""], column_labels=["", "", ""], originals=[])
    for n, shape in enumerate(shapes):
        _, _, width, height = place(page, n)
        assert max(width, height) == 240
        assert width / height == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_a_missing_picture_is_an_empty_frame() -> None:
    def drawn(caption: str) -> Image.Image:
        return layout.contact_sheet(
            [("fine", solid(0)), (caption, None), ("fine", solid(1))],
            row_labels=[""],
            column_labels=["a", "b", "c"],
            originals=[],
        )

    left, top, width, height = place(drawn("interrupted"), 0)
    right = place(drawn("interrupted"), 1)[0]
    x = left + (right - left) // 2
    empty, full = (
        np.asarray(drawn(text))[top : top + height, x : x + width]
        for text in ("", "failed: no memory " * 20)
    )
    assert (empty[5:-5, 5:-5] == empty[5, 5]).all()
    assert (empty[0] != 255).all()
    changed = np.argwhere((empty != full).any(-1))
    assert len(changed) > 1000
    assert (changed.min(0) > 4).all(), "the text stays within the frame"
    assert (changed.max(0) < (height - 4, width - 4)).all()


@pytest.mark.parametrize("label", NASTY)
def test_any_label(label: str) -> None:
    named = [(label, solid(n)) for n in range(3)]
    pages = [
        layout.atlas(named, named[:1]),
        layout.channel_grid(label, [(1, np.eye(4))], solid(0), label),
        layout.contact_sheet(
            [*named, (label, None)],
            row_labels=[label] * 2,
            column_labels=[label] * 3,
            originals=[(label, solid(3))],
        ),
    ]
    assert all(is_white_around(page) for page in pages)
    for index in range(4):
        place(pages[2], index)  # no text is written over a picture


def test_labels_are_literal() -> None:
    """Mathematics would drop the dollars and lower the one."""
    widths = []
    for label in ("x_1", "$x_1$"):
        page = layout.contact_sheet(
            [("", solid(0))], row_labels=[""], column_labels=[label], originals=[]
        )
        dark = (np.asarray(page).max(-1) < 128)[: place(page, 0)[1]]
        widths.append(np.ptp(np.flatnonzero(dark.any(0))))
    assert widths[1] > 1.4 * widths[0]


def test_long_names_keep_their_ends() -> None:
    def named(label: str) -> bytes:
        return layout.contact_sheet(
            [("", solid(0))], row_labels=[""], column_labels=[label], originals=[]
        ).tobytes()

    assert named("style = " + "x" * 300 + "1.jpg") != named("style = " + "x" * 300 + "2.jpg")
