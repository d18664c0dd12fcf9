"""Textures: a painting's style at any size, with no seam where they are to repeat."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import (
    STYLES,
    Encoder,
    ImpastoError,
    Objective,
    StyleLoss,
    cg,
    gram,
    lbfgs,
    load_encoder,
    read_record,
    sample,
    texture,
    up_to,
)
from impasto.optimise.base import Beyond, Optimiser
from impasto.paint.studio import CONTRAST, clouds
from tests.conftest import tolerated
from tests.paint.conftest import pixels

PAINTING = sample("great_wave")


def seam(image: Image.Image) -> float:
    """How far pixels jump from one side of a picture to the opposite one.

    Relative to what its neighbouring rows and columns hardly ever exceed: one in ten.
    """
    values, jumps = pixels(image), []
    for axis in (0, 1):
        inside = np.abs(np.diff(values, axis=axis)).mean((1 - axis, 2))
        across = np.abs(values.take(0, axis) - values.take(-1, axis)).mean()
        jumps.append(across / np.quantile(inside, 0.9))
    return float(np.mean(jumps))


def test_any_size_and_its_style(tmp_path: Path) -> None:
    artwork = texture(PAINTING, size=(80, 48), layers=up_to("relu3_1"), painting_size=128, steps=30)
    assert artwork.image.size == (80, 48)
    assert artwork.losses[-1] < 0.05 * artwork.losses[0]
    assert all(b < a for a, b in itertools.pairwise(artwork.losses))
    assert set(artwork.parts) == {"style relu1_1", "style relu2_1", "style relu3_1"}
    record = read_record(artwork.save(tmp_path / "a.png"))
    assert record["command"] == "texture"
    assert record["painting"]["name"] == "great_wave.jpg"
    assert record["settings"]["painting_size"] == 128


@pytest.mark.parametrize("style_loss", ["gram", "bn", "wasserstein"])
def test_a_tileable_texture_has_no_seam(style_loss: str) -> None:
    settings: dict[str, Any] = {"painting_size": 128, "steps": 25, "style_loss": style_loss}
    settings["layers"] = up_to("relu4_1")
    plain = texture(PAINTING, size=(57, 57), **settings)  # cut out of one that repeats
    tile = texture(PAINTING, size=(64, 64), tileable=True, **settings)
    assert seam(plain.image) > 1.25
    assert seam(tile.image) < 1


def test_what_is_cut_out_has_no_frame() -> None:
    """Along the border it is as lively as inside: nothing there knows of it."""
    grown = texture(PAINTING, size=(90, 70), layers=up_to("relu4_1"), painting_size=128, steps=40)
    assert grown.image.size == (90, 70)
    values = pixels(grown.image)
    ring = np.ones(values.shape[:2], bool)
    ring[3:-3, 3:-3] = False
    assert np.abs(values[ring].mean(0) - values[~ring].mean(0)).max() < 25
    assert values[ring].std() == pytest.approx(values[~ring].std(), rel=0.35)


def test_tiles_of_one_that_repeats() -> None:
    """With little memory it is grown in tiles that go on at the opposite side: the same picture."""
    settings: dict[str, Any] = {"size": (96, 64), "tileable": True, "painting_size": 96, "steps": 6}
    whole = texture(PAINTING, **settings)
    with tolerated():
        tiles = texture(PAINTING, memory="1M", history=2, **settings)
    assert "memory" in tiles.record
    assert "memory" not in whole.record
    assert tiles.losses[1] == pytest.approx(whole.losses[1], rel=1e-4)
    assert seam(tiles.image) < 1.1


def test_with_several_levels_there_is_still_no_seam() -> None:
    tile = texture(
        PAINTING, size=(128, 64), layers=up_to("relu3_1"), tileable=True, levels=2, steps=20
    )
    assert tile.record["levels"] == [[64, 32], [128, 64]]
    assert seam(tile.image) < 1


@pytest.mark.parametrize("optimiser", [lbfgs, cg], ids=["lbfgs", "cg"])
def test_no_place_of_a_picture_that_repeats_is_special(optimiser: Optimiser) -> None:
    """Shifted around, its start ends as the same picture, shifted: so nothing can be at a border.

    With variables that are mirrored at the border it does not.
    """
    layers = up_to("relu2_1")
    encoder = load_encoder(padding="circular").double()
    painting = torch.rand(1, 3, 32, 32, dtype=torch.float64) ** 3
    losses = [StyleLoss(layer, gram(f)) for layer, f in encoder(painting, layers).items()]
    objective = Objective(encoder, losses)
    start = 0.5 + 0.2 * torch.rand(1, 3, 16, 24, dtype=torch.float64)

    def difference(beyond: Beyond) -> float:
        ends = [
            optimiser(objective, image, steps=4, spectrum="noise", beyond=beyond).final.image
            for image in (start, start.roll((6, 10), (2, 3)))
        ]
        moved = (ends[0] - start).abs().mean()
        return float((ends[0].roll((6, 10), (2, 3)) - ends[1]).abs().mean() / moved)

    assert difference("repeated") < 1e-3
    assert difference("mirrored") > 0.01


def test_one_row_that_repeats_keeps_its_size() -> None:
    """One scale: of a single row there is no half."""
    row = texture(PAINTING, size=(400, 1), layers=["relu1_1"], tileable=True, steps=6)
    assert row.image.size == (400, 1)
    assert row.record["levels"] == [[400, 1]]


@pytest.mark.parametrize("size", [(32, 48), (1, 400), (7, 5), (1, 1)])
def test_a_start_is_noise_that_falls_with_frequency(size: tuple[int, int]) -> None:
    """Numbers everywhere, whatever torch makes of a complex number divided by infinity."""
    start = clouds(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert start.shape == (1, 3, *size)
    assert start.isfinite().all()
    assert start.mean().item() == pytest.approx(0.5, abs=0.02)
    if min(size) > 8:
        assert start.std().item() == pytest.approx(CONTRAST, rel=0.05)
        spectrum = torch.fft.rfft2(start - start.mean()).abs()
        assert spectrum[..., :3, :3].mean() > 3 * spectrum[..., 10:20, 10:20].mean()


def test_circular_padding_sees_no_border() -> None:
    """Shifted around by its period, a picture has the same activations, shifted."""
    encoder = load_encoder(padding="circular").double()
    layers = ["relu1_1", "relu2_1", "relu3_1"]
    period = encoder.min_size(layers)
    image = torch.rand(1, 3, 4 * period, 6 * period, dtype=torch.float64)
    shifted = image.roll((period, 2 * period), (2, 3))
    once, again = encoder(image, layers), encoder(shifted, layers)
    for layer in layers:
        stride = image.shape[2] // once[layer].shape[2]
        back = again[layer].roll((-period // stride, -2 * period // stride), (2, 3))
        assert torch.allclose(back, once[layer], rtol=1e-9, atol=1e-9)
        assert torch.allclose(gram(again[layer]), gram(once[layer]), rtol=1e-9)


def test_repeated_it_is_the_same_to_the_encoder(encoder64: Encoder) -> None:
    """Far from any border, zero padding sees of a repeated picture what circular padding does."""
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    wrapped = load_encoder(padding="circular").double()(image, ["relu3_1"])["relu3_1"]
    plain = encoder64(image.repeat(1, 1, 5, 5), ["relu3_1"])["relu3_1"]
    assert torch.allclose(plain[..., 16:24, 16:24], wrapped, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("style_loss", STYLES)
def test_a_flat_painting_is_no_trouble(style_loss: str) -> None:
    grey = Image.new("RGB", (48, 48), (128, 128, 128))
    artwork = texture(grey, size=(32, 32), tileable=True, style_loss=style_loss, steps=5)
    assert artwork.losses[-1] < artwork.losses[0] < 1e12


def test_the_seed_is_what_differs() -> None:
    one, same, other = (
        texture(PAINTING, size=(32, 32), painting_size=64, steps=3, seed=seed) for seed in (0, 0, 1)
    )
    assert one.image.tobytes() == same.image.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


def test_bad_input_is_told_in_a_sentence() -> None:
    for settings, told in (
        ({"size": (65, 64), "tileable": True}, "multiples of 16 .* such as 64x64"),
        ({"size": (8, 8)}, "relu5_1 needs at least 16 x 16"),
        ({"size": 64}, "give width and height"),
        ({"size": (64, 0)}, "height is 0"),
        ({"layers": ["relu3_1"], "style_loss": "grams"}, "did you mean 'gram'"),
        ({"layers": {"relu3_1": 0.0}}, "share above 0"),
        ({"painting_size": 4}, "needs at least"),
    ):
        with pytest.raises(ImpastoError, match=told):
            texture(PAINTING, **{"steps": 1} | settings)
    with pytest.raises(ImpastoError, match="did you mean 'relu3_1'"):
        up_to("relu3_2")
