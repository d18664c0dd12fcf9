"""Neighbours against their definition, by brute force, on real features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from impasto import Encoder, ImpastoError, Objective, load_encoder, measure
from impasto.losses import neighbors
from impasto.losses.matching import divided, nearest, nearest_on_grid
from impasto.losses.neighbors import MomentsLoss, NeighborLoss, Where
from impasto.losses.styles import Exemplar
from impasto.paint.neighboring import matched_layers
from impasto.pictures import images
from impasto.settings import TextureSettings, TrainSettings
from tests.conftest import sample_tensor

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
ENCODER = load_encoder()


def found(
    where: Sequence[Where] | Tensor, picture: Tensor, photo: Tensor | None = None, **how: Any
) -> list[NeighborLoss | MomentsLoss]:
    places = [Where([Exemplar(where)])] if isinstance(where, Tensor) else where
    return neighbors.losses(
        partial(looked, ENCODER),
        ENCODER.rows,
        dict.fromkeys(LAYERS, 1.0),
        places,
        picture,
        picture if photo is None else photo,
        **how,
    )


def looked(encoder: Encoder, image: Tensor, sides: Mapping[str, int]) -> dict[str, Tensor]:
    return measure(encoder, image, features=sides)


def matches(losses: Sequence[NeighborLoss | MomentsLoss]) -> list[NeighborLoss]:
    return [loss for loss in losses if isinstance(loss, NeighborLoss)]


def at(losses: Sequence[NeighborLoss | MomentsLoss], image: Tensor) -> dict[str, float]:
    """The value of each loss at an image."""
    return dict(Objective(ENCODER, losses)(image).parts)


def in_all_turns(painting: Tensor, layer: str = "relu3_1") -> Tensor:
    """The activations of a painting's places as it is and turned, [C, places]."""
    turned = [images.mirrored(torch.rot90(painting, turn, (2, 3)), 16) for turn in range(4)]
    found = [measure(ENCODER, image, features=[layer])[layer] for image in turned]
    return torch.cat([x[0, :, 4:-4, 4:-4].flatten(1) for x in found], 1)


def vectors(seed: int, *shape: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=random, dtype=torch.float32)
    return torch.nn.functional.normalize(x, dim=-1)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 60), st.integers(1, 9))
@settings(max_examples=50)
def test_the_nearest_is_that_of_brute_force(seed: int, n: int, m: int, directions: int) -> None:
    queries, keys = vectors(seed, n, directions), vectors(seed + 1, m, directions)
    cosines, index = nearest(queries, keys)
    expected = queries.numpy() @ keys.numpy().T
    assert np.allclose(cosines.numpy(), expected.max(1), atol=1e-6)
    assert np.allclose(expected[np.arange(n), index.numpy()], expected.max(1), atol=1e-6)


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 9), st.integers(1, 200))
@settings(max_examples=50)
def test_what_is_hidden_is_not_found(seed: int, rows: int, columns: int, most: int) -> None:
    queries, keys = vectors(seed, 5, 6, 4), vectors(seed + 1, rows, columns, 4)
    hidden = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.7
    hidden[seed % rows, seed % columns] = False
    cosines, index = nearest_on_grid(queries, keys, hidden, most)
    assert not hidden.flatten()[index].any()
    said = (queries * keys.flatten(0, 1)[index]).sum(-1)
    assert torch.allclose(cosines, said, atol=1e-6)
    if queries[..., 0].numel() * hidden.numel() <= most:
        all_pairs = (queries.flatten(0, 1) @ keys.flatten(0, 1).T).masked_fill(hidden.flatten(), -2)
        assert torch.allclose(cosines.flatten(), all_pairs.amax(1), atol=1e-6)


@pytest.mark.parametrize("most", [10**9, 10**5, 10**3])
def test_a_grid_matched_with_itself_finds_itself(most: int) -> None:
    photo = sample_tensor("neuschwanstein", 192)
    features = measure(ENCODER, photo, features=["relu3_1"])["relu3_1"][0].permute(1, 2, 0)
    keys = torch.nn.functional.normalize(features - features.mean((0, 1)), dim=-1)
    cosines, index = nearest_on_grid(keys, keys, most=most)
    own = torch.arange(index.numel()).view_as(index)
    assert (index == own).double().mean() == 1
    assert cosines.min() > 0.9999


