"""Coarse to fine: the sizes at which a picture is painted, and how each starts from the last.

Large strokes and structures are cheap to paint in a small picture. Enlarged, they are already
there when the details are painted. Gatys et al. 2017 (arXiv:1611.07865), section 6.
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
    """How many levels a picture has, if the user gives no number, and how many steps each gets.

    one_scale: a picture whose longer side is below this has one level. smallest: the shortest
    longer side that a level may have; smallest_half: the same for the level at half the final
    size. coarse_shares: the part of all steps that the levels before the last get together, if
    there is one, if there are two, and so on; the last value is for more, too. most_coarse: the
    most steps that they get together.
    """

    one_scale: int
    smallest: int
    smallest_half: int
    coarse_shares: tuple[float, ...]
    most_coarse: float = math.inf


STROKES = Pyramid(128, 128, 64, (1 / 2, 1 / 2, 3 / 4))
"""For paintings. Levels smaller than these see all of a painting at once, and paint its things
instead of its strokes. With many levels each needs enough steps: later levels do not repaint what
an early one leaves photographic.
"""

PLACES = Pyramid(128, 64, 64, (1 / 2,))
"""For paintings by neighbours: the coarsest level decides where the painting's colours go."""

GROWTH = Pyramid(384, 64, 64, (1 / 3,), 60)
"""For textures, for which coarse levels only save time."""


@dataclass(frozen=True)
class Level:
    """A size (width, height), the most steps to make there, and a step's cost (1: at full size).

    split: its layers have neighbours of their own, see `losses.neighbors`.
    """

    size: tuple[int, int]
    steps: int
    cost: float
    split: bool = False


def plan_levels(
    size: tuple[int, int],
    steps: int,
    count: int | None,
    possible: Callable[[tuple[int, int]], bool],
    pyramid: Pyramid = STROKES,
) -> list[Level]:
    """The levels for a picture of (width, height), from the coarsest to its own size.

    Each has half the size of the next, and is left out if it gets no step. There are `count`
    levels (None: as many as suit the size). If fewer are `possible`, an `ImpastoNotice` says so.
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
    """Divide `total` steps or evaluations among `count` levels."""
    if count == 1:
        return [total]
    share = pyramid.coarse_shares[: count - 1][-1]
    together = min(total * share, pyramid.most_coarse)
    coarse = [int(together / (count - 1))] * (count - 1)
    return [*coarse, total - sum(coarse)]


def refine(painted: Tensor, coarse: Tensor, fine: Tensor, detail: float | Tensor = 0.0) -> Tensor:
    """The start of a level: the painted picture, enlarged, with some of the photo's finer detail.

    painted, coarse: the picture and the photo at the level before. fine: the photo at this level.
    All are [1, C, height, width]. The detail is the fine photo minus the enlarged coarse photo. It
    is multiplied by `detail`: one number, or one for each pixel [1, 1, height, width].
    """
    start = enlarged(painted, fine.shape[-2:])
    if not isinstance(detail, Tensor) and not detail:
        return start
    # With `detail` 1, this order of terms turns the coarse photo into exactly the fine photo.
    detailed = fine + (start - enlarged(coarse, fine.shape[-2:]))
    return ((1 - detail) * start + detail * detailed).clamp(0, 1)


def enlarged(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image [1, C, height, width] resized to another (height, width), bicubic."""
    with torch.no_grad():
        larger = F.interpolate(image, list(size), mode="bicubic", align_corners=False)
        return larger.clamp(0, 1)
