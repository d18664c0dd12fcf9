"""Tiles of residual networks, whose convolutions of stride 2 pad by the parity of the picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from impasto import (
    ContentLoss,
    Encoder,
    ImpastoError,
    Loss,
    Objective,
    Statistic,
    StyleLoss,
    load_encoder,
    measure,
)
from impasto.encoders.shifts import Shifted
from impasto.encoders.tiles import needed, plan
from impasto.losses import neighbors
from impasto.losses.neighbors import Where
from impasto.losses.styles import Exemplar
from tests.conftest import sample_tensor
from tests.encoders.states import resnet
from tests.encoders.test_tiles import assert_same

STYLE = {
    "efficientnet-lite0": ("stem", "block1.expand", "block3.depthwise", "block6.expand.conv"),
    "resnet18": ("relu1", "layer1.1.arm", "layer2.0.shortcut", "layer3.0.sum", "layer3.1.merge"),
}
CONTENT = {"efficientnet-lite0": "block5.merge", "resnet18": "layer2.1.merge"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(resnet("resnet18"), path)
    loaded = [load_encoder(name="efficientnet-lite0"), load_encoder(path)]
    return {encoder.name: encoder for encoder in loaded}


def losses(encoder: Encoder, photo: Tensor, painting: Tensor) -> list[Loss]:
    content, style = CONTENT[encoder.name], STYLE[encoder.name]
    targets = measure(encoder, photo, features=[content])
    grams = measure(encoder, painting, statistics={name: Statistic(name) for name in style})
    return [
        ContentLoss(content, targets[content]),
        *(StyleLoss(layer, grams[layer], 3.0) for layer in style),
    ]


@pytest.mark.parametrize("shifts", [1, 2])
@pytest.mark.parametrize("name", STYLE)
@settings(deadline=None, max_examples=6)
@given(st.integers(17, 120), st.integers(17, 120), st.integers(1, 100), st.integers(0, 9))
def test_any_size_in_any_tiles_is_exact(
    encoders: dict[str, Encoder],
    name: str,
    shifts: int,
    height: int,
    width: int,
    tile: int,
    seed: int,
) -> None:
    encoder = encoders[name] if shifts == 1 else Shifted(encoders[name], shifts)
    encoder = encoder.double()
    random = torch.Generator().manual_seed(seed)
    image, photo, painting = (
        torch.rand(1, 3, height, width, generator=random, dtype=torch.float64) for _ in range(3)
    )
    terms = losses(encoder, photo, painting)
    whole = Objective(encoder, terms)(image)
    assert_same(Objective(encoder, terms, tile=tile)(image), whole, 1e-9)


@pytest.mark.parametrize("smoothing", [None, 1.0])
@pytest.mark.parametrize("name", STYLE)
def test_in_single_precision_on_real_pictures(
    encoders: dict[str, Encoder], name: str, smoothing: float | None
) -> None:
    encoder = encoders[name].like(smoothing=smoothing)
    photo, painting = sample_tensor("owl", 203), sample_tensor("great_wave", 160)
    image = torch.nn.functional.interpolate(sample_tensor("kingfisher", 203), photo.shape[-2:])
    terms = losses(encoder, photo, painting)
    whole = Objective(encoder, terms)(image)
    assert_same(Objective(encoder, terms, tile=32)(image), whole, 1e-3)


@pytest.mark.parametrize("name", STYLE)
def test_targets_in_tiles(encoders: dict[str, Encoder], name: str) -> None:
    encoder, image = encoders[name].double(), sample_tensor("owl", 149).double()
    statistics = {f"gram {layer}": Statistic(layer) for layer in STYLE[name]}
    sides = {CONTENT[name]: 1, STYLE[name][0]: 2}
    whole = measure(encoder, image, features=sides, statistics=statistics)
    tiled = measure(encoder, image, features=sides, statistics=statistics, memory=1)
    for layer, value in whole.items():
        assert torch.allclose(tiled[layer], value, rtol=1e-9, atol=1e-12), layer


@pytest.mark.parametrize("shifts", [1, 2])
@pytest.mark.parametrize("name", STYLE)
def test_neighbours_in_tiles(encoders: dict[str, Encoder], name: str, shifts: int) -> None:
    """At odd sizes the last row of places is narrower, and masks have it, too."""
    encoder = encoders[name] if shifts == 1 else Shifted(encoders[name], shifts)
    encoder = encoder.double()
    layers = {"efficientnet-lite0": ("stem", "block2.merge", "block4.merge")}
    shares = dict.fromkeys(layers.get(name, ("relu1", "layer1.0.merge", "layer2.0.merge")), 1.0)
    photo, painting = sample_tensor("owl", 83).double(), sample_tensor("great_wave", 77).double()
    image = photo.flip(-1)
    mask = torch.linspace(0, 1, image.shape[-1], dtype=torch.float64).expand(1, 1, *image.shape[2:])

    def look(x: Tensor, sides: dict[str, int]) -> dict[str, Tensor]:
        return measure(encoder, x, features=sides)

    where = [
        Where([Exemplar(painting)], mask, "right"),
        Where([Exemplar(painting.flip(-2))], 1 - mask, "left"),
    ]
    terms = neighbors.losses(look, encoder.rows, shares, where, image, photo)  # type: ignore[arg-type]
    whole = Objective(encoder, terms)(image)
    assert_same(Objective(encoder, terms, tile=32)(image), whole, 1e-9)


@pytest.mark.parametrize(("tile", "shifts"), [(32, 1), (64, 1), (300, 1), (64, 2)])
@pytest.mark.parametrize("name", STYLE)
def test_a_picture_that_repeats(
    encoders: dict[str, Encoder], name: str, tile: int, shifts: int
) -> None:
    encoder = encoders[name] if shifts == 1 else Shifted(encoders[name], shifts)
    encoder = encoder.like(padding="circular").double()
    random = torch.Generator().manual_seed(0)
    image, photo, painting = (
        torch.rand(1, 3, 64, 160, generator=random, dtype=torch.float64) for _ in range(3)
    )
    terms = losses(encoder, photo, painting)
    whole = Objective(encoder, terms)(image)
    assert_same(Objective(encoder, terms, tile=tile)(image), whole, 1e-9)


@pytest.mark.parametrize("shifts", [1, 2])
@pytest.mark.parametrize("name", STYLE)
def test_the_table_says_what_a_layer_sees(
    encoders: dict[str, Encoder], name: str, shifts: int
) -> None:
    """A position depends on the pixels of its square and of the halo around it, and no others."""
    encoder = encoders[name] if shifts == 1 else Shifted(encoders[name], shifts)
    encoder = encoder.double()
    for row in encoder.table[1::9]:
        if row.halo > 120:
            break
        for side in (320, 323):
            image = torch.rand(1, 3, side, 8, dtype=torch.float64).requires_grad_(True)
            at = 160 // row.stride + shifts - 1
            position = encoder(image, [row.name])[row.name][..., at, :].square().sum()
            (gradient,) = torch.autograd.grad(position, image)
            seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
            first = at * row.stride
            assert seen[0] >= first - row.halo, row.name
            assert seen[-1] < first + row.stride + row.halo, row.name
            assert len(seen) > row.halo, row.name


@pytest.mark.parametrize("name", STYLE)
def test_memory_decides(encoders: dict[str, Encoder], name: str) -> None:
    encoder, layers, size = encoders[name], ["image", *STYLE[name]], (1023, 1001)
    whole = needed(encoder, layers, size, None)
    assert plan(encoder, layers, size, memory=whole) is None
    segments = plan(encoder, layers, size, memory=0.6 * whole)
    assert segments
    assert needed(encoder, layers, size, segments) <= 0.6 * whole


@pytest.mark.parametrize("name", STYLE)
def test_shifts_are_looks_at_the_moved_picture(encoders: dict[str, Encoder], name: str) -> None:
    encoder, layer = encoders[name].double(), STYLE[name][0]
    image = torch.rand(2, 3, 41, 30, dtype=torch.float64)
    shifted = Shifted(encoder, 2)
    found = shifted(image, [layer])[layer]
    assert shifted.rows[layer].stride == encoder.rows[layer].stride // 2
    assert found.shape[2:] == tuple(map(shifted.rows[layer].positions, image.shape[2:]))
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        there = torch.nn.functional.pad(
            image[..., down:, right:], (0, right, 0, down), mode="replicate"
        )
        own = encoder(there, [layer])[layer]
        part = found[..., down::2, right::2]
        assert torch.allclose(own[..., : part.shape[2], : part.shape[3]], part)


def test_shifts_of_an_encoder_that_sees_every_pixel(encoders: dict[str, Encoder]) -> None:
    with pytest.raises(ImpastoError, match=r"vgg16 has layers of stride 1, .* leave shifts out"):
        Shifted(load_encoder(), 2)
    with pytest.raises(ImpastoError, match=r"resnet18 has layers of stride 2, "):
        Shifted(encoders["resnet18"], 4)


@pytest.mark.parametrize("name", STYLE)
def test_shifts_take_the_grid_out_of_the_gradient(encoders: dict[str, Encoder], name: str) -> None:
    """Looked at once, every second row and column of pixels has a larger slope than the others."""

    def unevenness(encoder: Encoder) -> float:
        layers = STYLE[name][:3]
        photo, painting = sample_tensor("owl", 96), sample_tensor("great_wave", 96)
        grams = measure(encoder, painting, statistics={n: Statistic(n) for n in layers})
        terms = [StyleLoss(n, grams[n]) for n in layers]
        slopes = (
            Objective(encoder, terms)(photo).gradient[..., 16:-16, 16:-16].square().mean((0, 1))
        )
        each = [slopes[row::2, column::2].mean().item() for row in (0, 1) for column in (0, 1)]
        return max(each) / min(each)

    once, four = unevenness(encoders[name]), unevenness(Shifted(encoders[name], 2))
    assert once > 1.3
    assert four < 1 + (once - 1) / 2
