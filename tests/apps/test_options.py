"""Options are read off the settings: none is missing, none is put before a preset."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impasto import read_record, sample
from impasto.apps.cli.main import main
from impasto.apps.cli.options import varied
from impasto.apps.cli.texts import layers, parted, region, weighted
from impasto.catalog import OPTIMIZERS, STYLES
from impasto.settings import (
    AtlasSettings,
    CompareSettings,
    ReconstructSettings,
    Settings,
    TextureSettings,
    hints,
)

PHOTO, PAINTING = str(sample("owl")), str(sample("great_wave"))
QUICK = ["--size", "32", "--steps", "1"]

Captured = pytest.CaptureFixture[str]
Bytes = pytest.CaptureFixture[bytes]


def help_of(command: str, capsys: Captured) -> dict[str, str]:
    """What help says of every option of a command."""
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    found = re.findall(r"^  --([\w-]+)(.*(?:\n {8,}.*)*)", text, re.MULTILINE)
    return {name: " ".join(about.split()) for name, about in found}


@pytest.mark.parametrize(
    ("command", "kind", "names"),
    [
        ("stylize", Settings, {"style_layers": "style-layer"}),
        ("compare", CompareSettings, {"style_layers": "style-layer"}),
        ("reconstruct", ReconstructSettings, {"layers": "layer"}),
        ("texture", TextureSettings, {}),
        ("atlas", AtlasSettings, {}),
    ],
)
def test_every_setting_is_an_option(
    command: str, kind: Any, names: dict[str, str], capsys: Captured
) -> None:
    told = help_of(command, capsys)
    for setting in hints(kind):
        about = told[names.get(setting, setting.replace("_", "-"))]
        default = getattr(kind, setting)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert f"(default {default:g}" in about
        assert "`" not in about


def test_help_says_what_there_is_to_choose_from(capsys: Captured) -> None:
    told = help_of("stylize", capsys)
    for name, row in {**STYLES, **OPTIMIZERS}.items():
        assert f"{name} ({row.help})" in told["style-loss"] + told["optimizer"]
    assert told["pooling"].startswith("avg|max ")
    assert told["size"].startswith("N|full ")
    assert told["margin"].startswith(", --no-margin ")
    assert told["steps"].endswith("(default 150; gatys: 500; lecture: 200)")
    assert told["style-layer"].startswith("L[:SHARE],... ")
    assert "blurred, less with more --detail" in told["init"]
    texture = help_of("texture", capsys)
    assert texture["steps"].endswith("(default 150)")  # it has no presets
    assert texture["size"] == "WxH width and height in pixels. (default 256x256)"


def test_help_is_plain_and_fits(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("40", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["reconstruct", "--help"]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert re.fullmatch(r"[\n -~]+", told.out)
        assert max(map(len, told.out.splitlines())) <= int(columns)


def test_a_preset_is_not_overridden_by_defaults() -> None:
    command = ["stylize", PHOTO, "--style", PAINTING, *QUICK, "--quiet", "--preset", "lecture"]
    assert main([*command, "-o", "a.png"]) == 0
    settings = read_record("a.png")["settings"]
    chosen = {name: settings[name] for name in ("init", "margin", "tv", "restart", "steps")}
    assert chosen == {"init": "noise", "margin": False, "tv": 0, "restart": 20, "steps": 1}
    assert main([*command, "--restart", "none", "--margin", "--tv", "1", "-o", "b.png"]) == 0
    settings = read_record("b.png")["settings"]
    assert (settings["restart"], settings["margin"], settings["tv"]) == (None, True, 1)


def test_what_texts_mean() -> None:
    assert layers(["relu1_1,relu2_1:2", "relu3_1"]) == {"relu1_1": 1, "relu2_1": 2, "relu3_1": 1}
    assert layers(["first"]) == "first"
    assert layers(["up-to:relu2_1,relu4_1:0.5"]) == {"up-to:relu2_1": 1, "relu4_1": 0.5}
    assert layers(["up-to:relu2_1:0.5"]) == {"up-to:relu2_1": 0.5}
    assert weighted("a.jpg:0.5") == ("a.jpg", 0.5)
    assert weighted("c:a.jpg") == ("c:a.jpg", 1)
    assert region("a:b.png:c.jpg") == ("a:b.png", "c.jpg")
    assert parted("a+b") == ["a", "b"]
    Path("a+b").touch()
    assert parted("a+b+c") == ["a+b", "c"]
    values = varied([("keep-colors", ["none", "histogram", "yes"]), ("margin", ["no", "true"])])
    assert values == {
        "keep_colors": {"none": None, "histogram": "histogram", "yes": True},
        "margin": {"no": False, "true": True},
    }


def test_every_way_to_give_a_value(capsys: Captured) -> None:
    command = ["stylize", "--style", PAINTING, "--quiet", "--json", *QUICK]
    for words in (
        ["-oa.png", PHOTO],
        ["-o=a.png", PHOTO],
        ["--output=a.png", "--", PHOTO],
        ["--seed", "1", "-o", "x.png", PHOTO, "--output", "a.png", "--seed=2"],  # the last counts
    ):
        assert main([*command, "--force", *words]) == 0
        assert '"output": "a.png"' in capsys.readouterr().out
    assert read_record("a.png")["settings"]["seed"] == 2
    assert main([*command, PHOTO, "--strength", "-0.5"]) == 2
    assert "strength is -0.5; give a number from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "kind", "size"),
    [
        (["stylize", PHOTO, "--style", PAINTING, *QUICK], "png", (32, 21)),
        (["reconstruct", PHOTO, *QUICK], "jpg", (32, 21)),
        (["texture", PAINTING, "--size", "32x16", "--steps", "1"], "webp", (32, 16)),
        (["atlas", PHOTO, "--channels", "relu1_1"], "png", None),
        (["compare", PHOTO, "--style", PAINTING, "--vary", "seed=1", *QUICK], "gif", None),
    ],
)
def test_standard_output_gets_the_picture_alone(
    command: list[str], kind: str, size: tuple[int, int] | None, capsysbinary: Bytes
) -> None:
    assert main([*command, "-o", "-", "--format", kind, "--json"]) == 0
    told = capsysbinary.readouterr()
    Path("a").write_bytes(told.out)
    with Image.open("a") as image:
        image.load()
        assert size in (None, image.size)
        assert image.format == {"jpg": "JPEG"}.get(kind, kind.upper())
    assert b'"output": "-"' in told.err
    assert list(Path().iterdir()) == [Path("a")]  # no checkpoint, no table
    assert main([*command, "-o", "-", "--format", kind]) == 0
    assert b"standard output  (" in capsysbinary.readouterr().err


def test_a_format_for_names_that_nobody_gave() -> None:
    command = ["stylize", PHOTO, "--style", PAINTING, *QUICK, "--quiet", "--format", "jpg"]
    assert main(command) == 0
    assert list(Path().iterdir()) == [Path("owl-great_wave.jpg")]


def test_a_shell_can_complete(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert main(["--install-completion", "--shell", "bash"]) == 0
    assert "impasto" in capsys.readouterr().out
    Path("owl.jpg").touch()
    script = (
        ". .bashrc\n"
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _impasto; echo "${COMPREPLY[*]}"; }\n'
        "try impasto sty; try impasto stylize --style-l; try impasto stylize --optimizer c\n"
        "try impasto stylize ow; try impasto stylize --style ow"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "stylize",
        "--style-layer --style-loss",
        "cg",
        "owl.jpg",
        "owl.jpg",
    ]
