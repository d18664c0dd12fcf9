"""The atlas and the grid of channels, made of real layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from impasto import (
    AtlasSettings,
    ImpastoError,
    SheetInterrupted,
    Step,
    atlas,
    channels,
    load_encoder,
    read_record,
    sample,
    to_tensor,
)
from impasto.pictures import images
from tests.conftest import noticed

PHOTO, PAINTING = sample("kingfisher"), sample("great_wave")
RUNS = 10


def test_every_layer_is_on_the_page(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    photo = tmp_path / "kingfisher.jpg"
    photo.write_bytes(PHOTO.read_bytes())

    def note(run: str, step: Step) -> None:
        photo.unlink(missing_ok=True)  # it is read once
        seen.append((run, step.step))

    settings = AtlasSettings(size=32)
    sheet = atlas(photo, PAINTING, settings=settings, steps=1, callback=note)
    assert sheet.stopped == "budget"
    assert sheet.image.width > 2000  # a page
    assert len(seen) == RUNS * 2
    assert seen[0] == ("1 of 10: photo, relu1_1", 0)
    assert seen[-1] == ("10 of 10: painting, up to relu5_1", 1)
    assert [run.label for run in sheet.runs] == [run["run"] for run in sheet.record["runs"]]
    record = read_record(sheet.save(tmp_path / "atlas.png"))
    assert record["command"] == "atlas"
    assert [run["settings"]["layers"] for run in record["runs"][:5]] == [
        [f"relu{block}_1"] for block in range(1, 6)
    ]
    assert list(record["runs"][7]["settings"]["layers"]) == ["relu1_1", "relu2_1", "relu3_1"]
    assert record["painting"]["name"] == "great_wave.jpg"
    assert [run["settings"]["history"] for run in record["runs"]] == [50] * 5 + [20] * 5


def test_interrupted_it_shows_what_there_is() -> None:
    """And what failed is left out: neither takes the others along."""

    def stop(run: str, step: Step) -> None:
        if run.startswith("2 "):
            raise TypeError("of all things")
        if run.startswith("7") and step.step == 1:
            raise KeyboardInterrupt

    with (
        noticed("^photo, relu2_1 is left out: TypeError: of all things$"),
        pytest.raises(SheetInterrupted) as caught,
    ):
        atlas(PHOTO, PAINTING, size=32, steps=2, history=20, callback=stop)
    sheet = caught.value.sheet
    assert sheet.stopped == "interrupted"
    assert [run.stopped for run in sheet.runs] == [
        *["budget", "failed", "budget", "budget", "budget"],
        *["budget", "interrupted"],
    ]
    assert len(sheet.record["runs"]) == 6
    assert sheet.record["runs"][-1]["stopped"] == "interrupted"
    assert {run["settings"]["history"] for run in sheet.record["runs"]} == {20}


def test_where_there_is_no_picture_at_all_there_is_no_page() -> None:
    def stop(_run: str, _step: Step) -> None:
        raise TypeError("of all things")

    with pytest.raises(TypeError, match="of all things"):
        atlas(PHOTO, PAINTING, size=32, steps=0, callback=stop)


def test_channels_are_the_most_active_ones() -> None:
    sheet = channels(PHOTO, "relu3_1", settings=AtlasSettings(size=64))
    photo = to_tensor(images.resize(images.read(PHOTO).image, (64, 36)))
    with torch.no_grad():
        means = load_encoder()(photo, ["relu3_1"])["relu3_1"].mean((0, 2, 3))
    chosen = sheet.record["most_active"]
    assert len(chosen) == 24
    rest = [channel for channel in range(256) if channel not in chosen]
    assert means[chosen].min() >= means[rest].max()
    assert means[chosen].diff().max() <= 1e-3


def test_bad_input_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match="relu5_1 needs at least 16 x 16"):
        atlas(PHOTO, PAINTING, size=16)
    with pytest.raises(ImpastoError, match=r"missing\.jpg"):
        atlas(PHOTO, tmp_path / "missing.jpg")
    with pytest.raises(ImpastoError, match="did you mean 'relu3_1'"):
        channels(PHOTO, "relu31")
    with pytest.raises(ImpastoError, match="there is no setting"):
        atlas(PHOTO, PAINTING, layers=["relu1_1"])
    with pytest.raises(ImpastoError, match="the image itself has no channels"):
        channels(PHOTO, "image")