def test_from_coarse_to_fine_finds_nearly_the_nearest() -> None:
    pair = [sample_tensor(name, 192) for name in ("neuschwanstein", "great_wave")]
    queries, keys = (
        measure(ENCODER, image, features=["relu3_1"])["relu3_1"][0].permute(1, 2, 0)
        for image in pair
    )
    queries, keys = (
        torch.nn.functional.normalize(x - keys.mean((0, 1)), dim=-1) for x in (queries, keys)
    )
    exact, _ = nearest_on_grid(queries, keys)
    pairs = queries[..., 0].numel() * keys[..., 0].numel()
    for fewer, lost in ((4, 0.15), (16, 0.2), (64, 0.25)):
        coarse, _ = nearest_on_grid(queries, keys, most=pairs // fewer + pairs // 100)
        assert (exact - coarse).min() > -1e-5
        assert (exact - coarse).mean() < lost * (1 - exact).mean()


@given(
    st.integers(0, 10**6),
    st.lists(st.floats(0.1, 1), min_size=2, max_size=4),
    st.integers(20, 400),
)
@settings(max_examples=50)
def test_each_painting_gets_its_share_of_places(seed: int, given: list[float], n: int) -> None:
    shares = [share / sum(given) for share in given]
    random = torch.Generator().manual_seed(seed)
    likeness = torch.rand(len(shares), 1, n, generator=random)
    counts = torch.rand(1, n, generator=random) < 0.8
    counts[0, 0] = True
    which = divided(likeness, shares, counts)[counts]
    taken = torch.bincount(which, minlength=len(shares)) / len(which)
    assert torch.allclose(taken, torch.tensor(shares), atol=0.03 + 2 / len(which))


def test_the_loss_is_its_equation() -> None:
    picture, painting = sample_tensor("owl", 64), sample_tensor("night_cafe", 64)
    for loss in matches(found(painting, picture)):
        f = measure(ENCODER, picture, features={loss.layer: loss.side})[loss.layer]
        own, target = (x[0].flatten(1).double().numpy() for x in (f, loss.target))
        cosines = (own * target).sum(0) / np.linalg.norm(own, axis=0)
        assert at([loss], picture)[loss.name] == pytest.approx(1 - cosines.mean(), abs=2e-3)
        lengths = np.linalg.norm(target, axis=0)
        if ENCODER.rows[loss.layer].stride <= neighbors.SPACING:
            assert np.allclose(lengths, 1, atol=2e-3)
        assert lengths.max() < 1.002


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("split", [False, True])
def test_a_photo_matched_with_itself_gives_itself(turn: int, split: bool) -> None:
    photo = sample_tensor("kingfisher", 192)
    painting = torch.rot90(photo, turn, (2, 3)).contiguous()
    for loss in matches(found(painting, photo, split=split)):
        own = measure(ENCODER, photo, features={loss.layer: loss.side})[loss.layer]
        cosines = torch.cosine_similarity(own, loss.target.float(), 1)[0]
        border = 32 // max(neighbors.SPACING, ENCODER.rows[loss.layer].stride)
        # relu4_1 turned is not relu4_1 of what is turned, where a side is no multiple of 8.
        inside = cosines[border:-border, border:-border]
        assert inside.mean() > 0.999
        assert at([loss], photo)[loss.name] < 0.1


def test_a_target_is_the_nearest_place_of_all_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, painting = sample_tensor("owl", 64), sample_tensor("composition_viii", 96)
    layer = "relu3_1"
    query = measure(ENCODER, picture, features=[layer])[layer][0].flatten(1).T.double().numpy()
    keys = in_all_turns(painting).T.double().numpy()
    half = len(keys) // 2
    centre = keys[:half].mean(0)  # of two turns
    one, other = (
        (x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True) for x in (query, keys)
    )
    likeness = one @ other.T
    units = keys / np.linalg.norm(keys, axis=1, keepdims=True)

    def missed() -> float:
        """How much further than the nearest the chosen places are, in the mean."""
        losses = matches(found(painting, picture, split=True))
        (target,) = [loss.target[0].flatten(1).T.double() for loss in losses if loss.layer == layer]
        chosen = (target.numpy() @ units.T).argmax(1)
        return float((likeness.max(1) - likeness[np.arange(len(one)), chosen]).mean())

    assert missed() < 0.02
    monkeypatch.setattr(neighbors, "DIRECTIONS", 512)  # all there are
    assert missed() < 1e-5


def test_tiles_are_exact() -> None:
    picture, painting = sample_tensor("owl", 200), sample_tensor("night_cafe", 128)
    weights = torch.linspace(0, 1, picture.shape[-1]).expand(1, 1, *picture.shape[-2:])
    for losses in (
        found(painting, picture),
        found([Where([Exemplar(painting)], weights)], picture),
    ):
        image = sample_tensor("kingfisher", 200)[..., : picture.shape[-2], :].contiguous()
        image = torch.nn.functional.interpolate(image, picture.shape[-2:])
        whole = Objective(ENCODER, losses)(image)
        tiled = Objective(ENCODER, losses, tile=64)(image)
        assert tiled.loss == pytest.approx(whole.loss, rel=1e-6)
        error = (tiled.gradient - whole.gradient).norm() / whole.gradient.norm()
        assert error < 1e-3


def test_one_painting_in_two_equals_one_painting() -> None:
    picture, painting = sample_tensor("owl", 96), sample_tensor("great_wave", 96)
    alone = found(painting, picture)
    twice = found([Where([Exemplar(painting, 0.25), Exemplar(painting.clone(), 0.75)])], picture)
    for one, other in zip(alone, twice, strict=True):
        assert one.name == other.name
        assert torch.allclose(one.target.float(), other.target.float(), rtol=1e-3, atol=1e-3)


def test_a_region_takes_places_of_its_own_painting_only() -> None:
    picture = sample_tensor("owl", 96)
    cafe, wave = sample_tensor("night_cafe", 96), sample_tensor("great_wave", 96)
    left = torch.zeros(1, 1, *picture.shape[-2:])
    left[..., :48] = 1
    both = found(
        [Where([Exemplar(cafe)], left, "left"), Where([Exemplar(wave)], 1 - left)], picture
    )
    (loss,) = [each for each in matches(both) if each.layer == "relu3_1"]
    middle = loss.target.shape[-1] // 2
    for painting, part in ((cafe, slice(0, middle)), (wave, slice(middle, None))):
        targets = loss.target[0, :, :, part].flatten(1).float()
        cosines = targets.T @ torch.nn.functional.normalize(in_all_turns(painting), dim=0)
        assert cosines.amax(1).min() > 0.999
    assert loss.counted == pytest.approx(1)
    names = [each.name for each in both]
    assert "moments relu1_1 in left" in names
    assert len(set(names)) == len(names)


def test_what_is_transparent_in_a_painting_is_not_painted() -> None:
    picture, painting = sample_tensor("owl", 96), sample_tensor("great_wave", 96)
    spoiled, visible = painting.clone(), torch.ones_like(painting[:, :1])
    spoiled[..., 48:] = torch.rand(1, 3, *spoiled[..., 48:].shape[-2:])
    visible[..., 40:] = 0
    (one, *_), (other, *_) = (
        matches(found([Where([Exemplar(image, 1.0, visible)])], picture))
        for image in (painting, spoiled)
    )
    alike = (one.target.float() * other.target.float()).sum(1)
    assert alike.mean() > 0.98


def test_the_photo_can_be_kept() -> None:
    photo, painting = sample_tensor("owl", 96), sample_tensor("great_wave", 96)
    values = [
        sum(at(matches(found(painting, photo, kept=kept)), photo).values()) for kept in (0, 0.5, 1)
    ]
    assert values[0] > values[1] > values[2]
    assert values[2] < 1e-3
    moments = [loss for loss in found(painting, photo, kept=1.0) if isinstance(loss, MomentsLoss)]
    assert {loss.weight for loss in moments} == {0.0}
    # In a region, too, and nowhere else.
    weights = torch.zeros(1, 1, *photo.shape[-2:])
    weights[..., :48] = 1
    for loss in matches(found([Where([Exemplar(painting)], weights)], photo, kept=1.0)):
        assert at([loss], photo)[loss.name] < 1e-3
        assert loss.target[..., loss.target.shape[-1] // 2 :].abs().max() == 0


@pytest.mark.parametrize("layers", [LAYERS, ("pool5",), ("relu1_1", "relu5_1")])
def test_a_region_at_the_very_edge_has_finite_losses(layers: tuple[str, ...]) -> None:
    photo, painting = sample_tensor("owl", 92), sample_tensor("great_wave", 96)
    weights = torch.zeros(1, 1, *photo.shape[-2:])
    weights[..., -4:] = 1  # deep layers drop it
    visible = torch.ones_like(painting[:, :1])
    visible[..., ::2] = 0
    where = [Where([Exemplar(painting, 1.0, visible)], weights)]
    losses = neighbors.losses(
        partial(looked, ENCODER), ENCODER.rows, dict.fromkeys(layers, 1.0), where, photo, photo
    )
    assert np.isfinite([loss(*ENCODER(photo, loss.layers).values()) for loss in losses]).all()


@pytest.mark.parametrize("width", [60, 63, 71])
def test_a_fading_region_of_any_width(width: int) -> None:
    photo = sample_tensor("owl", 96)[..., :width].contiguous()
    weights = torch.linspace(0, 1, width).expand(1, 1, *photo.shape[-2:])
    where = [Where([Exemplar(sample_tensor("great_wave", 96))], weights)]
    layers = dict.fromkeys((*LAYERS, "relu5_1"), 1.0)
    look = partial(looked, ENCODER)
    losses = neighbors.losses(look, ENCODER.rows, layers, where, photo, photo, kept=1.0)
    assert max(at(matches(losses), photo).values()) < 1e-3


def test_shares_decide_how_many_places_a_painting_gets() -> None:
    picture = sample_tensor("owl", 192)
    cafe, wave = sample_tensor("night_cafe", 192), sample_tensor("great_wave", 192)
    both = found([Where([Exemplar(cafe, 0.2), Exemplar(wave, 0.8)])], picture, split=True)
    (loss,) = [each for each in matches(both) if each.layer == "relu3_1"]
    places = loss.target[0].flatten(1).T.float()
    nearest_of = []
    for painting in (cafe, wave):
        nearest_of.append(
            (places @ torch.nn.functional.normalize(in_all_turns(painting), dim=0)).amax(1)
        )
    assert (nearest_of[0] > nearest_of[1]).double().mean() == pytest.approx(0.2, abs=0.02)


def test_moments_are_those_of_the_painting() -> None:
    painting = sample_tensor("night_cafe", 128)
    for loss in found(painting, sample_tensor("owl", 64)):
        if isinstance(loss, MomentsLoss):
            f = measure(ENCODER, painting, features={loss.layer: loss.side})[loss.layer][0]
            mean, square = f.mean((1, 2)), f.square().mean((1, 2))
            assert (loss.target[0, 0] - mean).norm() < 1e-4 * mean.norm()
            assert (loss.target[0, 1] - square).norm() < 1e-4 * square.norm()


def test_a_batch_has_targets_and_areas_of_its_own() -> None:
    one, other = sample_tensor("owl", 96), sample_tensor("kingfisher", 96)
    other = torch.nn.functional.interpolate(other, one.shape[-2:])
    painting = sample_tensor("great_wave", 96)
    weights = torch.linspace(0, 1, one.shape[-1]).expand(1, 1, *one.shape[-2:])
    each = [found([Where([Exemplar(painting)], weights)], image) for image in (one, other)]
    for first, second in zip(*each, strict=True):
        stacked = {"target": torch.cat([first.target, second.target])}
        if isinstance(first, MomentsLoss) and isinstance(second, MomentsLoss):
            assert first.area is not None
            assert second.area is not None
            stacked["area"] = torch.cat([first.area, second.area])
        both: Any = dataclasses.replace(first, **stacked)
        values = Objective(ENCODER, [both])(torch.cat([one, other])).losses
        alone = [Objective(ENCODER, [loss])(x).loss for loss, x in ((first, one), (second, other))]
        assert values == pytest.approx(alone, rel=0.02)  # the floors differ a little


def test_neighbors_are_the_same_every_time() -> None:
    picture, painting = sample_tensor("owl", 96), sample_tensor("night_cafe", 96)
    one, other = (found(painting, picture) for _ in range(2))
    assert all(torch.equal(a.target, b.target) for a, b in zip(one, other, strict=True))


def test_layers_are_those_that_know_strokes() -> None:
    assert matched_layers(ENCODER) == dict.fromkeys(LAYERS, 1.0)


@pytest.mark.parametrize("kind", [TextureSettings, TrainSettings])
def test_without_a_photo_there_are_no_neighbors(kind: type[Any]) -> None:
    with pytest.raises(ImpastoError, match="'neighbors' looks for a place of the painting"):
        kind(style_loss="neighbors")
    with pytest.raises(ImpastoError, match="there is no photo here"):
        neighbors.Neighbors().losses(lambda *_: {}, [], {})
