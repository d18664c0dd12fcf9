"""The generators in the package: small enough, at once ready, and of their paintings' kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from impasto import Generator, catalog, sample, sample_names
from impasto.networks import files
from impasto.networks.crops import PaintingCrops
from impasto.pictures import images
from judge import Judge, grid

NAMES = list(catalog.GENERATORS)
SIDE, COUNT = 64, 64


def crops(painting: str, seed: int) -> torch.Tensor:
    """Crops of a painting as large as its generator saw it."""
    settings = files.read(painting).styles[0].settings
    cut = PaintingCrops([images.read(sample(painting))], settings["painting_size"], SIDE, seed)
    return cut([0] * COUNT, 0)


def cut(picture: torch.Tensor) -> torch.Tensor:
    random = np.random.default_rng(0)
    tops, lefts = (random.integers(side - SIDE + 1, size=COUNT) for side in picture.shape[-2:])
    return torch.cat(
        [picture[..., a : a + SIDE, b : b + SIDE] for a, b in zip(tops, lefts, strict=True)]
    )


def test_there_is_one_for_every_sample_painting() -> None:
    assert sample_names()["paintings"] == NAMES
    folder = Path(files.located(NAMES[0])).parent
    assert sum(path.stat().st_size for path in folder.glob("generator-*")) <= 3e6
    assert all("Apache-2.0" in files.read(name).licence for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_its_pictures_are_of_its_paintings_kind(name: str) -> None:
    """Nearer to its own painting than to any other, by a network that nobody optimised."""
    judge = Judge()
    picture = images.to_tensor(Generator.load(name)((320, 256), seed=5))
    apart = {other: judge.apart(cut(picture), crops(other, 3)) for other in NAMES}
    assert min(apart, key=lambda other: apart[other]) == name
    assert apart[name] < 0.45
    flat = torch.full_like(picture, 0.5) + 0.2 * torch.randn(picture.shape)
    assert apart[name] < 0.6 * judge.apart(cut(flat.clamp(0, 1)), crops(name, 3))


@pytest.mark.parametrize("name", NAMES)
def test_seeds_give_other_pictures_of_one_kind(name: str) -> None:
    generator = Generator.load(name)
    some = [images.to_tensor(generator((192, 128), seed=seed)) for seed in range(3)]
    assert (some[0] - some[1]).abs().mean() > 0.03
    assert (some[1] - some[2]).abs().mean() > 0.03


@pytest.mark.parametrize("name", NAMES)
def test_no_strong_grid_shows(name: str) -> None:
    """How far waves of 2, 4 and 8 pixels rise above those around them; docs/adversaries.md."""
    generator = Generator.load(name)
    pictures = [images.to_tensor(generator((256, 256), seed=seed)) for seed in range(4)]
    assert max(grid(pictures, period) for period in (2, 4, 8)) < 3
