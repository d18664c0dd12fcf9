"""Settings that are each allowed, all at once: a picture of the size asked for, or one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from impasto import (
    PRESETS,
    STYLES,
    Artwork,
    ImpastoError,
    reconstruct,
    sample,
    stylize,
    texture,
)
from impasto.catalog import OPTIMIZERS
from impasto.pictures import images
from impasto.settings import STARTS, KeptColors
from tests.conftest import noticed, tolerated

PHOTO = images.resize(images.read(sample("owl")).image, (160, 107))
PAINTING = images.resize(images.read(sample("great_wave")).image, (160, 108))
LAYERS = ["image", "conv1_1", "relu1_1", "pool1", "relu2_1", "conv3_2", "block3_conv3", "pool3"]
LAYERS += ["relu4_1", "relu4_2", "pool4", "relu5_1", "conv5_3", "pool5"]

LITE = ["image", "stem.conv", "stem", "block0.merge", "block1.expand", "block2.depthwise.conv"]
LITE += ["block2.merge", "block3.project", "block4.merge", "block5.expand", "block5.merge"]
LITE += ["block8.merge", "block10.project", "block11.merge"]

layers = st.sampled_from(LAYERS)
shares = st.floats(0, 10)
weights = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
some_layers = st.one_of(
    st.lists(layers, min_size=1, max_size=3),
    st.dictionaries(layers, shares, min_size=1, max_size=3),
)
sides = st.integers(1, 130)
sizes = st.one_of(st.just("full"), st.integers(1, 130))
style_losses = st.sampled_from([*STYLES])
levels = st.one_of(st.none(), st.integers(1, 16))
RUN: Mapping[str, st.SearchStrategy[Any]] = {
    "steps": st.integers(0, 3),
    "evaluations": st.one_of(st.none(), st.integers(1, 4)),
    "optimizer": st.sampled_from([*OPTIMIZERS]),
    "pooling": st.sampled_from(["avg", "max"]),
    "seed": st.integers(0, 2**63 - 1),
    "memory": st.sampled_from([None, "1M", "2G"]),
    "encoder": st.sampled_from([None, "vgg16", "efficientnet-lite0", "efficientnet-lite0"]),
    "smoothing": st.one_of(st.none(), st.floats(0.1, 10)),
}


def translated(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The same choices; for EfficientNet, with its layers, and without what only VGG has."""
    if choices.get("encoder") != "efficientnet-lite0":
        return dict(choices)
    names = dict(zip(LAYERS, LITE, strict=True))

    def own(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {names[name]: share for name, share in value.items()}
        return names[value] if isinstance(value, str) else [*map(own, value)]

    asked = {k: own(v) if "layer" in k else v for k, v in choices.items() if k != "pooling"}
    return asked if asked.get("preset") is None else {**asked, "preset": None}


def cut(
    width: int, height: int, picture: Image.Image = PHOTO, transparent: bool = False
) -> Image.Image:
    """A part of a picture, half of it transparent or none."""
    part = images.cover(picture, (width, height))
    if transparent:
        alpha = Image.new("L", part.size, 255)
        alpha.paste(0, (0, 0, (width + 1) // 2, height))
        part.putalpha(alpha)
    return part


pictures = st.builds(cut, sides, sides, st.sampled_from([PHOTO, PAINTING]), st.booleans())


def made(make: Callable[[], Artwork], size: tuple[int, int]) -> None:
    """A picture of this size with finite losses, or a sentence about the settings."""
    try:
        artwork = make()
    except ImpastoError as error:
        told = str(error)
        assert "\n" not in told
        # None of these settings is so extreme that numbers overflow.
        assert "finite" not in told
        assert "no numbers" not in told
        return
    assert artwork.image.size == size
    assert all(map(math.isfinite, artwork.losses))
    assert all(map(math.isfinite, artwork.parts.values()))


def fitted(photo: Image.Image, size: int | str) -> tuple[int, int]:
    return photo.size if size == "full" else images.fitted_size(photo.size, int(size))


# What is said by an ImpastoNotice is no failure; anything else that is raised is one.
tried = settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def notices() -> Any:
    with tolerated():
        yield


@tried
@given(
    pictures,
    pictures,
    sizes,
    st.fixed_dictionaries(
        {},
        optional={
            **RUN,
            "strength": st.floats(0, 1),
            "levels": levels,
            "init": st.sampled_from(STARTS),
            "content_layer": layers,
            "style_layers": some_layers,
            "style_loss": style_losses,
            "tv": weights,
            "detail": st.floats(0, 1),
            "margin": st.booleans(),
            "style_scale": st.floats(0.05, 3),
            "keep_colors": st.sampled_from([None, True, False, *get_args(KeptColors)]),
            "scaling": st.sampled_from(["relative", "gatys", "lecture"]),
            "content_weight": weights,
            "style_weight": st.one_of(st.none(), weights),
            "restart": st.one_of(st.none(), st.integers(2, 4)),
            "preset": st.sampled_from([None, *PRESETS]),
        },
    ),
    st.booleans(),
)
def test_stylize(
    photo: Image.Image,
    painting: Image.Image,
    size: int | str,
    choices: dict[str, Any],
    in_a_region: bool,
) -> None:
    choices = {"steps": 2, **translated(choices)}
    if in_a_region:
        choices["regions"] = [(cut(9, 7).convert("L"), painting)]
    made(lambda: stylize(photo, painting, size=size, **choices), fitted(photo, size))


@tried
@given(
    pictures,
    sizes,
    st.fixed_dictionaries(
        {}, optional={**RUN, "layers": some_layers, "tv": st.one_of(st.none(), weights)}
    ),
)
def test_reconstruct(photo: Image.Image, size: int | str, choices: dict[str, Any]) -> None:
    choices = {"steps": 2, **translated(choices)}
    made(lambda: reconstruct(photo, size=size, **choices), fitted(photo, size))


@tried
@given(
    pictures,
    st.tuples(sides, sides),
    st.fixed_dictionaries(
        {},
        optional={
            **RUN,
            "layers": some_layers,
            "style_loss": style_losses,
            "painting_size": st.one_of(st.none(), st.integers(1, 130)),
            "tv": weights,
            "levels": levels,
        },
    ),
    st.booleans(),
)
def test_texture(
    painting: Image.Image, size: tuple[int, int], choices: dict[str, Any], tileable: bool
) -> None:
    if tileable:  # most sizes of most layers are refused
        size = (size[0] + 15) // 16 * 16, (size[1] + 15) // 16 * 16
    choices = {"steps": 2, **translated(choices)}
    made(lambda: texture(painting, size=size, tileable=tileable, **choices), size)


@pytest.mark.parametrize(
    ("size", "choices"),
    [
        ((320, 180), {"size": 320, "levels": 5, "steps": 20}),
        (
            (118, 48),
            {"size": "full", "levels": 3, "style_layers": ["relu5_1", "pool4"], "steps": 9},
        ),
        ((48, 32), {"size": 16, "levels": 16, "style_layers": ["relu1_1"], "steps": 99}),
    ],
)
def test_fewer_levels_are_used_where_so_many_are_not_possible(
    size: tuple[int, int], choices: dict[str, Any]
) -> None:
    choices["content_layer"] = "relu1_1" if choices["size"] == 16 else "relu4_2"
    choices["style_loss"] = "gram"
    with noticed(r"are too few for \d+ levels .* (is|are) used"):
        artwork = stylize(cut(*size), PAINTING, evaluations=6, **choices)
    assert 1 <= len(artwork.record["levels"]) < choices["levels"]
    made(lambda: artwork, fitted(cut(*size), choices["size"]))


def test_fewer_levels_of_a_texture() -> None:
    with noticed("are too few for 9 levels"):
        grown = texture(PAINTING, size=(64, 64), levels=9, steps=50, evaluations=6)
    assert grown.record["levels"] == [[16, 16], [32, 32], [64, 64]]
    odd: dict[str, Any] = {"size": (67, 67), "layers": ["relu1_1"], "steps": 3}
    with noticed("1 is used"):  # which has no half that repeats, too
        assert texture(PAINTING, tileable=True, levels=2, **odd).record["levels"] == [[67, 67]]
