"""Curves of losses: whatever the losses, whatever matplotlib has been told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import style
from PIL import Image

from impasto import ImpastoError
from impasto.pages.curves import curves
from tests.pages.test_layout import NASTY, is_white_around

STEPS = list(range(1, 40))
FALLING = [100 * 0.8**n + 0.5 for n in STEPS]


def ink(page: Image.Image) -> int:
    return int((np.asarray(page) != 255).any(-1).sum())


def test_runs_of_losses() -> None:
    pages = [
        curves({f"run {n}": (STEPS, STEPS, FALLING) for n in range(count)}) for count in (1, 10, 40)
    ]
    assert all(is_white_around(page) for page in pages)
    assert all(page.width == 2340 for page in pages)
    inks = [ink(page) for page in pages]
    assert inks == sorted(set(inks))


def test_a_line_is_where_its_losses_are() -> None:
    """Of two panels, the first is against evaluations; losses fall on a logarithmic scale."""
    page = np.asarray(curves({"": ([0, 50, 100], [0, 1, 9], [100.0, 10.0, 1.0])}), int)
    ys, xs = np.nonzero(np.abs(page - (0, 114, 178)).max(-1) < 20)
    left = xs < 1000
    slope, start = np.polyfit(xs[left], ys[left], 1)
    assert slope > 0
    assert np.abs(slope * xs[left] + start - ys[left]).max() < 5, "it is straight"
    right = (xs > 1000) & (xs < 1800)
    assert np.abs(slope * xs[right] + start - ys[right]).max() > 50, "it is bent"


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [0.5],
        [0.5, 0.5],
        [1.0, 0.0],
        [np.nan, 2.0, np.inf],
        [1e30, 1e-30],
        [1.0, 0.999999],
        [0.0, -1.0],
        [900.0, 3.0],
    ],
)
def test_odd_losses(losses: list[float]) -> None:
    steps = list(range(len(losses)))
    assert is_white_around(curves({"run": (steps, steps, losses)}))


def test_no_runs() -> None:
    assert is_white_around(curves({}))


def test_a_single_point_is_seen() -> None:
    dot = ink(curves({"run": ([5], [5], [2.0])})) - ink(curves({"run": ([5], [5], [0.0])}))
    assert dot > 20


@pytest.mark.parametrize("label", NASTY)
def test_any_label(label: str) -> None:
    assert is_white_around(curves({label: ([1, 2], [1, 2], [3, 1])}))


def test_the_same_curves_whatever_the_style() -> None:
    def drawn() -> bytes:
        return curves({"a": (STEPS, STEPS, FALLING), "b": ([1], [1], [3])}).tobytes()

    first = drawn()
    settings: dict[Any, Any] = {
        "font.size": 30,
        "axes.facecolor": "black",
        "savefig.dpi": 40,
        "savefig.bbox": "tight",
        "image.origin": "lower",
        "lines.linewidth": 9,
        "lines.scale_dashes": False,
        "path.sketch": (1, 100, 2),
        "path.snap": False,
        "text.color": "red",
        "text.usetex": True,
    }
    with style.context(["classic", "dark_background", settings]):
        assert drawn() == first
        assert matplotlib.rcParams["font.size"] == 30


def test_without_matplotlib_there_are_no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ImpastoError, match="matplotlib, which cannot be imported"):
        curves({})


DRAW = """
import sys
from PIL import Image
from impasto import ImpastoError
from impasto.pages import curves, layout
cells = [("a", Image.new("RGB", (32, 32)))]
layout.contact_sheet(cells, row_labels=[""], column_labels=[""], originals=cells)
assert "matplotlib" not in sys.modules
try:
    print(curves.curves({}).width)
except ImpastoError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("backend", "told"),
    [("module://no.such.backend", "2340"), ("nonsense", "cannot be imported (ValueError: Key")],
)
def test_pages_need_no_matplotlib(backend: str, told: str, tmp_path: Path) -> None:
    """And curves no backend, which a notebook's kernel names, and no folder of settings."""
    (tmp_path / "file").write_text("no folder")
    process = subprocess.run(
        [sys.executable, "-c", DRAW],
        env=os.environ | {"MPLBACKEND": backend, "MPLCONFIGDIR": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert told in process.stdout
