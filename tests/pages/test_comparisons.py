"""Comparisons: the grid, its table and its curves."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impasto import (
    ImpastoError,
    SheetInterrupted,
    Step,
    compare,
    read_record,
    sample,
    stylize,
)
from impasto.pages import layout as figures
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
    alone = stylize(PHOTO, PAINTING, **QUICK, optimizer="cg")
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


def test_pictures_and_labels_can_vary() -> None:
    other = sample("night_cafe")
    comparison = compare(
        PHOTO, vary={"painting": {"a": PAINTING, "both": [PAINTING, other]}}, **QUICK
    )
    assert [run.label for run in comparison.runs] == ["style a", "style both"]
    comparison = compare(PHOTO, vary={"painting": [PAINTING, other]}, **QUICK)
    assert [run.choices["style"] for run in comparison.runs] == ["great_wave", "night_cafe"]


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    copies = [tmp_path / folder / "wave.jpg" for folder in ("a", "b")]
    for copy in copies:
        copy.parent.mkdir()
        copy.write_bytes(PAINTING.read_bytes())
    comparison = compare(PHOTO, vary={"painting": [*copies, PAINTING]}, **QUICK)
    assert [run.choices["style"] for run in comparison.runs] == [*map(str, copies), "great_wave"]


def test_parts_that_a_run_has_not_are_empty() -> None:
    comparison = compare(
        PHOTO, PAINTING, vary={"style_layers": [["relu1_1"], ["relu2_1"]]}, **QUICK
    )
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
    table = rows(caught.value.sheet.table())  # type: ignore[attr-defined]
    assert [row["stopped"] for row in table] == ["budget", "interrupted"]


def test_what_is_wrong_is_known_before_the_first_run() -> None:
    painted: list[str] = []

    def note(run: str, _: Step) -> None:
        painted.append(run)

    for vary, told in (
        ({"optimizer": ["lbfgs", "sgd"]}, "there is no optimizer 'sgd'"),
        ({"painting": [PAINTING, "missing.jpg"]}, r"missing\.jpg"),
        ({"content_layer": ["relu4_2", "relu9_1"]}, "there is no layer 'relu9_1'"),
        ({"style-loss": ["gram"]}, "did you mean 'style_loss'"),
        ({}, "one or two options"),
        ({"seed": []}, "one or two options"),
        ({"seed": [1], "size": [32], "steps": [1]}, "one or two options"),
    ):
        with pytest.raises(ImpastoError, match=told):
            compare(PHOTO, PAINTING, vary=vary, callback=note, **QUICK)
    assert not painted


def test_a_run_that_fails_leaves_its_place_empty() -> None:
    strip = Image.new("RGB", (320, 32), "red")
    with noticed("size 64 is left out: .* needs at least"):
        comparison = compare(strip, PAINTING, vary={"size": [320, 64]}, steps=1)
    assert comparison.runs[1].artwork is None
    assert "needs at least" in comparison.runs[1].error
    assert rows(comparison.table())[1]["stopped"] == "failed"


def test_what_nobody_foresaw_is_one_runs_own() -> None:
    def trip(run: str, _: Step) -> None:
        if run.startswith("2"):
            raise TypeError("of all things")

    with noticed("seed 2 is left out: TypeError: of all things"):
        comparison = compare(PHOTO, PAINTING, vary={"seed": [1, 2, 3]}, callback=trip, **QUICK)
    assert [run.stopped for run in comparison.runs] == ["budget", "failed", "budget"]
    assert comparison.runs[1].error == "TypeError: of all things"
    with pytest.raises(TypeError, match="of all things"):
        compare(PHOTO, PAINTING, vary={"seed": [2]}, callback=lambda *_: trip("2", _[1]), **QUICK)


def broken(error: BaseException) -> Any:
    def draw(*_: Any, **__: Any) -> Image.Image:
        raise error

    return draw


def test_a_page_that_cannot_be_drawn_costs_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "contact_sheet", broken(RuntimeError("no font")))
    monkeypatch.setattr(figures, "curves", broken(RuntimeError("no font")))
    vary: dict[str, list[Any]] = {"seed": [1, 2], "optimizer": ["lbfgs", "adam"]}
    with noticed(r"cannot be drawn \(RuntimeError: no font\)"):
        comparison = compare(PHOTO, PAINTING, vary=vary, **QUICK)
    assert comparison.stopped == "budget"
    assert len(rows(comparison.table())) == 4
    width, height = 32, 18
    for number, run in enumerate(comparison.runs):
        row, column = divmod(number, 2)
        left, top = 16 + column * (width + 16), 16 + row * (height + 16)
        assert run.artwork
        there = comparison.image.crop((left, top, left + width, top + height))
        assert there.tobytes() == run.artwork.image.tobytes()
    with pytest.raises(ImpastoError, match="the curves cannot be drawn"):
        comparison.curves()


def test_an_interruption_while_the_page_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "contact_sheet", broken(KeyboardInterrupt()))
    with (
        noticed(r"cannot be drawn \(interrupted\)"),
        pytest.raises(SheetInterrupted) as caught,
    ):
        compare(PHOTO, PAINTING, vary={"seed": [1, 2]}, **QUICK)
    sheet = caught.value.sheet
    assert sheet.stopped == "interrupted"
    assert [run.stopped for run in sheet.runs] == ["budget"] * 2  # type: ignore[attr-defined]


def test_without_matplotlib_nothing_is_painted_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "impasto.pages.layout", None)
    painted: list[str] = []
    with pytest.raises(ImpastoError, match="matplotlib, which cannot be imported"):
        compare(
            PHOTO,
            PAINTING,
            vary={"seed": [1]},
            callback=lambda run, _: painted.append(run),
            **QUICK,
        )
    assert not painted
