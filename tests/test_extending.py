"""docs/extending.md, done: each block is put where its heading says, and used."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import impasto
from impasto import ContentLoss, Objective, StyleLoss, catalog, load_encoder, measure, sample
from impasto.apps.cli.commands import app
from impasto.apps.cli.main import main
from impasto.encoders.base import Encoder
from impasto.losses.styles import Statistic
from tests.conftest import sample_tensor, tolerated

TEXT = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^`(\S+\.py)`\n\n```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
PHOTO, PAINTING = sample("kingfisher"), sample("great_wave")


@pytest.fixture(scope="module", autouse=True)
def extended() -> Iterator[None]:
    """The house with everything in it that the page adds; afterwards as it was."""
    tables = (catalog.STYLES, catalog.OPTIMIZERS, catalog.ENCODERS)
    before = [dict(table) for table in tables]
    added: list[str] = []
    old: dict[str, dict[str, Any]] = {}
    for path, code in BLOCKS:
        name = "impasto." + path.removesuffix(".py").replace("/", ".")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            module = sys.modules[name] = types.ModuleType(name)
            added.append(name)
        old.setdefault(name, dict(module.__dict__))
        exec(compile(code, path, "exec", dont_inherit=True), module.__dict__)
    yield
    del app["calm"]
    for name, names in old.items():
        for new in sys.modules[name].__dict__.keys() - names.keys():
            delattr(sys.modules[name], new)
    for name in added:
        del sys.modules[name]
    for table, rows in zip(tables, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(rows)  # type: ignore[attr-defined]


def test_the_page_says_how_many_files_it_takes() -> None:
    touched: dict[str, set[str]] = {}
    heading = ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            heading = line
        elif match := re.fullmatch(r"`(\S+\.py)`", line):
            touched.setdefault(heading, set()).add(match[1])
    assert {heading: len(files) for heading, files in touched.items()} == {
        "## A style loss": 2,
        "## A style loss of whole pictures": 2,
        "## An optimiser": 2,
        "## An encoder": 2,
        "## A command": 3,
    }


def test_the_style_loss() -> None:
    made = impasto.stylize(PHOTO, PAINTING, size=48, steps=6, style_loss="peaks")
    assert made.losses[-1] < 0.8 * made.losses[0]
    with pytest.raises(impasto.ImpastoError, match="did you mean 'peaks'"):
        impasto.Settings(style_loss="peak")
    with tolerated():  # a bound that cannot be kept
        tiles, whole = (
            impasto.stylize(
                PHOTO, PAINTING, size=128, steps=1, levels=1, style_loss="peaks", memory=memory
            )
            for memory in ("1M", "4G")
        )
    assert tiles.losses[1] == pytest.approx(whole.losses[1], rel=1e-3)


def test_the_style_loss_of_whole_pictures() -> None:
    how: dict[str, Any] = {"size": 48, "steps": 6, "style_loss": "strongest"}
    both = impasto.stylize(PHOTO, [PAINTING, sample("night_cafe")], **how)
    grown = impasto.texture(PAINTING, **{**how, "size": (48, 48)})
    for made in both, grown:
        assert made.losses[-1] < 0.8 * made.losses[0]
        assert "strongest relu1_1" in made.parts
    few, many = (
        impasto.stylize(PHOTO, PAINTING, **{**how, "steps": 0}, style_layers=layers)
        for layers in (["relu1_1"], {"relu1_1": 5})
    )
    assert few.losses == many.losses
    mask = Image.new("L", (48, 48), "white")
    with pytest.raises(impasto.ImpastoError, match="'strongest' takes whole pictures only"):
        impasto.stylize(PHOTO, regions=[(mask, PAINTING)], **how)
    cut_out = Image.open(PAINTING).convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    with pytest.raises(impasto.ImpastoError, match="give paintings without transparent parts"):
        impasto.stylize(PHOTO, cut_out, **how)
    with tolerated(), pytest.raises(impasto.ImpastoError, match="cannot be computed in tiles"):
        impasto.stylize(PHOTO, PAINTING, **how, memory="1M")


def test_the_optimiser(tmp_path: Path) -> None:
    made = impasto.stylize(PHOTO, PAINTING, size=48, steps=12, optimizer="momentum")
    assert made.losses[-1] < 0.8 * made.losses[0]
    stylizer = impasto.Stylizer(PAINTING, size=48, steps=12, optimizer="momentum", levels=1)
    checkpoint = tmp_path / "a.checkpoint"
    with stylizer.start(PHOTO, checkpoint=checkpoint) as painting:
        for step in painting:
            if step.step == 5:
                break
    whole = stylizer.paint(PHOTO)
    assert impasto.resume(checkpoint).losses == pytest.approx(whole.losses, rel=1e-6)


def test_the_encoder() -> None:
    encoder = load_encoder(name="edges")
    assert isinstance(encoder, Encoder)
    assert load_encoder(name="edges").table is encoder.table
    photo, painting = (sample_tensor(name, 96) for name in ("owl", "great_wave"))
    layers = list(encoder.style_layers)
    targets = measure(encoder, painting, statistics={name: Statistic(name) for name in layers})
    content = measure(encoder, photo, features=[encoder.content_layer])
    losses = [
        ContentLoss(encoder.content_layer, content[encoder.content_layer]),
        *(StyleLoss(name, targets[name]) for name in layers),
    ]
    image = torch.rand(photo.shape, generator=torch.Generator().manual_seed(0))
    whole, tiles = (Objective(encoder, losses, tile=tile)(image) for tile in (None, 24))
    assert tiles.loss == pytest.approx(whole.loss, rel=1e-6)
    difference = (tiles.gradient - whole.gradient).norm() / whole.gradient.norm()
    assert difference.item() < 1e-5
    for style_loss, name in (("gram", "style"), ("neighbors", "neighbors")):
        made = impasto.stylize(
            PHOTO, PAINTING, size=64, steps=6, encoder="edges", style_loss=style_loss
        )
        assert made.losses[-1] < 0.8 * made.losses[0]
        assert f"{name} {layers[0]}" in made.parts
    assert made.record["settings"]["encoder"] == "edges"
    with pytest.raises(impasto.ImpastoError, match="the encoder edges has no weights"):
        impasto.stylize(PHOTO, PAINTING, encoder="edges", weights="nowhere.pth")
    with pytest.raises(impasto.ImpastoError, match="there is no encoder 'edge'; did you mean 'ed"):
        load_encoder(name="edge")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "calm.png"
    command = ["calm", str(PHOTO), "--size", "64", "--steps", "8", "-o", str(target), "--quiet"]
    assert main([*command, "--tv", "80"]) == 0
    record = impasto.read_record(target)
    assert record["command"] == "calm"
    assert record["settings"]["tv"] == 80
    with Image.open(target) as calm:
        image = impasto.to_tensor(calm)
    photo = sample_tensor("kingfisher", 64)
    assert impasto.total_variation(image) < 0.5 * impasto.total_variation(photo)
    assert main(["calm", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"the more of it, the flatter\W+\(default 50", told)
    assert main([*command, "--tv", "much"]) == 2
    assert "tv is much; give a number" in capsys.readouterr().err
