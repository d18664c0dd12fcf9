"""Whatever a program around impasto has switched on, pictures and numbers are the same."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from impasto import (
    ContentLoss,
    GaussianMmd,
    Loss,
    Objective,
    Step,
    StyleLoss,
    Stylizer,
    adam,
    cg,
    channels,
    gram,
    lbfgs,
    load_encoder,
    measure,
    reconstruct,
    sample,
    stylize,
    texture,
    to_tensor,
)
from impasto.device import ordinary, recordable
from impasto.encoders import base
from impasto.losses import distributions
from impasto.pictures import images

PHOTO, PAINTING = sample("kingfisher"), sample("great_wave")


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "double": double_by_default,
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "half precision": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "a default device": default_device,
    "another device": lambda: torch.device("meta"),
    "NumPy raises": lambda: np.errstate(all="raise"),
}


@pytest.fixture(params=STATES, scope="module")
def state(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Any]]:
    # What was prepared before hides what would be prepared now.
    for kept in (base._loaded, distributions._waves):
        kept.cache_clear()
    return STATES[request.param]


RECIPES: dict[str, Callable[[], tuple[bytes, list[float]]]] = {}


def recipe(make: Callable[[], Any]) -> None:
    def made() -> tuple[bytes, list[float]]:
        artwork = make()
        return artwork.image.tobytes(), artwork.losses

    RECIPES[make.__name__] = made


@recipe
def by_lbfgs() -> Any:
    return stylize(PHOTO, PAINTING, size=32, steps=2, style_loss="wasserstein")


@recipe
def by_cg() -> Any:
    return stylize(PHOTO, PAINTING, size=32, steps=2, optimizer="cg", style_loss="mmd-gaussian")


@recipe
def by_adam() -> Any:
    kept = Stylizer(PAINTING, size=32, steps=2, optimizer="adam", keep_colors="luminance")
    return kept.paint(PHOTO)


@recipe
def reconstructed() -> Any:
    return reconstruct(PHOTO, layers=["relu2_1"], size=32, steps=2)


@recipe
def tileable() -> Any:
    layers = {"relu1_1": 1.0, "relu2_1": 1.0}
    return texture(PAINTING, size=(32, 32), painting_size=48, tileable=True, layers=layers, steps=2)


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[bytes, list[float]]]:
    return {name: make() for name, make in RECIPES.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_pictures_are_the_same(
    name: str,
    state: Callable[[], AbstractContextManager[Any]],
    expected: dict[str, tuple[bytes, list[float]]],
) -> None:
    with state():
        again = RECIPES[name]()
    assert again[1] == expected[name][1]
    assert again[0] == expected[name][0]


def evaluated() -> list[tuple[float, Tensor]]:
    """Made and called by hand: an objective as a whole and in tiles, and where optimisers end."""
    encoder = load_encoder()
    image = to_tensor(images.resize(images.read(PHOTO).image, (48, 32)))
    painting = to_tensor(images.resize(images.read(PAINTING).image, (48, 32)))
    content = measure(encoder, image, features=["relu2_1"])["relu2_1"]
    seen = encoder(painting, ["relu1_1", "relu3_1"])
    area = (image[:, :1] > 0.3).to(image)
    losses: list[Loss] = [
        ContentLoss("relu2_1", content, 0.3),
        StyleLoss("relu1_1", gram(seen["relu1_1"]), area=area),
        StyleLoss("relu3_1", GaussianMmd(20).mean(seen["relu3_1"]), style=GaussianMmd(20)),
    ]
    start = image * 0.5
    evaluations = [Objective(encoder, losses, tile=tile)(start) for tile in (None, 16)]
    ends = [o(Objective(encoder, losses), start, steps=2).final for o in (lbfgs, cg, adam)]
    gradients = [(evaluation.loss, 1e4 * evaluation.gradient) for evaluation in evaluations]
    return [*gradients, *((end.loss, end.image) for end in ends)]


@pytest.fixture(scope="module")
def expected_by_hand() -> list[tuple[float, Tensor]]:
    return evaluated()


def test_objectives_by_hand_are_the_same(
    state: Callable[[], AbstractContextManager[Any]],
    expected_by_hand: list[tuple[float, Tensor]],
) -> None:
    if state is STATES["half precision"]:
        pytest.skip("what a user computes with the encoder is in half precision, as asked for")
    with state():
        again = evaluated()
    for (loss, values), (expected_loss, expected_values) in zip(
        again, expected_by_hand, strict=True
    ):
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert torch.allclose(values, expected_values, atol=1e-4)


def test_an_objective_is_of_full_precision() -> None:
    encoder = load_encoder()
    image = to_tensor(images.resize(images.read(PHOTO).image, (48, 32)))
    objective = Objective(encoder, [StyleLoss("relu3_1", torch.zeros(1, 256, 256))])
    before = objective(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = objective(image)
    assert after.loss == before.loss
    assert torch.equal(after.gradient, before.gradient)


def test_a_picture_made_in_inference_mode_is_good_outside() -> None:
    encoder = load_encoder()
    with torch.inference_mode():
        image = to_tensor(images.resize(images.read(PHOTO).image, (48, 32)))
        target = measure(encoder, image, features=["relu2_1"])["relu2_1"]
        seen = encoder(image, ["relu2_1"])["relu2_1"]
    assert image.is_inference()
    for found in (target, seen):
        objective = Objective(encoder, [ContentLoss("relu2_1", found)])
        assert objective(image).loss < 1e-9
        assert lbfgs(objective, image * 0.9, steps=1).final.step == 1


def test_channels_are_the_same() -> None:
    page = channels(PHOTO, "relu2_1", size=32)
    with double_by_default(), torch.inference_mode(), default_device(), np.errstate(all="raise"):
        again = channels(PHOTO, "relu2_1", size=32)
    assert again.record["most_active"] == page.record["most_active"]
    assert again.image.tobytes() == page.image.tobytes()


def test_everything_is_as_it_was_afterwards() -> None:
    steps: list[Step] = []
    with torch.inference_mode(), torch.device("meta"), np.errstate(all="raise"):
        stylize(PHOTO, PAINTING, size=32, steps=1, callback=steps.append)
        assert torch.is_inference_mode_enabled()
        assert torch.empty(1).device.type == "meta"
        assert np.geterr()["divide"] == "raise"
    assert len(steps) == 2
    with torch.no_grad():
        load_encoder()
        assert not torch.is_grad_enabled()
    with torch.autocast("cpu"):
        load_encoder()
        assert torch.is_autocast_enabled("cpu")


def test_ordinary_ground() -> None:
    with (
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu"),
        torch.device("meta"),
        np.errstate(all="raise"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        x = torch.ones(2, 2)
        assert x.device.type == "meta"
        with ordinary():
            x = torch.ones(2, 2, requires_grad=True)
            assert (x @ x).requires_grad
            assert (x @ x).dtype == torch.float32
            assert x.device.type == "cpu"
            assert np.isinf(np.float64(1) / np.float64(0))
    assert recordable(x) is x
