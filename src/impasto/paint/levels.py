"""Coarse to fine: at which sizes a picture is painted, and what one hands to the next.

Large strokes and structures are cheap to paint where the picture is small; enlarged, they are
there when the details come. Gatys et al. 2016 (arXiv:1611.07865), section 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import notice


@dataclass(frozen=True)
class Pyramid:
    """Which levels there are, where they are not asked for by number, and what steps they get.

    one_scale: a picture whose longer side is below it has one level. smallest: no level's longer
    side is shorter; smallest_half: that of the level at half the final size.
    coarse_shares: what part of all steps the levels before the last make together: where there is
    one, where there are two, and so on. most_coarse: how many steps these are at most.
    """

    one_scale: int
    smallest: int
    smallest_half: int
    coarse_shares: tuple[float, ...]
    most_coarse: float = math.inf


STROKES = Pyramid(128, 128, 64, (1 / 2, 1 / 2, 3 / 4))
"""Of a painting. Smaller levels see all of a painting at once, and paint its things instead of its
strokes. Where there are many, each needs its steps: what it leaves a photo stays one.
"""

GROWTH = Pyramid(384, 64, 64, (1 / 3,), 60)
"""Of a texture, which the coarse levels only make sooner."""


@dataclass(frozen=True)
class Level:
    """One size at which a picture is painted: `size` (width, height), for `steps` at most.

    cost: of a step, relative to one at the final size.
    """

    size: tuple[int, int]
    steps: int
    cost: float


def plan_levels(
    size: tuple[int, int],
    steps: int,
    count: int | None,
    possible: Callable[[tuple[int, int]], bool],
    pyramid: Pyramid = STROKES,
) -> list[Level]:
    """The levels of a picture of (width, height), from the coarsest to its own size.

    Each has half the size of the next, as far as that is `possible`; `count` of them, or as many
    as the size calls for. Where not so many are possible, an `ImpastoNotice` says so.
    """
    if count is None and max(size) < pyramid.one_scale:
        count = 1
    sizes = [size]
    while len(sizes) < (count or 16):
        scale = 2 ** len(sizes)
        half = max(1, round(size[0] / scale)), max(1, round(size[1] / scale))
        least = pyramid.smallest if len(sizes) > 1 else pyramid.smallest_half
        if half == sizes[0] or not possible(half) or (count is None and max(half) < least):
            break
        sizes.insert(0, half)
    if len(sizes) < (count or 0):
        notice(
            f"{size[0]} x {size[1]} pixels are too few for {count} levels with these layers; "
            f"{len(sizes)} {'is' if len(sizes) == 1 else 'are'} used"
        )
    shares = share_out(steps, len(sizes), pyramid)
    return [
        Level(own, share, own[0] * own[1] / (size[0] * size[1]))
        for own, share in zip(sizes, shares, strict=True)
        if share or own == size
    ]


def share_out(total: int, count: int, pyramid: Pyramid = STROKES) -> list[int]:
    """`total` steps or evaluations for `count` levels."""
    if count == 1:
        return [total]
    share = pyramid.coarse_shares[: count - 1][-1]
    together = min(total * share, pyramid.most_coarse)
    coarse = [int(together / (count - 1))] * (count - 1)
    return [*coarse, total - sum(coarse)]


def refine(painted: Tensor, coarse: Tensor, fine: Tensor, detail: float | Tensor = 0.0) -> Tensor:
    """What a level starts from: what was painted, enlarged, with some of the photo's finer detail.

    painted, coarse: the picture and the photo at the level before; fine: the photo at this level;
    all [1, C, height, width]. What enlarging the coarse photo lacks of the fine one is added,
    times `detail`, a number or one for every pixel [1, 1, height, width].
    """
    start = enlarged(painted, fine.shape[-2:])
    if not isinstance(detail, Tensor) and not detail:
        return start
    # Written so that the photo itself becomes the photo, to the last bit.
    detailed = fine + (start - enlarged(coarse, fine.shape[-2:]))
    return ((1 - detail) * start + detail * detailed).clamp(0, 1)


def enlarged(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image [1, C, height, width] at another (height, width), bicubic."""
    with torch.no_grad():
        larger = F.interpolate(image, list(size), mode="bicubic", align_corners=False)
        return larger.clamp(0, 1)
