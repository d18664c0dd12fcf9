"""Comparisons: the grid, its table and its curves."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impasto import (
    CompareSettings,
    Comparison,
    ImpastoError,
    SheetInterrupted,
    Step,
    compare,
    read_record,
    sample,
    stylize,
)
from impasto.pages import layout, page
from tests.conftest import noticed

PHOTO, PAINTING = sample("kingfisher"), sample("great_wave")
QUICK: dict[str, Any] = {"size": 32, "steps": 3}


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(table.splitlines()))


def test_a_grid_of_two_options(tmp_path: Path) -> None:
    titles: list[str] = []
    comparison = compare(
        PHOTO,
        PAINTING,
        vary={"optimizer": ["lbfgs", "cg"], "style_loss": ["gram", "bn"]},
        callback=lambda run, _: titles.append(run),
        **QUICK,
    )
    assert list(dict.fromkeys(titles)) == [
        "1 of 4: optimizer lbfgs, style-loss gram",
        "2 of 4: optimizer lbfgs, style-loss bn",
        "3 of 4: optimizer cg, style-loss gram",
        "4 of 4: optimizer cg, style-loss bn",
    ]
    table = rows(comparison.table())
    assert [(row["optimizer"], row["style-loss"]) for row in table] == [
        ("lbfgs", "gram"),
        ("lbfgs", "bn"),
        ("cg", "gram"),
        ("cg", "bn"),
    ]
    alone = stylize(PHOTO, PAINTING, **QUICK, optimizer="cg", style_loss="gram")
    assert float(table[2]["loss"]) == pytest.approx(alone.losses[-1], rel=1e-6)
    assert float(table[2]["style relu3_1"]) == pytest.approx(alone.parts["style relu3_1"], rel=1e-6)
    assert int(table[2]["evaluations"]) == alone.evaluations
    for run in comparison.runs:
        assert run.artwork
        assert len(run.evaluations) == len(run.seconds) == len(run.artwork.losses)
        assert run.seconds[0] == 0
        assert list(run.seconds) == sorted(run.seconds)
    record = read_record(comparison.save(tmp_path / "a.png"))
    assert record["command"] == "compare"
    assert record["runs"][3]["settings"]["optimizer"] == "cg"
    written = comparison.save_table(tmp_path / "a.csv")
    assert written.read_text() == comparison.table()
    with noticed("exists already"):
        assert comparison.save_table(tmp_path / "a.csv").name == "a-2.csv"
    assert comparison.curves().width > 1000
    assert comparison.save_curves(tmp_path / "curves.png").is_file()


def test_pictures_and_labels_can_vary(tmp_path: Path) -> None:
    """Files are called by their stems, as far as these differ."""
    other = sample("night_cafe")
    copy = tmp_path / "night_cafe.jpg"
    copy.write_bytes(other.read_bytes())
    for paintings, told in (
        ({"a": PAINTING, "both": [PAINTING, other]}, ["a", "both"]),
        ([PAINTING, other, copy], ["great_wave", str(other), str(copy)]),
    ):
        comparison = compare(PHOTO, vary={"painting": paintings}, size=32, steps=0)
        assert [run.choices for run in comparison.runs] == [{"style": name} for name in told]
        assert [run.label for run in comparison.runs] == [f"style {name}" for name in told]


def test_presets_and_settings_can_vary() -> None:
    """None leaves an option to the settings, or to the preset."""
    comparison = compare(
        PHOTO, PAINTING, vary={"preset": ["gatys", None], "seed": [None, 3]}, size=32, steps=0
    )
    settings = [run["settings"] for run in comparison.record["runs"]]
    assert [each["scaling"] for each in settings] == ["gatys"] * 2 + ["relative"] * 2
    assert [each["seed"] for each in settings] == [0, 3, 0, 3]
    chosen = CompareSettings(size=32, steps=0, seed=5)
    comparison = compare(PHOTO, PAINTING, vary={"tv": [None, 1]}, settings=chosen, levels=1)
    settings = [run["settings"] for run in comparison.record["runs"]]
    assert [(each["seed"], each["tv"], each["levels"]) for each in settings] == [
        (5, 2.0, 1),
        (5, 1, 1),
    ]


def test_parts_that_a_run_has_not_are_empty() -> None:
    vary = {"style_layers": [["relu1_1"], ["relu2_1"]]}
    comparison = compare(PHOTO, PAINTING, vary=vary, size=32, steps=0, style_loss="gram")
    one, other = rows(comparison.table())
    assert one["style relu1_1"]
    assert not one["style relu2_1"]
    assert other["style relu2_1"]


def test_interrupted_it_keeps_what_was_painted() -> None:
    def stop(run: str, step: Step) -> None:
        if run.startswith("2") and step.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(SheetInterrupted) as caught:
        compare(PHOTO, PAINTING, vary={"seed": [1, 2, 3]}, callback=stop, **QUICK)
    assert isinstance(caught.value.sheet, Comparison)
    table = rows(caught.value.sheet.table())
    assert [row["stopped"] for row in table] == ["budget", "interrupted"]


def test_what_is_wrong_is_known_before_the_first_run() -> None:
    painted: list[str] = []

    def note(run: str, _: Step) -> None:
        painted.append(run)

    for vary, told in (
        ({"optimizer": ["lbfgs", "sgd"]}, "there is no optimizer 'sgd'"),
        ({"painting": [PAINTING, "missing.jpg"]}, r"missing\.jpg"),
        ({"style_layers": [["relu4_1"], ["relu9_1"]]}, "there is no layer 'relu9_1'"),
        ({"content_layer": ["relu4_2"]}, "'neighbors' has no content loss"),
        ({"style-loss": ["gram"]}, "did you mean 'style_loss'"),
        ({}, "one or two options"),
        ({"seed": []}, "one or two options"),
        ({"seed": [1], "size": [32], "steps": [1]}, "one or two options"),
        ({"preset": ["gatys", "monet"]}, "there is no preset 'monet'"),
    ):
        with pytest.raises(ImpastoError, match=told):
            compare(PHOTO, PAINTING, vary=vary, callback=note, **QUICK)
    assert not painted


def test_a_run_that_fails_leaves_its_place_empty() -> None:
    strip = Image.new("RGB", (320, 32), "red")
    with noticed("size 64 is left out: .* needs at least"):
        comparison = compare(strip, PAINTING, vary={"size": [320, 64]}, steps=0)
    assert comparison.runs[1].artwork is None
    assert "needs at least" in comparison.runs[1].error
    assert rows(comparison.table())[1]["stopped"] == "failed"


def test_what_nobody_foresaw_is_one_runs_own() -> None:
    def trip(run: str, _: Step) -> None:
        if run.startswith("2"):
            raise TypeError("of all things")

    with noticed("seed 2 is left out: TypeError: of all things"):
        comparison = compare(
            PHOTO, PAINTING, vary={"seed": [1, 2, 3]}, callback=trip, size=32, steps=0
        )
    assert [run.stopped for run in comparison.runs] == ["budget", "failed", "budget"]
    assert comparison.runs[1].error == "TypeError: of all things"


def test_an_interruption_while_the_page_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn anew: it takes a second, and the runs on it took minutes."""
    pressed: list[bool] = []

    def wrapped(*arguments: Any, **options: Any) -> tuple[str, ...]:
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        return page.wrapped(*arguments, **options)

    monkeypatch.setattr(layout, "wrapped", wrapped)
    with pytest.raises(SheetInterrupted) as caught:
        compare(PHOTO, PAINTING, vary={"seed": [1]}, size=32, steps=0)
    sheet = caught.value.sheet
    assert sheet.stopped == "interrupted"
    assert [run.stopped for run in sheet.runs] == ["budget"]
    assert sheet.image.width > 500


def test_without_matplotlib_there_is_all_but_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    comparison = compare(PHOTO, PAINTING, vary={"seed": [1]}, size=32, steps=0)
    assert len(rows(comparison.table())) == 1
    with pytest.raises(ImpastoError, match="matplotlib, which cannot be imported"):
        comparison.curves()
