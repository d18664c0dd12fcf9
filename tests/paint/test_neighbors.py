"""Repainting by neighbours, from end to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_gradient_magnitude

from impasto import (
    ImpastoError,
    Settings,
    Step,
    Stylizer,
    compare,
    resume,
    sample,
    stylize,
    to_tensor,
)
from impasto.apps.cli.main import main
from impasto.paint.levels import Level
from impasto.paint.neighboring import MOST_SPLIT, ROUND, with_split
from impasto.pictures import colours, images
from tests.paint.conftest import ctrl_c_at, pixels

PHOTO, PAINTING, OTHER = sample("kingfisher"), sample("great_wave"), sample("night_cafe")
QUICK: dict[str, Any] = {"style_loss": "neighbors", "size": 96, "steps": 24}


def of_the_photo(size: tuple[int, int]) -> Image.Image:
    return images.resize(images.read(PHOTO).image, size)


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(pixels(one) - pixels(other)).mean())


def test_it_paints_in_the_colours_of_the_painting() -> None:
    artwork = stylize(PHOTO, PAINTING, **QUICK | {"steps": 60})
    assert {name.split()[0] for name in artwork.parts} == {"neighbors", "moments", "style", "total"}
    painting = to_tensor(images.read(PAINTING).image).flatten(2)[0]
    picture = to_tensor(artwork.image).flatten(2)[0]
    photo = to_tensor(of_the_photo(artwork.image.size)).flatten(2)[0]
    assert (picture.mean(1) - painting.mean(1)).norm() < 0.1
    theirs, ours, before = (np.cov(x.numpy()) for x in (painting, picture, photo))
    far = np.linalg.norm(before - theirs)
    assert np.linalg.norm(ours - theirs) < 0.3 * far


def test_strength_leads_from_the_photo_to_splitting() -> None:
    nothing = stylize(PHOTO, PAINTING, **QUICK, strength=0.0)
    assert difference(nothing.image, of_the_photo(nothing.image.size)) < 1
    little, some, all_of_it = (
        stylize(PHOTO, PAINTING, **QUICK | {"steps": 60}, strength=strength)
        for strength in (0.1, 0.25, 1.0)
    )
    photo = of_the_photo(nothing.image.size)
    distances = [difference(artwork.image, photo) for artwork in (nothing, little, some)]
    assert distances == sorted(distances)
    assert distances[1] > 2
    # Split layers come closer to places of their own, and forget the photo.
    assert all_of_it.parts["neighbors relu3_1"] < some.parts["neighbors relu3_1"]
    assert outlines(all_of_it.image, photo) < outlines(some.image, photo)


def outlines(one: Image.Image, other: Image.Image) -> float:
    """How alike the edges of two pictures are."""
    maps = [
        gaussian_gradient_magnitude(np.asarray(image.convert("L"), float), 1.0)
        for image in (one, other)
    ]
    return float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])


@pytest.mark.parametrize("steps", [0, 1, 7, 75, 400])
@pytest.mark.parametrize("strength", [0.1, 0.25, 0.5, 1.0])
def test_splitting_takes_steps_of_the_last_level(steps: int, strength: float) -> None:
    levels = [Level((64, 64), 10, 0.25), Level((128, 128), steps, 1.0)]
    planned = with_split(levels, strength)
    assert planned[0] == levels[0]
    assert sum(level.steps for level in planned[1:]) == steps
    split = [level.steps for level in planned if level.split]
    assert all(0 < each <= ROUND for each in split)
    assert sum(split) == round(MOST_SPLIT * strength * steps)


def test_the_same_inputs_give_the_same_bytes() -> None:
    one, other = (stylize(PHOTO, PAINTING, **QUICK).image.tobytes() for _ in range(2))
    assert one == other


def test_one_painting_in_two_equals_one_painting() -> None:
    alone = stylize(PHOTO, PAINTING, **QUICK)
    twice = stylize(PHOTO, [PAINTING, (PAINTING, 0.5)], **QUICK)
    assert difference(alone.image, twice.image) < 4


def test_a_mixture_is_neither_alone() -> None:
    both = stylize(PHOTO, [PAINTING, OTHER], **QUICK)
    for name in (PAINTING, OTHER):
        assert difference(stylize(PHOTO, name, **QUICK).image, both.image) > 4


def test_a_faint_region_is_as_faint_as_a_whole_picture() -> None:
    half = np.repeat([255, 0], 48).astype(np.uint8)
    mask = Image.fromarray(np.tile(half, (54, 1)))
    faint = QUICK | {"strength": 0.08}
    whole, region = (
        stylize(PHOTO, PAINTING, **faint),
        stylize(PHOTO, regions=[(mask, PAINTING)], **faint),
    )
    photo = pixels(of_the_photo(whole.image.size))
    changed = [np.abs(pixels(each.image) - photo)[:, :40].mean() for each in (whole, region)]
    assert changed[1] < 1.5 * changed[0] + 1


@pytest.mark.parametrize("limit", [3, 4, 12])
def test_a_limit_on_evaluations_holds_for_rounds(limit: int) -> None:
    choices = QUICK | {"steps": 150, "strength": 1.0, "levels": 1}
    artwork = stylize(PHOTO, PAINTING, **choices, evaluations=limit)
    assert artwork.evaluations <= limit
    assert artwork.stopped == "budget"


def test_its_record_gives_its_settings() -> None:
    artwork = stylize(PHOTO, PAINTING, **QUICK | {"steps": 0})
    assert Settings(**artwork.record["settings"]).content_layer is None


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_pictures_smaller_than_a_place_are_refused(strength: float) -> None:
    strip = Image.new("RGB", (60, 3), "red")
    way: dict[str, Any] = {"style_layers": ["relu1_1"], "steps": 2, "strength": strength}
    with pytest.raises(ImpastoError, match="60 x 3 pixels, but"):
        stylize(PHOTO, strip, size=60, **way) if strength else stylize(strip, PAINTING, size="full")
    assert stylize(PHOTO, PAINTING, size=16, steps=2, strength=strength).image.size == (16, 9)


def test_a_region_is_painted_and_the_rest_stays() -> None:
    half = np.repeat([255, 0], 48).astype(np.uint8)
    mask = Image.fromarray(np.tile(half, (54, 1)))
    artwork = stylize(PHOTO, regions=[(mask, PAINTING)], **QUICK)
    changed = np.abs(pixels(artwork.image) - pixels(of_the_photo(artwork.image.size))).mean(-1)
    assert changed[:, 50:].max() == 0
    assert changed[:, :46].mean() > 5


def test_a_transparent_photo_stays_transparent() -> None:
    cut = of_the_photo((96, 54)).convert("RGBA")
    alpha = np.full((54, 96), 255, np.uint8)
    alpha[:, 48:] = 0
    cut.putalpha(Image.fromarray(alpha))
    artwork = stylize(cut, PAINTING, **QUICK)
    assert artwork.image.mode == "RGBA"
    assert np.array_equal(np.asarray(artwork.image)[..., 3], alpha)


@pytest.mark.parametrize("keep", ["luminance", "histogram"])
def test_the_photos_colours_can_be_kept(keep: str) -> None:
    artwork = stylize(PHOTO, PAINTING, **QUICK, keep_colors=keep)
    photo = to_tensor(of_the_photo(artwork.image.size))
    picture = to_tensor(artwork.image)
    assert (picture.mean((0, 2, 3)) - photo.mean((0, 2, 3))).norm() < 0.1
    if keep == "luminance":
        chroma = [x - colours.luminance(x) for x in (picture, photo)]
        assert (chroma[0] - chroma[1]).abs().mean() < 0.05


@pytest.mark.parametrize(
    "ways",
    [
        {"pooling": "max"},
        {"optimizer": "adam"},
        {"optimizer": "cg"},
        {"init": "noise"},
        {"init": "painting"},
        {"levels": 1},
        {"margin": False},
        {"detail": 1.0},
        {"style_layers": ["relu3_1", "relu5_1"]},
        {"evaluations": 12},
        {"style_scale": 0.5},
    ],
    ids=lambda ways: next(iter(ways)),
)
def test_every_way_of_painting_paints(ways: dict[str, Any]) -> None:
    artwork = stylize(PHOTO, PAINTING, **QUICK | {"size": 80, "steps": 12} | ways)
    assert difference(artwork.image, of_the_photo(artwork.image.size)) > 5
    assert artwork.evaluations <= ways.get("evaluations", 100)


@pytest.mark.parametrize("step", [0, 8, 13, 18, 22])
def test_going_on_ends_where_an_uninterrupted_run_does(
    step: int, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.paint.neighboring.ROUND", 4)  # steps 16, 20 and 24 end rounds
    choices = QUICK | {"size": 64, "levels": 2, "strength": 0.75, "optimizer": "adam"}
    with pytest.raises(KeyboardInterrupt):
        Stylizer(PAINTING, **choices).paint(PHOTO, callback=ctrl_c_at(step), checkpoint=checkpoint)
    steps: list[Step] = []
    artwork = resume(checkpoint, callback=steps.append)
    assert [each.step for each in steps] == list(range(step + 1, 25))
    whole = stylize(PHOTO, PAINTING, **choices)
    assert artwork.losses == pytest.approx(whole.losses, rel=1e-6)
    assert artwork.image.tobytes() == whole.image.tobytes()


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    kept = target.with_name("a.png.checkpoint")
    options = ["--style", str(PAINTING), "--style-loss", "neighbors", "--size", "96"]
    command = [sys.executable, "-m", "impasto", "stylize", str(PHOTO), *options]
    command += ["--output", str(target), "--checkpoint-every", "0", "--steps", "150"]
    with subprocess.Popen([*command, "--quiet"]) as run:
        while not kept.exists() and run.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(run.pid, signal.SIGKILL)
    assert not target.exists()
    assert main(["resume", str(kept), "--quiet"]) == 0
    assert images.read_record(target)["steps"] == 150


def test_compare_takes_it_beside_the_others() -> None:
    comparison = compare(
        PHOTO, PAINTING, vary={"style_loss": ["gram", "neighbors"]}, size=64, steps=6
    )
    assert len(comparison.runs) == 2


@pytest.mark.parametrize("ways", [{"content_layer": "relu3_1"}, {"content_weight": 2.0}])
def test_there_is_no_content_loss(ways: dict[str, Any]) -> None:
    with pytest.raises(ImpastoError, match="'neighbors' has no content loss"):
        Settings(style_loss="neighbors", **ways)


@pytest.mark.parametrize(
    "command",
    [
        ["texture", str(PAINTING), "--style-loss", "neighbors"],
        ["train", str(PAINTING), "--photos", str(PHOTO.parent), "--style-loss", "neighbors"],
        ["stylize", str(PHOTO), "--style", str(PAINTING), "--style-loss", "neighbors",
         "--content-layer", "relu3_1"],
        ["stylize", str(PHOTO), "--style", str(PAINTING), "--style-loss", "neighbors",
         "--scaling", "gatys"],
    ],
)  # fmt: skip
def test_where_it_makes_no_sense_a_sentence_says_so(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    told = capsys.readouterr().err.strip()
    assert "neighbors" in told
    assert len(told.splitlines()) == 1
