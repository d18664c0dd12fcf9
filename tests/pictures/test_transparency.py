"""What is cut out stays cut out, and its ground is nobody's style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageSequence

from impasto import Statistic, Stylizer, reconstruct, sample, stylize, texture
from impasto.apps.cli.main import main
from impasto.losses.styles import Exemplar
from impasto.pictures import images
from tests.conftest import tolerated

PHOTO, PAINTING = sample("owl"), sample("great_wave")


def cut_out(name: str, size: tuple[int, int], ground: str = "white") -> Image.Image:
    """An oval of a sample on a ground that is transparent."""
    image = images.resize(images.read(sample(name)).image, size)
    shape = Image.new("L", (4 * size[0], 4 * size[1]))
    inset = size[0] // 2, size[1] // 2
    ImageDraw.Draw(shape).ellipse((*inset, 4 * size[0] - inset[0], 4 * size[1] - inset[1]), 255)
    shape = shape.resize(size)
    there = shape.point(lambda value: 255 if value else 0)
    cut = Image.composite(image, Image.new("RGB", size, ground), there)
    cut.putalpha(shape)
    return cut


def pixels(image: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(image, np.float64)


@pytest.mark.parametrize("keep_colors", [None, "luminance", "histogram"])
def test_a_cut_out_photo_stays_cut_out(keep_colors: str | None) -> None:
    cut = cut_out("owl", (96, 64))
    artwork = stylize(cut, PAINTING, size=48, steps=8, keep_colors=keep_colors)
    assert artwork.image.mode == "RGBA"
    alpha = images.resize(cut.getchannel("A"), (48, 32))
    assert artwork.image.getchannel("A").tobytes() == alpha.tobytes()
    changed = np.abs(pixels(artwork.image)[..., :3] - pixels(images.resize(cut, (48, 32)))[..., :3])
    assert changed[np.asarray(alpha) == 255].mean() > 10


def test_the_ground_of_a_photo_is_nowhere_to_be_seen() -> None:
    one, other = (cut_out("owl", (96, 64), ground) for ground in ("white", "black"))
    made = [stylize(cut, PAINTING, size=48, steps=6).image for cut in (one, other)]
    visible = np.asarray(made[0].getchannel("A")) > 0
    difference = np.abs(pixels(made[0]) - pixels(made[1]))[visible]
    assert difference.mean() < 2


def test_the_ground_of_a_painting_is_no_part_of_its_style() -> None:
    stylizer = Stylizer(PAINTING, size=96)
    studio = stylizer.studio
    cut = images.read(cut_out("great_wave", (96, 64)))
    plain = images.resize(images.read(PAINTING).image, (96, 64))
    statistics = {f"relu{n}_1": Statistic(f"relu{n}_1") for n in (1, 2, 3)}
    whole = studio.mixed([Exemplar(studio.tensor(plain))], statistics)
    colours = studio.tensor(cut.colours)
    oval = studio.mixed([Exemplar(colours, 1, studio.visible(cut, (96, 64)))], statistics)
    on_white = studio.mixed([Exemplar(studio.tensor(cut.image))], statistics)
    for name in statistics:
        own, far = ((found[name] - whole[name]).norm().item() for found in (oval, on_white))
        assert own < 0.6 * far


def test_the_ground_of_a_painting_is_no_part_of_its_textures() -> None:
    settings: dict[str, Any] = {"size": (32, 32), "painting_size": 96, "steps": 15}
    plain = pixels(texture(PAINTING, **settings).image)
    for tileable in (False, True):
        grown = texture(cut_out("great_wave", (96, 64)), tileable=tileable, **settings).image
        assert grown.mode == "RGB"
        assert abs(pixels(grown).mean() - plain.mean()) < 25  # as dark as the wave, on white


def test_reconstructions_and_regions_stay_cut_out() -> None:
    cut = cut_out("great_wave", (96, 64))
    kept = reconstruct(cut, size=48, steps=2).image
    alpha = images.resize(cut.getchannel("A"), kept.size)
    assert kept.getchannel("A").tobytes() == alpha.tobytes()
    mask = Image.new("L", (48, 32))
    mask.paste(255, (0, 0, 24, 32))
    artwork = stylize(cut, regions=[(mask, PAINTING)], size=48, steps=6)
    assert artwork.image.mode == "RGBA"
    before = pixels(images.resize(images.read(cut).colours, (48, 32)))
    changed = np.abs(pixels(artwork.image)[..., :3] - before)
    assert changed[8:24, 10:22].mean() > 5
    assert changed[:, 25:].max() <= 1


@pytest.mark.parametrize("keep_colors", [None, "luminance", "histogram"])
def test_a_region_where_nothing_is_to_be_seen(keep_colors: str | None) -> None:
    cut = images.resize(images.read(PHOTO).image, (60, 40))
    alpha = Image.new("L", cut.size)
    alpha.paste(255, (0, 0, 30, 40))
    cut.putalpha(alpha)
    mask = Image.new("L", cut.size)
    mask.paste(255, (40, 0, 60, 40))
    settings: dict[str, Any] = {"size": 48, "steps": 3, "keep_colors": keep_colors}
    beside = stylize(cut, PAINTING, regions=[(mask, PAINTING)], **settings)
    assert all(np.isfinite(beside.losses))
    alone = stylize(cut, regions=[(mask, PAINTING)], **settings)
    assert alone.image.mode == "RGBA"


def test_on_the_command_line(tmp_path: Path) -> None:
    folder = str(tmp_path)
    cut_out("owl", (96, 64)).save(f"{folder}/owl.png")
    command = ["stylize", f"{folder}/owl.png", "--style", str(PAINTING), "--size", "48", "--quiet"]
    film = ["--film", f"{folder}/a.gif", "--stills", "1", "--steps", "1"]
    assert main([*command, "-o", f"{folder}/a.png", *film]) == 0
    for name in ("a.png", "a-step0001.png"):
        with Image.open(f"{folder}/{name}") as image:
            assert image.mode == "RGBA"
    with Image.open(f"{folder}/a.gif") as gif:
        for frame in ImageSequence.Iterator(gif):
            assert pixels(frame.convert("RGB"))[0, 0].min() > 240
    with tolerated():
        assert main([*command, "-o", f"{folder}/a.jpg", "--steps", "1"]) == 0
    with Image.open(f"{folder}/a.jpg") as image:
        assert image.getpixel((0, 0)) == pytest.approx((255, 255, 255), abs=3)
    owl = f"{folder}/owl.png"
    compare = ["compare", owl, "--style", owl, "--vary", "steps=0,1", "--size", "32", "--quiet"]
    assert main([*compare, "-o", f"{folder}/page.png"]) == 0
