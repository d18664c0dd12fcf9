"""What a layer keeps of a photo, and that the prior helps where it is on."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impasto import (
    ImpastoError,
    Interrupted,
    Step,
    read_record,
    reconstruct,
    sample,
    to_tensor,
)
from impasto.pictures import images
from tests.conftest import noticed
from tests.paint.conftest import ctrl_c_at, pixels

PHOTO = sample("kingfisher")


def psnr(image: Image.Image, name: str = "kingfisher") -> float:
    """In dB, against a sample resized to the same size."""
    photo = images.resize(images.read(sample(name)).image, image.size)
    difference = pixels(image) - pixels(photo)
    return 10 * math.log10(255**2 / float(np.square(difference).mean()))


@pytest.mark.parametrize(("layer", "least"), [("relu1_1", 40), ("relu2_1", 26), ("relu3_1", 20)])
def test_early_layers_give_the_photo_back(layer: str, least: float) -> None:
    """At a smaller size and for fewer evaluations than `benchmarks/reconstruction.py`."""
    artwork = reconstruct(PHOTO, layers=[layer], size=96, evaluations=70)
    assert artwork.image.size == (96, 54)
    assert psnr(artwork.image) > least


def test_what_comes_of_it_is_told(tmp_path: Path) -> None:
    seen: list[Step] = []
    artwork = reconstruct(
        PHOTO, layers=["relu2_1", "relu4_1"], size=48, steps=5, callback=seen.append
    )
    assert [step.step for step in seen] == list(range(6))
    assert all(b < a for a, b in itertools.pairwise(artwork.losses))
    assert set(artwork.parts) == {"content relu2_1", "content relu4_1", "total variation"}
    record = read_record(artwork.save(tmp_path / "a.png"))
    assert record["command"] == "reconstruct"
    assert record["settings"]["layers"] == ["relu2_1", "relu4_1"]
    assert record["photo"]["name"] == "kingfisher.jpg"
    assert record["losses"] == artwork.losses


def test_it_starts_from_the_noise_of_the_seed() -> None:
    starts: list[Step] = []
    for seed in (0, 0, 1):
        reconstruct(PHOTO, size=32, steps=0, seed=seed, callback=starts.append)
    first, again, other = (step.image for step in starts)
    assert first.equal(again)
    assert not first.equal(other)
    assert (first - 0.5).abs().max() <= 0.011
    assert first.std() > 0.003


def test_the_prior_is_on_where_it_helps() -> None:
    for layer, on in (("relu1_1", False), ("relu2_1", False), ("relu4_1", True), ("conv5_1", True)):
        artwork = reconstruct(PHOTO, layers=[layer], size=32, steps=1)
        assert ("total variation" in artwork.parts) == on
    without = reconstruct(PHOTO, layers=["relu4_1"], size=64, steps=30, tv=0)
    prior = reconstruct(PHOTO, layers=["relu4_1"], size=64, steps=30)
    assert psnr(prior.image) > psnr(without.image)


def test_a_prototype_lies_between_its_photos() -> None:
    both = reconstruct([PHOTO, sample("owl")], layers=["relu1_1"], size=48, steps=40)
    alone = reconstruct(
        [PHOTO, sample("owl")], weights_of_photos=[0, 2], layers=["relu1_1"], size=48, steps=40
    )
    assert both.image.size == alone.image.size == (48, 27)
    owl = to_tensor(images.cover(images.read(sample("owl")).image, (48, 27)))
    photo = to_tensor(images.resize(images.read(PHOTO).image, (48, 27)))
    assert (to_tensor(alone.image) - owl).abs().mean() < 0.02
    mean = (owl + photo) / 2
    # Not quite the mean of the pixels: a mean of what a ReLU has let through.
    assert (to_tensor(both.image) - mean).abs().mean() < 0.5 * (owl - mean).abs().mean()


def test_interrupted_it_is_what_it_was() -> None:
    with pytest.raises(Interrupted) as caught:
        reconstruct(PHOTO, size=32, callback=ctrl_c_at(3))
    assert caught.value.artwork.steps == 3
    assert caught.value.artwork.stopped == "interrupted"


def test_bad_input_is_told_in_a_sentence() -> None:
    for settings, told in (
        ({"layers": ["relu9_9"]}, "there is no layer 'relu9_9'"),
        ({"layers": []}, "name at least one"),
        ({"tv": -1.0}, "tv is -1.0; give a number of at least 0"),
        ({"weights_of_photos": [1, 2]}, "2 weights for 1 photos"),
        ({"weights_of_photos": [0]}, "the photos weigh 0"),
        ({"size": 8}, "relu4_2 needs at least 8 x 8"),
        ({"style": "x"}, "there is no setting 'style'"),
    ):
        with pytest.raises(ImpastoError, match=told):
            reconstruct(PHOTO, **settings)
    with pytest.raises(ImpastoError, match="there is no photo to reconstruct"):
        reconstruct([])
    small = Image.new("RGB", (20, 20), "red")
    with noticed("only 20 x 20 pixels"):
        reconstruct(small, layers=["relu1_1"], size=32, steps=0)
