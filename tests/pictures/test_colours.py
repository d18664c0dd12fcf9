"""Colours kept, by the definitions of Gatys et al. 2016."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto.pictures.colours import (
    luminance,
    match_colours,
    match_luminance,
    moments,
    with_luminance,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_colours_kept_with_another_luminance() -> None:
    image, grey = random(1, 3, 32, 32), random(1, 1, 32, 32, seed=1)
    result = with_luminance(image, grey)
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6
    assert torch.allclose(luminance(result), grey, atol=1e-5)
    same = with_luminance(image, luminance(image))
    assert torch.allclose(same, image, atol=1e-5)
    hue = image - luminance(image)
    new = result - grey
    assert torch.allclose(
        hue * new.norm(dim=1, keepdim=True), new * hue.norm(dim=1, keepdim=True), atol=1e-4
    )


def test_luminance_matching() -> None:
    painting, photo = 0.2 + 0.1 * random(1, 1, 40, 40), 0.4 + 0.2 * random(1, 1, 30, 50)
    matched = match_luminance(painting, photo)
    assert matched.mean().item() == pytest.approx(photo.mean().item(), abs=1e-5)
    assert matched.std().item() == pytest.approx(photo.std().item(), rel=1e-3)
    flat = match_luminance(torch.full((1, 1, 4, 4), 0.5), photo)
    assert torch.isfinite(flat).all()


def test_what_does_not_count_does_not_matter() -> None:
    """The pixels of weight 0, on either side, may be of any colour."""
    image, goal = 0.3 + 0.4 * random(1, 3, 20, 30), 0.3 + 0.2 * random(1, 3, 10, 40, seed=1)
    shown, counts = torch.ones(1, 1, 20, 30), torch.ones(1, 1, 10, 40)
    shown[..., :9] = counts[..., 30:] = 0
    matched = match_colours(image, goal, counts, shown)
    other = match_colours(image, torch.where(counts > 0, goal, 1), counts, shown)
    assert torch.allclose(matched, other)
    for own, wanted in zip(moments(matched[..., 9:]), moments(goal[..., :30]), strict=True):
        assert torch.allclose(own, wanted, atol=1e-5)


def test_each_picture_of_a_batch_is_matched_by_itself() -> None:
    images, goals = random(2, 3, 20, 30), 0.3 + random(2, 3, 10, 40, seed=1) / 2
    images[1] **= 2
    both = match_colours(images, goals)
    grey = match_luminance(luminance(images), luminance(goals))
    for n in range(2):
        image, goal = images[n : n + 1], goals[n : n + 1]
        assert torch.allclose(both[n : n + 1], match_colours(image, goal), atol=1e-6)
        alone = match_luminance(luminance(image), luminance(goal))
        assert torch.allclose(grey[n : n + 1], alone, atol=1e-6)
