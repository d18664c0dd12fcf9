"""What is fine in a picture is painted: how much of the photo's detail stays, and its borders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto import sample, stylize
from impasto.pictures import colours, images
from impasto.settings import Settings
from judge import band_likeness
from tests.conftest import sample_tensor
from tests.paint.conftest import pixels

PHOTO, PAINTING = sample("neuschwanstein"), sample("great_wave")
OTHER = sample("night_cafe")


def likeness(image: Image.Image, photo: Tensor, sigma: float = 0.7, window: int = 9) -> float:
    return band_likeness(images.to_tensor(image), photo, sigma, window)


def test_the_photos_texture_goes_and_comes_back_with_detail() -> None:
    photo = sample_tensor("neuschwanstein", 160)
    shares = [
        likeness(stylize(PHOTO, PAINTING, size=160, steps=30, detail=detail).image, photo)
        for detail in (0.0, 0.3, 1.0)
    ]
    assert shares[0] < 0.3
    assert shares[0] + 0.1 < shares[1] < shares[2] - 0.05


def test_the_shapes_stay() -> None:
    photo = sample_tensor("neuschwanstein", 160)
    image = stylize(PHOTO, PAINTING, size=160, steps=30).image
    assert likeness(image, photo, 2.8, 33) > 0.6


def test_detail_comes_back_with_little_strength() -> None:
    assert Settings().kept_detail == 0
    assert Settings(strength=0.25).kept_detail == 0
    assert Settings(strength=0.125).kept_detail == pytest.approx(0.25)
    assert Settings(strength=0.0).kept_detail == 1
    assert Settings(strength=0.2, detail=0.7).kept_detail == pytest.approx(0.49)


@pytest.mark.parametrize("size", [40, 333, 512])
def test_the_start_is_the_photo_without_its_texture(size: int) -> None:
    photo = sample_tensor("neuschwanstein", size)
    start = stylize(PHOTO, PAINTING, size=size, steps=0, levels=1).image
    assert abs(likeness(start, photo)) < 0.35  # some likeness, no power
    assert pixels(start).std() > 0.5 * pixels(images.to_image(photo)).std()
    steps = np.abs(np.diff(pixels(start), axis=1)).mean()
    assert steps < 0.7 * np.abs(np.diff(pixels(images.to_image(photo)), axis=1)).mean()


def test_the_margin_is_cut_off_and_leaves_no_frame() -> None:
    """The outermost pixels are painted as those further in are."""

    def roughness(image: Image.Image, inset: int) -> float:
        light = pixels(image).mean(-1)
        light = light[inset : len(light) - inset, inset : light.shape[1] - inset]
        ring = [light[0], light[-1], light[:, 0], light[:, -1]]
        return float(np.concatenate([np.diff(line) for line in ring]).std())

    photo = sample("owl")
    image = stylize(photo, sample("cafe_terrace_at_night"), size=160, steps=40).image
    assert image.size == (160, 107)
    inside = np.mean([roughness(image, inset) for inset in range(12, 24)])
    for inset in range(3):
        assert 0.6 * inside < roughness(image, inset) < 1.6 * inside


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 3)])
def test_a_margin_mirrors_whatever_the_picture(shape: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *shape)
    wide = images.mirrored(image, 9)
    assert wide.shape == (1, 3, shape[0] + 18, shape[1] + 18)
    assert torch.equal(wide[..., 9:-9, 9:-9], image)
    assert torch.equal(wide[..., 8, :], wide[..., 9, :])
    assert torch.equal(images.mirrored(image, 0), image)


def test_the_start_has_the_paintings_colours() -> None:
    def colors(image: Image.Image) -> Tensor:
        return images.to_tensor(image)[0].flatten(1)

    way: dict[str, Any] = {"size": 128, "steps": 0, "levels": 1, "margin": False}
    start = colors(stylize(PHOTO, PAINTING, **way).image)
    goal = colors(images.read(PAINTING).image)
    own = colors(images.read(PHOTO).image)
    assert torch.dist(start.mean(1), goal.mean(1)) < 0.02
    assert torch.dist(start.cov(), goal.cov()) < 0.2 * torch.dist(own.cov(), goal.cov())
    both = colors(stylize(PHOTO, [(PAINTING, 3.0), (OTHER, 1.0)], **way).image)
    other = colors(images.read(OTHER).image)
    between = 0.75 * goal.mean(1) + 0.25 * other.mean(1)
    assert torch.dist(both.mean(1), between) < 0.02
    for how in ("luminance", "histogram"):
        kept = colors(stylize(PHOTO, PAINTING, keep_colors=how, **way).image)
        assert torch.dist(kept.mean(1), own.mean(1)) < 0.02


def test_each_region_starts_in_its_own_colours() -> None:
    mask = Image.new("L", (64, 48))
    mask.paste(255, (0, 0, 32, 48))
    way: dict[str, Any] = {"size": 64, "steps": 0, "levels": 1, "margin": False}
    photo = pixels(images.to_image(sample_tensor("neuschwanstein", 64)))
    start = pixels(stylize(PHOTO, regions=[(mask, OTHER)], **way).image)
    assert np.abs(start[:, 34:] - photo[:, 34:]).max() <= 1
    goal = pixels(images.read(OTHER).image)
    assert np.abs(start[:, :30].mean((0, 1)) - goal.mean((0, 1))).max() < 12
    assert np.abs(photo[:, :30].mean((0, 1)) - goal.mean((0, 1))).max() > 50


def test_a_grey_photo_starts_without_blotches() -> None:
    """Traces of colour, of half a grey level, are not stretched to a painting's range."""
    grey = sample_tensor("owl", 96).mean(1, keepdim=True).expand(1, 3, -1, -1)
    generator = torch.Generator().manual_seed(0)
    traces = grey + torch.randn(grey.shape, generator=generator) / 510
    image = colours.match_colours(traces, sample_tensor("night_cafe", 96), least_spread=0.05)
    smooth = colours.match_colours(grey, sample_tensor("night_cafe", 96), least_spread=0.05)
    assert (image - smooth).abs().max() < 0.1
