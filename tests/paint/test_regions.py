"""Several paintings at once: mixed, or each in its own region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from impasto import (
    ImpastoError,
    Statistic,
    Stylizer,
    measure,
    resume,
    sample,
    stylize,
    to_tensor,
)
from impasto.losses.styles import Exemplar
from impasto.pictures import colours, images
from impasto.settings import Settings
from tests.conftest import tolerated
from tests.paint.conftest import ctrl_c_at, pixels

PHOTO, CAFE, WAVE = sample("kingfisher"), sample("cafe_terrace_at_night"), sample("great_wave")
QUICK: dict[str, Any] = {"size": 64, "steps": 6}


def left(soft: bool = False) -> Image.Image:
    """A mask of the left half, or one that fades towards the right."""
    ramp = np.linspace(255, 0, 64) if soft else np.repeat([255.0, 0.0], 32)
    return Image.fromarray(np.tile(ramp, (36, 1)).astype(np.uint8))


def right() -> Image.Image:
    return left().transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def difference(one: Image.Image, other: Image.Image) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = np.abs(pixels(one) - pixels(other)).mean(-1)
    return result


def test_shares_are_normalised() -> None:
    one = stylize(PHOTO, [CAFE, (WAVE, 0.5)], **QUICK)
    other = stylize(PHOTO, [(CAFE, 2), (WAVE, 1.0)], **QUICK)
    assert one.image.tobytes() == other.image.tobytes()
    assert one.record["shares"] == pytest.approx([2 / 3, 1 / 3])
    assert one.record["painting 2"]["name"] == "great_wave.jpg"
    alone = stylize(PHOTO, [CAFE, (WAVE, 0)], **QUICK)
    assert alone.image.tobytes() == stylize(PHOTO, CAFE, **QUICK).image.tobytes()


def test_what_is_mixed_are_the_statistics() -> None:
    stylizer = Stylizer([CAFE, (WAVE, 3)], size=64)
    pairs = [
        Exemplar(to_tensor(images.resize(p.image, images.fitted_size(p.image.size, 64))), share)
        for p, share in stylizer.places[0].paintings
    ]
    statistic = {"relu3_1": Statistic("relu3_1")}
    mixed = stylizer.studio.mixed(pairs, statistic)["relu3_1"]
    cafe, wave = (
        measure(stylizer.studio.encoder, image, statistics=statistic)["relu3_1"]
        for image, *_ in pairs
    )
    assert torch.allclose(mixed, 0.25 * cafe + 0.75 * wave, rtol=1e-5)


def test_where_no_mask_is_the_photo_stays() -> None:
    artwork = stylize(PHOTO, regions=[(left(), CAFE)], **QUICK)
    photo = images.resize(images.read(PHOTO).image, artwork.image.size)
    changed = difference(artwork.image, photo)
    assert changed[:, 33:].max() == 0
    assert changed[:, :31].mean() > 3


def test_where_no_mask_is_the_main_painting_goes() -> None:
    artwork = stylize(PHOTO, CAFE, regions=[(left(), WAVE)], **QUICK)
    spelled_out = stylize(PHOTO, regions=[(left(), WAVE), (right(), CAFE)], **QUICK)
    assert difference(artwork.image, spelled_out.image).mean() < 0.5
    alone = stylize(PHOTO, regions=[(left(), WAVE)], **QUICK)
    assert difference(artwork.image, alone.image)[:, 40:].mean() > 10


@pytest.mark.parametrize("share", [1, 4, 16])
def test_strength_is_the_same_for_a_region_of_any_size(share: int) -> None:
    """Content, smoothness and style are weighed as they are where the whole photo is painted."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64 // share, 64))
    photo = images.resize(images.read(PHOTO).image, (64, 64))
    small = photo.resize((64 // share, 64))  # the same everywhere, whatever is covered
    for x in range(0, 64, small.width):
        photo.paste(small, (x, 0))
    artwork = stylize(
        photo,
        regions=[(mask, CAFE)],
        size=64,
        steps=0,
        levels=1,
        detail=1.0,
        margin=False,
        style_loss="gram",
    )
    style = artwork.losses[0] - Settings().tv * artwork.parts["total variation"]
    weight = Settings(style_loss="gram").total_style_weight
    assert style == pytest.approx(weight / share, rel=0.05)


def test_small_regions_count_and_transparency_is_none() -> None:
    photo = images.read(PHOTO).image.resize((160, 90))
    mask = Image.new("RGBA", photo.size, (255, 255, 255, 0))
    mask.putpixel((40, 60), (255, 255, 255, 255))
    artwork = stylize(photo, regions=[(mask, CAFE)], size=160, steps=3)
    assert np.argwhere(difference(artwork.image, photo)).tolist() == [[60, 40]]


def test_a_photo_can_be_its_own_mask(tmp_path: Path) -> None:
    """The brightest channel of a colour counts, as it does in a copy of the photo."""
    photo, copy = tmp_path / "a.png", tmp_path / "b.png"
    red = Image.merge("RGB", (left(), right().point(lambda value: value // 4), left()))
    red.save(photo)
    red.save(copy, compress_level=0)
    own, other = (stylize(photo, regions=[(mask, CAFE)], **QUICK) for mask in (photo, copy))
    assert own.image.tobytes() == other.image.tobytes()


@pytest.mark.parametrize("colors", ["luminance", "histogram"])
def test_regions_in_the_colours_of_the_photo_on_two_levels(colors: str) -> None:
    regions = [(left(soft=True), WAVE)]
    way: dict[str, Any] = {"size": 96, "steps": 9, "levels": 2, "init": "painting"}
    artwork = stylize(PHOTO, CAFE, regions=regions, keep_colors=colors, **way)
    assert len(artwork.record["levels"]) == 2
    assert artwork.losses[-1] < artwork.losses[0]
    taken = stylize(PHOTO, CAFE, regions=regions, **way)
    own = to_tensor(images.resize(images.read(PHOTO).image, artwork.image.size)).mean((2, 3))
    distances = [(to_tensor(each.image).mean((2, 3)) - own).norm() for each in (artwork, taken)]
    assert distances[0] < 0.6 * distances[1]


@pytest.mark.parametrize("style_loss", ["gram", "mmd-gaussian", "wasserstein"])
def test_tiles_know_of_masks(style_loss: str) -> None:
    """In tiles of a picture, a region's style is what it is in the whole of it."""
    found = []
    for memory in (None, 1):
        with tolerated():
            stylizer = Stylizer(
                CAFE,
                regions=[(left(soft=True), WAVE)],
                style_loss=style_loss,
                memory=memory,
                size=320,
                steps=0,
            )
            found.append(stylizer.paint(PHOTO))
    whole, tiled = found
    assert tiled.losses[0] == pytest.approx(whole.losses[0], rel=1e-5)
    for name, part in whole.parts.items():
        assert tiled.parts[name] == pytest.approx(part, rel=1e-4), name


def test_a_painting_gets_the_colours_of_the_photo() -> None:
    pictures = (images.read(source).image for source in (PHOTO, CAFE))
    photo, painting = (0.4 + 0.2 * to_tensor(images.resize(p, (64, 48))) for p in pictures)
    recoloured = colours.match_colours(painting, photo)
    pixels, wanted = recoloured[0].flatten(1), photo[0].flatten(1)
    assert torch.allclose(pixels.mean(1), wanted.mean(1), atol=1e-4)
    assert torch.allclose(pixels.cov(), wanted.cov(), atol=1e-5)


def test_histogram_keeps_the_colours() -> None:
    kept, taken = (
        stylize(PHOTO, CAFE, keep_colors=how, size=64, steps=20).image
        for how in ("histogram", None)
    )
    own = to_tensor(images.resize(images.read(PHOTO).image, kept.size)).mean((0, 2, 3))
    distances = [(to_tensor(image).mean((0, 2, 3)) - own).norm() for image in (kept, taken)]
    assert distances[0] < 0.5 * distances[1]


def test_resumed_with_paintings_and_regions(checkpoint: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    left().save(mask)
    stylizer = Stylizer([CAFE, (WAVE, 0.5)], regions=[(mask, WAVE)], size=48, steps=8)
    whole = stylizer.paint(PHOTO)
    with pytest.raises(KeyboardInterrupt):
        stylizer.paint(PHOTO, callback=ctrl_c_at(4), checkpoint=checkpoint)
    resumed = resume(checkpoint)
    assert resumed.steps == 8
    assert difference(resumed.image, whole.image).mean() < 0.5


def test_bad_input_is_told_in_a_sentence(tmp_path: Path) -> None:
    black = Image.new("L", (64, 36))
    for arguments, told in (
        ({}, "there is no style to paint in"),
        ({"painting": [(CAFE, 0)]}, "none of the paintings counts"),
        ({"painting": [(CAFE, -1)]}, "counts -1; give a number of at least 0"),
        ({"regions": [(black, CAFE)]}, "covers nothing; paint the area white"),
        ({"regions": [(tmp_path / "no.png", CAFE)]}, "no.png"),
        ({"painting": CAFE, "keep_colors": "hue"}, "did you mean"),
        (
            {"painting": CAFE, "style_loss": "bn", "preset": "gatys"},
            "the scaling 'gatys' is for Gram matrices only",
        ),
    ):
        with pytest.raises(ImpastoError, match=told):
            stylize(PHOTO, **arguments, **QUICK)
