"""Coarse to fine: which sizes, how many steps, and what is handed on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from impasto.levels import ONE_SCALE, SMALLEST, enlarged, plan_levels, refine, share_out


def always(_: tuple[int, int]) -> bool:
    return True


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 500))
def test_levels_lead_to_the_size_and_share_the_steps(width: int, height: int, steps: int) -> None:
    levels = plan_levels((width, height), steps, None, always)
    assert levels[-1].size == (width, height)
    assert levels[-1].cost == 1
    assert sum(level.steps for level in levels) == steps
    sizes = [max(level.size) for level in levels]
    assert sizes == sorted(sizes)
    assert all(size >= SMALLEST for size in sizes[:-1])


def test_small_pictures_have_one_level() -> None:
    assert len(plan_levels((ONE_SCALE - 1, 100), 100, None, always)) == 1
    assert len(plan_levels((ONE_SCALE, 100), 100, None, always)) > 1
    assert len(plan_levels((2048, 2048), 100, 1, always)) == 1


def test_a_level_too_small_for_the_layers_is_left_out() -> None:
    levels = plan_levels((2048, 40), 100, None, lambda size: min(size) >= 16)
    assert [level.size for level in levels] == [(1024, 20), (2048, 40)]


@given(st.integers(0, 1000), st.integers(1, 6))
def test_shares_add_up(total: int, count: int) -> None:
    shares = share_out(total, count)
    assert len(shares) == count
    assert sum(shares) == total
    assert min(shares) >= 0


def test_the_photo_itself_is_refined_to_the_photo(photo: Tensor) -> None:
    coarse = enlarged(photo, (18, 32))
    assert torch.allclose(refine(coarse, coarse, photo), photo, atol=1e-6)


def test_what_was_painted_is_kept(photo: Tensor) -> None:
    coarse = enlarged(photo, (18, 32))
    reddened = coarse.clone()
    reddened[:, 0] = (reddened[:, 0] + 0.2).clamp(0, 1)
    change = (refine(reddened, coarse, photo) - photo).mean((-2, -1))[0]
    assert change[0] > 0.02
    assert change[1:].abs().max() == pytest.approx(0, abs=1e-3)
