"""The network in the package: its pictures of the sample photos, measured as the benchmarks do."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from torch import Tensor

from impasto import ContentLoss, Network, StyleLoss, gram, load_encoder, sample_names
from impasto.networks import export
from impasto.networks.tiling import Sweeps
from impasto.pictures import images
from judge import fine, grid, shape
from painted import CONTENT, STYLE, resized

LONGER = 512
Pictures = dict[str, list[Tensor]]


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.load()


@pytest.fixture(scope="module")
def photos() -> list[Tensor]:
    return [resized(name, LONGER) for name in sample_names()["photos"]]


@pytest.fixture(scope="module")
def painted(network: Network, photos: list[Tensor]) -> Pictures:
    """All four photos in each style, rounded to 8 bits as they are saved."""
    return {
        style: [images.to_tensor(images.to_image(network(photo, style))) for photo in photos]
        for style in network.styles
    }


@pytest.mark.parametrize("period", [2, 4, 8])
def test_no_grid_at_the_networks_own_periods(painted: Pictures, period: int) -> None:
    """Its spectrum rises above its neighbourhood by no more than the painting's does."""
    for style, pictures in painted.items():
        assert grid(pictures, period) <= max(1, grid([resized(style, LONGER)], period)), style


@torch.no_grad()
def test_the_look(painted: Pictures, photos: list[Tensor]) -> None:
    """As `benchmarks/one_pass.py` measures it: style, content, fine and shape of all pairs."""
    encoder = load_encoder()
    contents = [ContentLoss(CONTENT, encoder(photo, [CONTENT])[CONTENT]) for photo in photos]
    rows = []
    for style, pictures in painted.items():
        goals = encoder(resized(style, LONGER), STYLE)
        losses = [StyleLoss(layer, gram(goals[layer])) for layer in STYLE]
        for picture, photo, content in zip(pictures, photos, contents, strict=True):
            seen = encoder(picture, [*STYLE, CONTENT])
            mean = statistics.mean(loss(seen[loss.layer]).item() for loss in losses)
            rows.append(
                (mean, content(seen[CONTENT]).item(), fine(picture, photo), shape(picture, photo))
            )
    styles, kept, fines, shapes = zip(*rows, strict=True)
    assert statistics.median(styles) <= 0.12
    assert max(styles) <= 0.18
    assert statistics.median(kept) <= 0.9
    assert statistics.median(fines) <= 0.35
    assert statistics.median(shapes) >= 0.85


def test_no_holes(painted: Pictures) -> None:
    """No pixels that stick at black or white where the photo does not."""
    for style, pictures in painted.items():
        for picture in pictures:
            stuck = ((picture == 0) | (picture == 1)).all(1).float().mean().item()
            assert stuck < 0.01, style


def test_tiles_and_torch_give_the_same(network: Network, photos: list[Tensor]) -> None:
    """With weights that were learned, on a photo whose sides are no multiples of anything."""
    photo, shares = photos[2][..., :333, :507].numpy(), network.shares("great_wave")
    whole = network(photo, "great_wave")
    tiles = Sweeps(network.file, shares, network.sessions.start, most=2e7, tile=64).repaint(
        photo[0]
    )
    assert np.abs(tiles - whole[0]).max() < 1e-3
    assert export.compared(network) < 1e-3
