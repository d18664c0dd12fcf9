"""The nearest of many vectors, on grids of any size.

Vectors have length 1, so the nearest is the one with the largest cosine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

PAIRS = 5 * 2**27
"""The most pairs that are compared; a picture and a painting of 600 pixels have half as many."""

_BLOCK = 2**23  # pairs compared at once: 32 MB of cosines
_AT_ONCE = 2**14
_ROUNDS = 20


def nearest(queries: Tensor, keys: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest key of each query, equation (1): cosines [n] and indices [n].

    queries [n, directions] and keys [m, directions], both of length 1; where `hidden` [m] is true,
    a key is not found. Compares all pairs, in blocks of bounded memory.
    """
    if hidden is not None:
        shown = hidden.logical_not().nonzero()[:, 0]
        cosines, index = nearest(queries, keys[shown])
        return cosines, shown[index]
    rows = min(len(queries), max(1, _BLOCK // len(keys)))
    # All blocks in the same memory: fresh memory for each would lie in pieces afterwards.
    buffer = queries.new_empty(rows, len(keys))
    cosines = queries.new_empty(len(queries))
    index = torch.empty(len(queries), dtype=torch.long, device=queries.device)
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        all_pairs = torch.mm(queries[block], keys.T, out=buffer[: len(queries[block])])
        torch.max(all_pairs, 1, out=(cosines[block], index[block]))
    return cosines, index


def nearest_on_grid(
    queries: Tensor, keys: Tensor, hidden: Tensor | None = None, most: int = PAIRS
) -> tuple[Tensor, Tensor]:
    """`nearest` for queries [rows, columns, directions] and keys [rows, columns, directions].

    Returns cosines and flat indices of keys, [rows, columns]. If there are more than `most` pairs,
    first only every second (fourth, ...) query of each row and column is compared, and if there are
    still too many, only every second key, and so on. Each query between them then tries the keys
    that lie as those of its four neighbours do, and the keys around these (as in Ashikhmin 2001,
    "Synthesizing natural textures").
    """
    step, apart = 1, 1  # of queries and of keys
    while queries[::step, ::step, 0].numel() * keys[::apart, ::apart, 0].numel() > most:
        step, apart = (2 * step, apart) if step == apart else (step, step)
    while hidden is not None and hidden[::apart, ::apart].all():
        apart //= 2
    few, some = queries[::step, ::step], keys[::apart, ::apart]
    hidden_some = None if hidden is None else hidden[::apart, ::apart].flatten()
    cosines, index = nearest(few.flatten(0, 1), some.flatten(0, 1), hidden_some)
    at = torch.stack([index // some.shape[1], index % some.shape[1]]) * apart
    at, cosines = at.view(2, *few.shape[:2]), cosines.view(few.shape[:2])
    while step > 1:
        step //= 2
        cosines, at = _refined(queries[::step, ::step], keys, at, step, hidden)
    return cosines, at[0] * keys.shape[1] + at[1]


def _refined(
    queries: Tensor, keys: Tensor, at: Tensor, step: int, hidden: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cosines, and places of keys [2, rows, columns], for queries on a grid twice as fine as `at`.

    step: the grid's, in keys.
    """
    size = queries.shape[:2]
    last = torch.tensor(keys.shape[:2], device=at.device)[:, None] - 1
    flat, wanted = keys.flatten(0, 1), queries.flatten(0, 1)
    ij = torch.stack(
        torch.meshgrid(*(torch.arange(n, device=at.device) for n in size), indexing="ij")
    ).flatten(1)
    ends = torch.tensor(at.shape[1:], device=at.device)[:, None] - 1
    best = torch.full_like(wanted[:, 0], -torch.inf)
    found = torch.zeros_like(ij)
    for corner in itertools.product((0, 1), repeat=2):
        parent = (ij // 2 + torch.tensor(corner, device=at.device)[:, None]).minimum(ends)
        centre = at[:, parent[0], parent[1]] + step * (ij - 2 * parent)
        for shift in itertools.product((-step, 0, step), repeat=2):
            tried = centre + torch.tensor(shift, device=at.device)[:, None]
            tried = tried.clamp_min(0).minimum(last)
            index = tried[0] * keys.shape[1] + tried[1]
            cosines = torch.cat(
                [
                    torch.linalg.vecdot(some, flat[where])
                    for some, where in zip(
                        torch.split(wanted, _AT_ONCE), torch.split(index, _AT_ONCE), strict=True
                    )
                ]
            )
            if hidden is not None:
                cosines.masked_fill_(hidden.flatten()[index], -torch.inf)
            better = cosines > best
            best, found = cosines.where(better, best), tried.where(better, found)
    return best.view(size), found.view(2, *size)


def divided(likeness: Tensor, shares: Sequence[float], counts: Tensor) -> Tensor:
    """Which painting each place takes its neighbour from, so that each gets its share of places.

    likeness: the cosine to the nearest place of each painting, [paintings, rows, columns]. A place
    goes to the painting that is nearest, after a number for each painting is added to the cosines:
    just so much that it gets its share of the places that `counts` (true or false). Where several
    are equally near, the first gets the place.
    """
    which = torch.zeros_like(counts, dtype=torch.long)
    if len(likeness) == 1 or not counts.any():
        return which
    cosines = likeness[:, counts].cpu().double()
    added = torch.zeros(len(cosines), 1, dtype=torch.float64, device="cpu")
    for _, number in itertools.product(range(_ROUNDS), range(len(cosines))):
        raised = cosines + added
        raised[number] = -torch.inf
        lead = (raised.amax(0) - cosines[number]).sort().values
        added[number] = lead[min(len(lead) - 1, round(shares[number] * len(lead)))]
    which[counts] = (cosines + added).argmax(0).to(which)
    return which
