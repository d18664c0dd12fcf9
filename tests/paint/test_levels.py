"""Coarse to fine: which sizes, how many steps, and what is handed on."""

from __future__ import annotations

import torch
from hypothesis import given, strategies as st
from torch import Tensor

from impasto.paint.levels import GROWTH, STROKES, enlarged, plan_levels, refine, share_out


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
    assert all(size >= STROKES.smallest for size in sizes[:-2])
    assert all(size >= STROKES.smallest_half for size in sizes[:-1])


def test_small_pictures_have_few_levels() -> None:
    def sizes(longer: int, count: int | None = None) -> list[int]:
        return [max(level.size) for level in plan_levels((longer, 100), 100, count, always)]

    assert sizes(120) == [120]
    assert sizes(200) == [100, 200]
    assert sizes(512) == [128, 256, 512]
    assert sizes(2048, 1) == [2048]


def test_half_of_the_steps_are_made_on_coarse_levels_and_more_where_there_are_many() -> None:
    def steps(longer: int) -> list[int]:
        return [level.steps for level in plan_levels((longer, longer), 150, None, always)]

    assert steps(256) == [75, 75]
    assert steps(512) == [37, 37, 76]
    assert steps(1024) == [37, 37, 37, 39]
    assert steps(2048) == [28, 28, 28, 28, 38]


def test_textures_have_levels_of_their_own() -> None:
    levels = plan_levels((512, 512), 150, None, always, GROWTH)
    assert [(level.size[0], level.steps) for level in levels] == [
        *((64 * 2**n, 16) for n in range(3)),
        (512, 102),
    ]
    assert len(plan_levels((383, 383), 150, None, always, GROWTH)) == 1


def test_a_level_too_small_for_the_layers_is_left_out() -> None:
    levels = plan_levels((2048, 40), 100, None, lambda size: min(size) >= 16)
    assert [level.size for level in levels] == [(1024, 20), (2048, 40)]


@given(st.integers(0, 1000), st.integers(1, 6))
def test_shares_add_up(total: int, count: int) -> None:
    shares = share_out(total, count)
    assert len(shares) == count
    assert sum(shares) == total
    assert min(shares) >= 0


def test_nothing_of_the_photo_is_handed_on(photo: Tensor) -> None:
    coarse = enlarged(photo, (18, 32))
    painted = 1 - coarse
    size = photo.shape[-2], photo.shape[-1]
    assert torch.equal(refine(painted, coarse, photo), enlarged(painted, size))


def test_with_all_of_its_detail_the_photo_is_refined_to_the_photo(photo: Tensor) -> None:
    coarse = enlarged(photo, (18, 32))
    assert torch.equal(refine(coarse, coarse, photo, 1.0), photo)


def test_detail_can_differ_from_place_to_place(photo: Tensor) -> None:
    coarse = enlarged(photo, (18, 32))
    detail = torch.zeros_like(photo[:, :1])
    detail[..., :20] = 1
    start = refine(coarse, coarse, photo, detail)
    assert torch.allclose(start[..., :20], photo[..., :20], atol=1e-6)
    assert torch.equal(start[..., 20:], refine(coarse, coarse, photo)[..., 20:])
