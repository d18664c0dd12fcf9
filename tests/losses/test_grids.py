"""Grids: what repeats at the same places everywhere, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from impasto.losses.grids import GridLoss
from tests.conftest import sample_tensor


def test_it_is_the_variance_of_the_mean_repetition() -> None:
    image = torch.rand(2, 3, 29, 40, generator=torch.Generator().manual_seed(0))
    loss = GridLoss(4, across=3)(image)
    expected = []
    for picture in image:
        parts = []
        for top in (0, 12):
            for left in (0, 12, 24):
                square = picture[:, top : top + 12, left : left + 12]
                rows = [square[:, n : n + 4] for n in (0, 4, 8)]
                each = [row[..., n : n + 4] for row in rows for n in (0, 4, 8)]
                pattern = torch.stack(each).mean(0)
                parts.append(pattern.flatten(1).var(1, correction=0).mean())
        expected.append(torch.stack(parts).mean())
    assert torch.allclose(loss, torch.stack(expected), atol=1e-7)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_waves_of_the_networks_own_periods_count_wholly(period: int) -> None:
    wave = torch.cos(2 * math.pi * (torch.arange(128) + 0.3) / period).expand(1, 1, 128, 128)
    assert GridLoss(16)(wave).item() == pytest.approx(wave.var(correction=0).item(), rel=1e-3)
    other = torch.cos(2 * math.pi * torch.arange(128) / (period * 1.2)).expand(1, 1, 128, 128)
    assert GridLoss(16)(other).item() < 0.06 * other.var().item()


def test_pictures_have_next_to_no_grid() -> None:
    for name in ("owl", "great_wave"):
        image = sample_tensor(name, 512)
        assert GridLoss(16)(image).item() < 0.02 * image.var().item()
    small = sample_tensor("owl", 100)
    assert GridLoss(16)(small).item() == 0
