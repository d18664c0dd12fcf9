"""The compiled kernels: what the encoder and the Gram matrix need, for one thread at a time.

All arrays are flat float32. Activations lie channels last: value (row, column, channel) of an
[height, width, channels] array is at (row * width + column) * channels + channel. Matrices that are
multiplied with lie in panels of `PANEL` columns, see `PANEL`. Each kernel works on a range of its
output and releases the GIL, so that `compiled` can share the work out among threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from impasto.kernels.vectors import (
    LANES,
    PANEL,
    ROWS,
    add_to,
    average_four,
    multiply,
    put_biased,
    put_masked,
    put_quarter,
    put_rectified,
    transform_biased_output,
    transform_input,
    transform_masked_input,
    transform_output,
    transform_rectified_output,
)

DEPTH = 256
"""Positions that `gram` sums in float32 before it adds them up in float64."""
SKEW = 16
"""Floats between the planes of a buffer: else they would compete for the same lines of cache."""
TAPS = 27
"""Values under a 3x3 kernel of three channels."""
TAPS_WIDTH = -(-TAPS // PANEL) * PANEL
"""TAPS rounded up to whole panels."""

PLAIN, BIASED, RECTIFIED = 0, 1, 2
"""How `convolve` finishes: nothing added, the bias, or the bias and a ReLU."""

_floats, _doubles, _n = numba.float32[::1], numba.float64[::1], numba.int64


def _compiled(*arguments: Any) -> Any:
    # Kept only where `compiled` has named a folder: without one numba looks for another by itself,
    # and gives up where nothing can be written.
    return numba.njit(
        numba.void(*arguments),
        nogil=True,
        cache=bool(numba.config.CACHE_DIR),
        error_model="numpy",
        boundscheck=False,
    )


_helper = numba.njit(nogil=True, error_model="numpy", boundscheck=False)


@_helper
def _cut_out(
    x: Any, mask: Any, height: int, width: int, channels: int, top: int, left: int, patch: Any
) -> None:
    """The 6x6 patch at (top, left), zero where it reaches over the border or x is masked."""
    for i in range(6):
        for j in range(6):
            target = (6 * i + j) * channels
            if 0 <= top + i < height and 0 <= left + j < width:
                source = ((top + i) * width + left + j) * channels
                for c in range(channels):
                    if mask.size and not mask[source + c] > 0:
                        patch[target + c] = 0
                    else:
                        patch[target + c] = x[source + c]
            else:
                for c in range(channels):
                    patch[target + c] = 0


@_helper
def _transform_in(
    x: Any,
    mask: Any,
    height: int,
    width: int,
    channels: int,
    first: int,
    count: int,
    capacity: int,
    v: Any,
    patch: Any,
) -> None:
    """V [36, capacity, channels] of `count` tiles."""
    across = (width + 3) // 4
    plane = capacity * channels + SKEW
    row = width * channels
    for tile in range(count):
        top, left = (first + tile) // across * 4 - 1, (first + tile) % across * 4 - 1
        place, start = tile * channels, (top * width + left) * channels
        if not (top >= 0 and left >= 0 and top + 6 <= height and left + 6 <= width):
            _cut_out(x, mask, height, width, channels, top, left, patch)
            for c in range(0, channels, LANES):
                transform_input(patch, c, 6 * channels, channels, v, place + c, plane)
        elif mask.size:
            for c in range(0, channels, LANES):
                transform_masked_input(x, mask, start + c, row, channels, v, place + c, plane)
        else:
            for c in range(0, channels, LANES):
                transform_input(x, start + c, row, channels, v, place + c, plane)


@_helper
def _multiply_points(
    v: Any,
    weights: Any,
    in_channels: int,
    panel: int,
    count: int,
    capacity: int,
    m: Any,
) -> None:
    """M [36, capacity, PANEL] = V times one panel of the weights, at each of the 36 points."""
    for point in range(36):
        start = (panel * 36 + point) * in_channels * PANEL
        v_plane, m_plane = capacity * in_channels + SKEW, capacity * PANEL + SKEW
        for tile in range(0, count, ROWS):
            multiply(
                v, point * v_plane + tile * in_channels, in_channels, 1,
                weights, start, PANEL,
                m, point * m_plane + tile * PANEL, PANEL,
                in_channels,
            )  # fmt: skip


@_helper
def _finish(
    m: Any,
    place: int,
    plane: int,
    bias: Any,
    channel: int,
    out: Any,
    start: int,
    row: int,
    column: int,
    finish: int,
) -> None:
    """One 4x4 patch of LANES channels."""
    if finish == RECTIFIED:
        transform_rectified_output(m, place, plane, bias, channel, out, start, row, column)
    elif finish == BIASED:
        transform_biased_output(m, place, plane, bias, channel, out, start, row, column)
    else:
        transform_output(m, place, plane, out, start, row, column)


@_helper
def _transform_out(
    m: Any,
    bias: Any,
    out: Any,
    height: int,
    width: int,
    channels: int,
    first: int,
    count: int,
    capacity: int,
    first_channel: int,
    finish: int,
    patch: Any,
) -> None:
    """The PANEL channels from `first_channel` on of `count` tiles."""
    across = (width + 3) // 4
    plane = capacity * PANEL + SKEW
    row = width * channels
    for tile in range(count):
        top, left = (first + tile) // across * 4, (first + tile) % across * 4
        inside = top + 4 <= height and left + 4 <= width
        for c in range(0, PANEL, LANES):
            place, channel = tile * PANEL + c, first_channel + c
            start = (top * width + left) * channels + channel
            if inside:
                _finish(m, place, plane, bias, channel, out, start, row, channels, finish)
                continue
            _finish(m, place, plane, bias, channel, patch, 0, 4 * LANES, LANES, finish)
            for i in range(min(4, height - top)):
                for j in range(min(4, width - left)):
                    for lane in range(LANES):
                        value = patch[(4 * i + j) * LANES + lane]
                        out[start + i * row + j * channels + lane] = value


@_compiled(*[_floats] * 5, *[_n] * 10, *[_floats] * 3)
def convolve(
    x: Any,
    mask: Any,
    weights: Any,
    bias: Any,
    out: Any,
    height: int,
    width: int,
    in_channels: int,
    out_channels: int,
    first: int,
    count: int,
    capacity: int,
    first_panel: int,
    last_panel: int,
    finish: int,
    v: Any,
    m: Any,
    patch: Any,
) -> None:
    """3x3 convolution with zero padding of `count` tiles of 4x4, from tile `first` on.

    weights: G g G^T, [out_channels / PANEL, 36, in_channels, PANEL]; only the panels from
    `first_panel` to before `last_panel` are computed. x counts as zero where `mask` is not
    positive; an empty mask masks nothing. v, m, patch: buffers for V and M of `capacity` tiles, a
    multiple of ROWS, and for a tile at a border.
    """
    _transform_in(x, mask, height, width, in_channels, first, count, capacity, v, patch)
    for panel in range(first_panel, last_panel):
        _multiply_points(v, weights, in_channels, panel, count, capacity, m)
        _transform_out(
            m, bias, out, height, width, out_channels, first, count, capacity,
            panel * PANEL, finish, patch,
        )  # fmt: skip


@_compiled(*[_floats] * 4, *[_n] * 6, *[_floats] * 2)
def convolve_colours(
    x: Any,
    weights: Any,
    bias: Any,
    out: Any,
    height: int,
    width: int,
    out_channels: int,
    first: int,
    last: int,
    rectified: int,
    taps: Any,
    products: Any,
) -> None:
    """3x3 convolution of three channels with zero padding: rows `first` to before `last`.

    As a product of what lies under the kernel with weights [out_channels / PANEL, TAPS, PANEL]:
    with so few channels Winograd's transforms would cost more than they save. taps, products:
    buffers for ROWS rows of TAPS and of out_channels values.
    """
    for row in range(first, last):
        for left in range(0, width, ROWS):
            count = min(ROWS, width - left)
            for p in range(count):
                for i in range(3):
                    for j in range(3):
                        r, s = row + i - 1, left + p + j - 1
                        for c in range(3):
                            value = np.float32(0)
                            if 0 <= r < height and 0 <= s < width:
                                value = x[(r * width + s) * 3 + c]
                            taps[p * TAPS + (3 * i + j) * 3 + c] = value
            for panel in range(out_channels // PANEL):
                multiply(
                    taps,
                    0,
                    TAPS,
                    1,
                    weights,
                    panel * TAPS * PANEL,
                    PANEL,
                    products,
                    panel * PANEL,
                    out_channels,
                    TAPS,
                )
            start = (row * width + left) * out_channels
            for index in range(0, count * out_channels, LANES):
                channel = index % out_channels
                if rectified:
                    put_rectified(products, index, bias, channel, out, start + index)
                else:
                    put_biased(products, index, bias, channel, out, start + index)


@_compiled(*[_floats] * 4, *[_n] * 5, *[_floats] * 2)
def convolve_colours_back(
    gradient: Any,
    mask: Any,
    weights: Any,
    out: Any,
    height: int,
    width: int,
    channels: int,
    first: int,
    last: int,
    masked: Any,
    products: Any,
) -> None:
    """The gradient of `convolve_colours` with respect to x: rows `first` to before `last`.

    Each position's gradient times weights [TAPS_WIDTH / PANEL, channels, PANEL] gives what it
    adds to the values under the kernel. mask as in `convolve`. masked, products: buffers for ROWS
    rows of channels and of TAPS_WIDTH values.
    """
    for index in range(first * width * 3, last * width * 3):
        out[index] = 0
    for row in range(max(0, first - 1), min(height, last + 1)):
        for left in range(0, width, ROWS):
            count = min(ROWS, width - left)
            start = (row * width + left) * channels
            if mask.size:
                for index in range(0, count * channels, LANES):
                    put_masked(gradient, mask, start + index, masked, index)
            else:
                masked[: count * channels] = gradient[start : start + count * channels]
            for panel in range(TAPS_WIDTH // PANEL):
                multiply(
                    masked,
                    0,
                    channels,
                    1,
                    weights,
                    panel * channels * PANEL,
                    PANEL,
                    products,
                    panel * PANEL,
                    TAPS_WIDTH,
                    channels,
                )
            for p in range(count):
                for i in range(3):
                    r = row + i - 1
                    if first <= r < last:
                        for j in range(3):
                            s = left + p + j - 1
                            if 0 <= s < width:
                                for c in range(3):
                                    tap = (3 * i + j) * 3 + c
                                    out[(r * width + s) * 3 + c] += products[p * TAPS_WIDTH + tap]


@_compiled(_floats, _doubles, _floats, *[_n] * 6)
def gram(
    features: Any,
    sums: Any,
    products: Any,
    channels: int,
    width: int,
    first_row: int,
    last_row: int,
    first: int,
    last: int,
) -> None:
    """Add F^T F to `sums`, over the columns `first` to before `last` of some rows of F.

    F: [rows, width, channels]. sums: [channels, channels], of which the part above the diagonal is
    right. products: a buffer of the same size.
    """
    for row in range(first_row, last_row):
        for start in range(row * width + first, row * width + last, DEPTH):
            depth = min(DEPTH, row * width + last - start)
            for group in range(0, channels, ROWS):
                i = min(group, channels - ROWS)
                for j in range(i // PANEL * PANEL, channels, PANEL):
                    multiply(
                        features, start * channels + i, 1, channels,
                        features, start * channels + j, channels,
                        products, i * channels + j, channels,
                        depth,
                    )  # fmt: skip
            for i in range(channels):
                for j in range(i, channels):
                    sums[i * channels + j] += products[i * channels + j]


@_compiled(_doubles, _floats, *[_n] * 3)
def mean_gram(sums: Any, out: Any, strips: int, channels: int, positions: int) -> None:
    """The Gram matrix from the sums of several strips, in their order."""
    for i in range(channels):
        for j in range(i, channels):
            total = 0.0
            for strip in range(strips):
                total += sums[(strip * channels + i) * channels + j]
            out[i * channels + j] = out[j * channels + i] = total / positions


@_compiled(*[_floats] * 3, *[_n] * 6)
def product(
    a: Any,
    b: Any,
    out: Any,
    channels: int,
    width: int,
    first_row: int,
    last_row: int,
    first: int,
    last: int,
) -> None:
    """A B for the columns `first` to before `last`, at least ROWS of them, of some rows of A.

    A, out: [rows, width, channels]. B: square, [channels / PANEL, channels, PANEL].
    """
    for row in range(first_row, last_row):
        for group in range(first, last, ROWS):
            start = (row * width + min(group, last - ROWS)) * channels
            for panel in range(channels // PANEL):
                multiply(
                    a, start, channels, 1,
                    b, panel * channels * PANEL, PANEL,
                    out, start + panel * PANEL, channels,
                    channels,
                )  # fmt: skip


@_compiled(*[_floats] * 2, *[_n] * 4)
def average(x: Any, out: Any, width: int, channels: int, first: int, last: int) -> None:
    """2x2 average pooling: rows `first` to before `last` of the result."""
    half = width // 2
    row = width * channels
    for i in range(first, last):
        for j in range(half):
            target = (i * half + j) * channels
            source = (2 * i * width + 2 * j) * channels
            for c in range(0, channels, LANES):
                average_four(x, source + c, row, channels, out, target + c)


@_compiled(*[_floats] * 2, *[_n] * 5)
def average_back(
    gradient: Any, out: Any, height: int, width: int, channels: int, first: int, last: int
) -> None:
    """The gradient of `average` with respect to x: rows `first` to before `last` of x."""
    half = width // 2
    for i in range(first, last):
        for j in range(width):
            target = (i * width + j) * channels
            if i // 2 < height // 2 and j // 2 < half:
                source = (i // 2 * half + j // 2) * channels
                for c in range(0, channels, LANES):
                    put_quarter(gradient, source + c, out, target + c)
            else:
                for c in range(channels):
                    out[target + c] = 0


@_compiled(*[_floats] * 2, *[_n] * 2)
def add(total: Any, term: Any, first: int, last: int) -> None:
    """Add `term` to `total` from `first` to before `last`, whole vectors."""
    for index in range(first, last, LANES):
        add_to(total, term, index)
