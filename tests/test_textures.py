"""Textures: a painting's style at any size, with no seam where they are to repeat."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import (
    ImpastoError,
    Vgg,
    gram,
    load_encoder,
    read_record,
    sample,
    texture,
    to_tensor,
    up_to,
)

PAINTING = sample("great_wave")


def seam(image: Image.Image) -> float:
    """How much further from the painting's style a picture is when its border is in its middle.

    Repeated, a picture shows its border; the encoder then sees the edge there is, or none.
    """
    encoder, layer = load_encoder(), "relu3_1"

    def style(picture: Image.Image) -> torch.Tensor:
        return gram(encoder(to_tensor(picture), [layer])[layer])

    painting = Image.open(PAINTING)
    painting.thumbnail((128, 128))
    wanted = style(painting)
    offset = (image.height // 2, image.width // 2)
    rolled = Image.fromarray(np.roll(np.asarray(image), offset, (0, 1)))
    return float((style(rolled) - wanted).norm() / (style(image) - wanted).norm())


def test_any_size_and_its_style(tmp_path: Path) -> None:
    artwork = texture(PAINTING, size=(80, 48), layers=up_to("relu3_1"), painting_size=128, steps=30)
    assert artwork.image.size == (80, 48)
    assert artwork.losses[-1] < 0.05 * artwork.losses[0]
    assert all(b < a for a, b in itertools.pairwise(artwork.losses))
    assert set(artwork.parts) == {"style relu1_1", "style relu2_1", "style relu3_1", "border"}
    record = read_record(artwork.save(tmp_path / "a.png"))
    assert record["command"] == "texture"
    assert record["painting"]["name"] == "great_wave.jpg"
    assert record["settings"]["painting_size"] == 128


@pytest.mark.parametrize("style_loss", ["gram", "bn", "wasserstein"])
def test_a_tileable_texture_has_no_seam(style_loss: str) -> None:
    settings = {"size": (64, 64), "layers": up_to("relu3_1"), "painting_size": 128, "steps": 25}
    plain = texture(PAINTING, style_loss=style_loss, **settings)  # type: ignore[arg-type]
    tile = texture(PAINTING, style_loss=style_loss, tileable=True, **settings)  # type: ignore[arg-type]
    assert seam(plain.image) > 1.5
    assert seam(tile.image) < 1.15


def test_with_several_levels_there_is_still_no_seam() -> None:
    tile = texture(
        PAINTING, size=(128, 64), layers=up_to("relu3_1"), tileable=True, levels=2, steps=20
    )
    assert tile.record["levels"] == [[64, 32], [128, 64]]
    assert seam(tile.image) < 1.15


def test_circular_padding_sees_no_border() -> None:
    """Shifted around by its period, a picture has the same activations, shifted."""
    encoder = load_encoder(padding="circular").double()
    layers = ["relu1_1", "relu2_1", "relu3_1"]
    period = encoder.period(layers)
    image = torch.rand(1, 3, 4 * period, 6 * period, dtype=torch.float64)
    shifted = image.roll((period, 2 * period), (2, 3))
    once, again = encoder(image, layers), encoder(shifted, layers)
    for layer in layers:
        stride = image.shape[2] // once[layer].shape[2]
        back = again[layer].roll((-period // stride, -2 * period // stride), (2, 3))
        assert torch.allclose(back, once[layer], rtol=1e-9, atol=1e-9)
        assert torch.allclose(gram(again[layer]), gram(once[layer]), rtol=1e-9)


def test_repeated_it_is_the_same_to_the_encoder(encoder64: Vgg) -> None:
    """Far from any border, zero padding sees of a repeated picture what circular padding does."""
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    wrapped = load_encoder(padding="circular").double()(image, ["relu3_1"])["relu3_1"]
    plain = encoder64(image.repeat(1, 1, 5, 5), ["relu3_1"])["relu3_1"]
    assert torch.allclose(plain[..., 16:24, 16:24], wrapped, rtol=1e-9, atol=1e-9)


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
        ({"levels": 9, "steps": 100}, "levels are too many"),
    ):
        with pytest.raises(ImpastoError, match=told):
            texture(PAINTING, **{"steps": 1} | settings)
    with pytest.raises(ImpastoError, match="did you mean 'relu3_1'"):
        up_to("relu3_2")
