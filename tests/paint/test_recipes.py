"""Stylising as a Python user does it, on the real samples."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import (
    Artwork,
    ImpastoError,
    Interrupted,
    Step,
    Stylizer,
    read_record,
    sample,
    stylize,
)
from impasto.device import choose_device
from impasto.pictures import colours, images
from tests.conftest import noticed
from tests.paint.conftest import ctrl_c_at, pixels

PHOTO, PAINTING = sample("kingfisher"), sample("cafe_terrace_at_night")


@pytest.fixture(scope="module")
def artwork() -> Artwork:
    return stylize(PHOTO, PAINTING, size=64, steps=12, style_loss="gram")


def test_the_result(artwork: Artwork, tmp_path: Path) -> None:
    assert artwork.image.size == (64, 36)
    assert artwork.image.mode == "RGB"
    assert artwork.steps == 12
    assert len(artwork.losses) == 13
    assert all(b < a for a, b in itertools.pairwise(artwork.losses))
    assert artwork.losses[-1] < 0.5 * artwork.losses[0]
    assert artwork.stopped == "budget"
    assert set(artwork.parts) == {
        "content relu4_2",
        *(f"style relu{block}_1" for block in range(1, 6)),
        "total variation",
    }
    path = artwork.save(tmp_path / "a.png")
    record = read_record(path)
    assert record["settings"]["style_layers"]["relu1_1"] == 0.3
    assert record["photo"]["name"] == "kingfisher.jpg"
    assert record["losses"] == artwork.losses
    assert record["parts"] == artwork.parts
    assert len(record["painting"]["sha256"]) == 64


def test_the_same_inputs_give_the_same_bytes(artwork: Artwork, tmp_path: Path) -> None:
    again = stylize(PHOTO, PAINTING, size=64, steps=12, style_loss="gram")
    assert (
        artwork.save(tmp_path / "a.png").read_bytes() == again.save(tmp_path / "b.png").read_bytes()
    )


def test_strength_zero_gives_the_photo_back() -> None:
    result = stylize(PHOTO, PAINTING, size=64, strength=0, steps=20)
    photo = images.read(PHOTO).image
    expected = images.resize(photo, images.fitted_size(photo.size, 64))
    assert np.array_equal(pixels(result.image), pixels(expected))
    assert result.stopped == "flat"


def test_more_strength_is_more_style_and_less_content() -> None:
    results = [
        stylize(PHOTO, PAINTING, size=64, strength=strength, steps=15, style_loss="gram")
        for strength in (0.05, 0.2, 0.5)
    ]
    content = [result.parts["content relu4_2"] for result in results]
    style = [result.parts["style relu4_1"] for result in results]
    assert content == sorted(content)
    assert style == sorted(style, reverse=True)


def test_a_level_where_the_content_layer_sees_texture_alone_is_held_less_to_the_photo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def content(levels: int) -> float:
        choices: dict[str, Any] = {"size": 128, "steps": 10, "levels": levels, "style_loss": "gram"}
        return stylize(PHOTO, PAINTING, **choices).parts["content relu4_2"]

    refined, at_once = content(2), content(1)
    monkeypatch.setattr("impasto.paint.repainting.SEEN", 16)
    assert content(2) > 1.1 * refined
    assert content(1) == at_once


def test_size_full_is_the_photos_own() -> None:
    photo = images.read(PHOTO).image.resize((90, 50))
    assert stylize(photo, PAINTING, size="full", steps=1).image.size == (90, 50)


def test_enlarging_is_said() -> None:
    small = images.read(PHOTO).image.resize((32, 18))
    with noticed("only 32 x 18 pixels and is enlarged to 64 x 36"):
        assert stylize(small, PAINTING, size=64, steps=1).image.size == (64, 36)


@pytest.mark.parametrize("init", ["photo", "noise", "painting", sample("owl")])
@pytest.mark.parametrize("optimizer", ["lbfgs", "cg", "adam"])
def test_starts(init: str | Path, optimizer: str) -> None:
    seen: list[Step] = []
    result = stylize(
        PHOTO,
        PAINTING,
        size=48,
        init=init,
        detail=1.0,
        optimizer=optimizer,
        steps=15,
        callback=seen.append,
    )
    first = images.to_image(seen[0].image)
    photo = images.read(PHOTO).image
    at_photo = np.abs(pixels(first) - pixels(images.resize(photo, first.size))).mean() < 1
    assert at_photo == (init == "photo")
    assert result.losses[-1] < 0.7 * result.losses[0]
    assert result.record["settings"]["init"] == (init if isinstance(init, str) else "owl.jpg")


def test_the_seed_decides_the_noise() -> None:
    one, same, other = (
        stylize(PHOTO, PAINTING, size=32, init="noise", seed=seed, steps=0) for seed in (1, 1, 2)
    )
    assert np.array_equal(pixels(one.image), pixels(same.image))
    assert not np.array_equal(pixels(one.image), pixels(other.image))


@pytest.mark.parametrize("preset", ["gatys", "lecture"])
def test_presets(preset: str) -> None:
    result = stylize(PHOTO, PAINTING, size=48, preset=preset, steps=12)
    assert result.losses[-1] < 0.3 * result.losses[0]
    assert result.record["settings"]["scaling"] == preset


def test_the_lecture_ends_after_ten_rounds_of_twenty_evaluations() -> None:
    result = stylize(PHOTO, PAINTING, size=32, preset="lecture")
    assert result.evaluations == 200
    assert result.steps < 200


def test_keeping_the_colours() -> None:
    result = stylize(PHOTO, PAINTING, size=64, steps=12, keep_colors=True)
    photo = images.read(PHOTO).image
    resized = images.to_tensor(images.resize(photo, images.fitted_size(photo.size, 64)))
    painted = images.to_tensor(result.image)

    def colour(image: torch.Tensor) -> torch.Tensor:
        return image - colours.luminance(image)

    # every colour points where the photo's does, paled at most
    along = (colour(painted) * colour(resized)).sum(1)
    assert (along > -1e-3).all()
    assert (colour(painted).norm(dim=1) <= colour(resized).norm(dim=1) + 0.01).all()
    assert (colours.luminance(painted) - colours.luminance(resized)).abs().mean() > 0.02


def test_one_painting_for_many_photos_is_looked_at_once() -> None:
    stylizer = Stylizer(PAINTING, size=48, steps=2, style_loss="gram")
    first = stylizer.paint(PHOTO)
    targets = stylizer.kept_losses["", 48]
    second = stylizer.paint(sample("owl"))
    assert list(stylizer.kept_losses) == [("", 48)]
    assert stylizer.kept_losses["", 48] is targets
    assert first.image.size != second.image.size
    alone = stylize(sample("owl"), PAINTING, size=48, steps=2, style_loss="gram")
    assert np.array_equal(pixels(alone.image), pixels(second.image))


def test_style_scale_changes_the_painting_not_the_result() -> None:
    fine = stylize(PHOTO, PAINTING, size=64, steps=3, style_scale=0.5)
    coarse = stylize(PHOTO, PAINTING, size=64, steps=3, style_scale=2)
    assert fine.image.size == coarse.image.size == (64, 36)
    assert not np.array_equal(pixels(fine.image), pixels(coarse.image))


def test_smoothing_smooths() -> None:
    def roughness(tv: float) -> float:
        result = stylize(PHOTO, PAINTING, size=64, steps=20, tv=tv)
        return float(np.abs(np.diff(pixels(result.image), axis=1)).mean())

    assert roughness(500.0) < 0.8 * roughness(0.0)


def test_pooling_and_layers_matter() -> None:
    images_ = [
        stylize(PHOTO, PAINTING, size=48, steps=3, **options).image
        for options in (
            {},
            {"pooling": "max"},
            {"style_loss": "gram"},
            {"style_loss": "gram", "content_layer": "block3_conv2"},
            {"style_layers": ["relu1_1", "relu2_1"]},
            {"style_layers": {"relu1_1": 1, "relu2_1": 3}},
        )
    ]
    for one, other in itertools.combinations(images_, 2):
        assert not np.array_equal(pixels(one), pixels(other))


def test_an_interruption_carries_the_picture(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        stylize(PHOTO, PAINTING, size=48, callback=ctrl_c_at(3))
    artwork = caught.value.artwork
    assert artwork.stopped == "interrupted"
    assert artwork.steps == 3
    assert read_record(artwork.save(tmp_path / "a.png"))["stopped"] == "interrupted"


def test_pictures_too_small_for_the_layers() -> None:
    dot = Image.new("RGB", (1, 1), "red")
    strip = Image.new("RGB", (5000, 4), "red")
    with pytest.raises(ImpastoError, match="512 x 1 pixels, but relu4_1 needs at least 8 x 8"):
        stylize(strip, PAINTING)
    with pytest.raises(ImpastoError, match="1 x 1 pixels, but relu5_1 needs at least 16 x 16"):
        stylize(dot, PAINTING, size="full", style_loss="gram")
    with pytest.raises(ImpastoError, match="512 x 1 pixels"):
        stylize(PHOTO, strip)
    with pytest.raises(ImpastoError, match="6 x 8 pixels, but relu4_1"):
        stylize(PHOTO, PAINTING, size=8)
    ways: list[dict[str, Any]] = [{}, {"style_loss": "gram", "content_layer": "relu2_1"}]
    for more in ways:
        tiny = stylize(PHOTO, PAINTING, size=8, style_layers=["relu1_1"], **more)
        assert tiny.image.size == (8, 4)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ImpastoError, match="no layer 'relu9_1'; did you mean"):
        stylize(PHOTO, PAINTING, style_loss="gram", content_layer="relu9_1")
    with pytest.raises(ImpastoError, match="no setting 'stile'"):
        stylize(PHOTO, PAINTING, stile="x")
    with pytest.raises(ImpastoError, match=r"no file nowhere\.png"):
        stylize(PHOTO, PAINTING, init="nowhere.png")


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ImpastoError, match="no device 'gpu'"):
        choose_device("gpu")
    for name, there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if not there:
            with pytest.raises(ImpastoError, match=f"'{name}' is not on this machine; use 'cpu'"):
                choose_device(name)


def faded(contrast: float) -> Image.Image:
    """The owl, with so much of its contrast left, around the colour that VGG's mean is near."""
    owl = pixels(images.read(sample("owl")).image.resize((96, 64)))
    return Image.fromarray((117 + contrast * (owl - 117)).round().astype(np.uint8))


@pytest.mark.parametrize(
    "photo",
    [
        Image.new("RGB", (96, 64), (122, 117, 104)),
        faded(0.03),
        Image.new("RGB", (96, 64)),
        Image.new("RGB", (96, 64), (135, 206, 235)),
    ],
    ids=["the mean colour", "nearly no contrast", "black", "sky blue"],
)
@pytest.mark.parametrize("style_loss", ["gram", "neighbors"])
def test_photos_with_next_to_nothing_in_them_are_painted(
    photo: Image.Image, style_loss: str
) -> None:
    wave = sample("great_wave")
    artwork = stylize(photo, wave, size=96, steps=40, style_loss=style_loss)
    own = stylize(photo, wave, size=96, steps=0, style_loss=style_loss).parts
    name = "style" if style_loss == "gram" else "moments"
    left = [artwork.parts[f"{name} relu{n}_1"] / own[f"{name} relu{n}_1"] for n in (1, 2, 3)]
    assert max(left) < 0.3
    assert np.abs(pixels(artwork.image) - pixels(photo)).mean() > 20
