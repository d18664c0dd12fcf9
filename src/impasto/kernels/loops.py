"""The compiled kernels, for encoders and Gram matrices.

Pictures are float32 [height, width, channels]; weights and buffers are flat. The vector code treats
all of them as flat: it counts positions in floats from the start of an array. The right-hand matrix
of a product is stored in panels of `PANEL` columns. Each kernel computes a range of its output and
releases the GIL, so that threads can share the work. Channels are multiples of 64, or three.
"""

from __future__ import annotations

import numba
import numpy as np

from impasto.kernels import vectors
from impasto.kernels.vectors import LANES, PANEL, ROWS, multiply

DEPTH = 256
"""Positions that `gram` sums in float32 before it adds the result to sums in float64."""
SKEW = 16
"""Floats between the planes of a buffer, without which they compete for the same cache lines."""
TAPS = 27
"""Values under a 3x3 kernel of three channels."""
TAPS_WIDTH = -(-TAPS // PANEL) * PANEL
"""TAPS rounded up to whole panels."""

_picture, _floats = numba.float32[:, :, ::1], numba.float32[::1]
_doubles, _n, _bool = numba.float64[:, :, ::1], numba.int64, numba.boolean
_how = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_helper = numba.njit(**_how)


def _compiled(*arguments):
    # Cached only if `build` has named a folder: without one numba looks for a folder itself, and
    # fails if it finds none that is writable.
    return numba.njit(numba.void(*arguments), cache=bool(numba.config.CACHE_DIR), **_how)


@_helper
def _cut_out(x, mask, top, left, patch):
    """The 6x6 patch of x at (top, left), zero beyond the border and where x is masked."""
    height, width, channels = x.shape
    for i in range(6):
        for j in range(6):
            target = (6 * i + j) * channels
            if 0 <= top + i < height and 0 <= left + j < width:
                source = ((top + i) * width + left + j) * channels
                for c in range(0, channels, LANES):
                    if mask.size:
                        vectors.put_masked(x, mask, source + c, patch, target + c)
                    else:
                        vectors.put(x, source + c, patch, target + c)
            else:
                patch[target : target + channels] = 0


@_helper
def _tiles_in(x, mask, first, count, v, plane, patch):
    """V of `count` tiles, 36 planes [tiles, channels]: see `vectors.transform_in`."""
    height, width, channels = x.shape
    across, row = (width + 3) // 4, width * channels
    for tile in range(count):
        top, left = (first + tile) // across * 4 - 1, (first + tile) % across * 4 - 1
        place, start = tile * channels, (top * width + left) * channels
        border = top < 0 or left < 0 or top + 6 > height or left + 6 > width
        if border:
            _cut_out(x, mask, top, left, patch)
        for c in range(0, channels, LANES):
            if border:
                vectors.transform_in(patch, c, 6 * channels, channels, v, place + c, plane)
            elif mask.size:
                vectors.transform_masked_in(x, mask, start + c, row, channels, v, place + c, plane)
            else:
                vectors.transform_in(x, start + c, row, channels, v, place + c, plane)


@_helper
def _finish(m, place, plane, bias, channel, rectify, out, start, row, column):
    if rectify:
        vectors.transform_rectified_out(m, place, plane, bias, channel, out, start, row, column)
    elif bias.size:
        vectors.transform_biased_out(m, place, plane, bias, channel, out, start, row, column)
    else:
        vectors.transform_out(m, place, plane, out, start, row, column)


@_helper
def _tiles_out(m, plane, bias, rectify, out, first_channel, first, count, patch):
    """Write PANEL channels of `count` tiles, beginning with `first_channel`."""
    height, width, channels = out.shape
    across, row = (width + 3) // 4, width * channels
    for tile in range(count):
        top, left = (first + tile) // across * 4, (first + tile) % across * 4
        inside = top + 4 <= height and left + 4 <= width
        for c in range(0, PANEL, LANES):
            place, channel = tile * PANEL + c, first_channel + c
            start = (top * width + left) * channels + channel
            if inside:
                _finish(m, place, plane, bias, channel, rectify, out, start, row, channels)
                continue
            _finish(m, place, plane, bias, channel, rectify, patch, 0, 4 * LANES, LANES)
            for i in range(min(4, height - top)):
                for j in range(min(4, width - left)):
                    vectors.put(patch, (4 * i + j) * LANES, out, start + i * row + j * channels)


@_compiled(*[_picture] * 3, *[_floats] * 2, _bool, *[_n] * 5, *[_floats] * 3)
def convolve(
    x, mask, out, weights, bias, rectify, room, first, last, first_panel, last_panel, v, m, patch
):
    """3x3 convolution with zero padding, by Winograd: the 4x4 tiles first ... last - 1.

    weights: G g G^T, [out_channels / PANEL, 36, in_channels, PANEL]; only the panels first_panel
    ... last_panel - 1 are computed. x counts as zero where `mask` is not positive. An empty mask
    masks nothing, an empty bias adds nothing. v, m: buffers for V and M of `room` tiles, a multiple
    of ROWS. patch: a buffer for a tile at a border.
    """
    count, channels = last - first, x.shape[2]
    v_plane, m_plane = room * channels + SKEW, room * PANEL + SKEW
    _tiles_in(x, mask, first, count, v, v_plane, patch)
    for panel in range(first_panel, last_panel):
        for point in range(36):
            for tile in range(0, count, ROWS):
                multiply(
                    v, point * v_plane + tile * channels, channels, 1,
                    weights, (panel * 36 + point) * channels * PANEL, PANEL,
                    m, point * m_plane + tile * PANEL, PANEL, channels,
                )  # fmt: skip
        _tiles_out(m, m_plane, bias, rectify, out, panel * PANEL, first, count, patch)


@_compiled(*[_picture] * 2, *[_floats] * 2, _bool, *[_n] * 2, *[_floats] * 2)
def convolve_colours(x, out, weights, bias, rectify, first, last, taps, products):
    """3x3 convolution of three channels with zero padding: the rows first ... last - 1.

    The values under the kernel are multiplied with weights [out_channels / PANEL, TAPS, PANEL]:
    with three channels Winograd's transforms would cost more than they save. taps, products:
    buffers for ROWS rows of TAPS and of out_channels values.
    """
    height, width, channels = out.shape
    for row in range(first, last):
        for left in range(0, width, ROWS):
            count = min(ROWS, width - left)
            for p in range(count):
                for i in range(3):
                    for j in range(3):
                        r, s = row + i - 1, left + p + j - 1
                        inside = 0 <= r < height and 0 <= s < width
                        for c in range(3):
                            tap = x[r, s, c] if inside else np.float32(0)
                            taps[p * TAPS + (3 * i + j) * 3 + c] = tap
            for panel in range(channels // PANEL):
                multiply(
                    taps, 0, TAPS, 1, weights, panel * TAPS * PANEL, PANEL,
                    products, panel * PANEL, channels, TAPS,
                )  # fmt: skip
            start = (row * width + left) * channels
            for index in range(0, count * channels, LANES):
                if rectify:
                    vectors.put_relu(products, index, bias, index % channels, out, start + index)
                else:
                    vectors.put_sum(products, index, bias, index % channels, out, start + index)


@_compiled(*[_picture] * 3, _floats, *[_n] * 2, *[_floats] * 2)
def convolve_colours_back(gradient, mask, out, weights, first, last, masked, products):
    """The gradient of `convolve_colours` with respect to x: the rows first ... last - 1.

    Each position's gradient times weights [TAPS_WIDTH / PANEL, channels, PANEL] is added to `out`
    at the values under its kernel. `gradient` counts as zero where `mask` is not positive. masked,
    products: buffers for ROWS rows of channels and of TAPS_WIDTH values.
    """
    height, width, channels = gradient.shape
    out[first:last] = 0
    for row in range(max(0, first - 1), min(height, last + 1)):
        for left in range(0, width, ROWS):
            count = min(ROWS, width - left)
            start = (row * width + left) * channels
            for index in range(0, count * channels, LANES):
                if mask.size:
                    vectors.put_masked(gradient, mask, start + index, masked, index)
                else:
                    vectors.put(gradient, start + index, masked, index)
            for panel in range(TAPS_WIDTH // PANEL):
                multiply(
                    masked, 0, channels, 1, weights, panel * channels * PANEL, PANEL,
                    products, panel * PANEL, TAPS_WIDTH, channels,
                )  # fmt: skip
            for p in range(count):
                for i in range(3):
                    r = row + i - 1
                    if first <= r < last:
                        for j in range(3):
                            s = left + p + j - 1
                            if 0 <= s < width:
                                for c in range(3):
                                    tap = (3 * i + j) * 3 + c
                                    out[r, s, c] += products[p * TAPS_WIDTH + tap]


@_compiled(_picture, _doubles, *[_n] * 5, _floats)
def gram(features, sums, strip, first_row, last_row, first, last, products):
    """Add F^T F to `sums[strip]`; the matrix F has a row of features for each position.

    Positions: columns first ... last - 1 of the picture's rows first_row ... last_row - 1. sums:
    [strips, channels, channels], upper triangles only. products: a buffer for one matrix.
    """
    _, width, channels = features.shape
    total = sums[strip]
    for row in range(first_row, last_row):
        for start in range(row * width + first, row * width + last, DEPTH):
            depth = min(DEPTH, row * width + last - start)
            for group in range(0, channels, ROWS):
                i = min(group, channels - ROWS)
                for j in range(i // PANEL * PANEL, channels, PANEL):
                    multiply(
                        features, start * channels + i, 1, channels,
                        features, start * channels + j, channels,
                        products, i * channels + j, channels, depth,
                    )  # fmt: skip
            for i in range(channels):
                for j in range(i, channels):
                    total[i, j] += products[i * channels + j]


@_compiled(_doubles, numba.float32[:, ::1], _n)
def mean_gram(sums, out, positions):
    """The Gram matrix: the sums of all strips, added in their order, divided by `positions`."""
    strips, channels, _ = sums.shape
    for i in range(channels):
        for j in range(i, channels):
            total = 0.0
            for strip in range(strips):
                total += sums[strip, i, j]
            out[i, j] = out[j, i] = total / positions


@_compiled(_picture, _floats, _picture, *[_n] * 4)
def product(a, b, out, first_row, last_row, first, last):
    """Multiply the channels at each position of picture a by the square matrix b.

    Positions as in `gram`, at least ROWS columns. b: [channels / PANEL, channels, PANEL].
    """
    _, width, channels = a.shape
    for row in range(first_row, last_row):
        for group in range(first, last, ROWS):
            start = (row * width + min(group, last - ROWS)) * channels
            for panel in range(channels // PANEL):
                multiply(
                    a, start, channels, 1, b, panel * channels * PANEL, PANEL,
                    out, start + panel * PANEL, channels, channels,
                )  # fmt: skip


@_compiled(*[_picture] * 2, *[_n] * 2)
def average(x, out, first, last):
    """2x2 average pooling: the rows first ... last - 1 of the result."""
    _, width, channels = x.shape
    for i in range(first, last):
        for j in range(width // 2):
            source = (2 * i * width + 2 * j) * channels
            target = (i * (width // 2) + j) * channels
            for c in range(0, channels, LANES):
                vectors.average_four(x, source + c, width * channels, channels, out, target + c)


@_compiled(*[_picture] * 2, *[_n] * 2)
def average_back(gradient, out, first, last):
    """The gradient of `average` with respect to x: the rows first ... last - 1 of x."""
    (down, across, _), (_, width, channels) = gradient.shape, out.shape
    for i in range(first, last):
        for j in range(width):
            if i // 2 < down and j // 2 < across:
                source = (i // 2 * across + j // 2) * channels
                for c in range(0, channels, LANES):
                    vectors.put_quarter(gradient, source + c, out, (i * width + j) * channels + c)
            else:
                out[i, j] = 0


@_compiled(*[_floats] * 2, *[_n] * 2)
def add(total, term, first, last):
    """Add `term` to `total` at the places first ... last - 1, both ends multiples of LANES."""
    for index in range(first, last, LANES):
        vectors.put_sum(total, index, term, index, total, index)
