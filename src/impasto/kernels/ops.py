"""The compiled path for CPUs: convolutions, pooling and Gram matrices as torch functions.

Encoders and losses use it for float32 tensors on a CPU, of any batch size (`suits`). A kernel call
works on one picture and writes to its place in the batch's result, so every picture of a batch
gets, to the bit, the result that it would get alone. The work is shared among as many threads as
torch uses; the results do not depend on their number.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from impasto.device import ordinary
from impasto.kernels import build, sharing
from impasto.kernels.build import SWITCH as SWITCH, Status as Status, kernels
from impasto.kernels.sharing import Floats, clear as clear, empty, ranges, run, values

GRID = 4
"""Side, in positions, of the square tiles that a convolution is computed in."""
STRIPS = 8
"""The most parts that a sum over positions is split into, whatever the number of threads."""
TILES = 72
"""The most tiles that a call of the convolution kernel works on: its buffers stay in cache."""


def suits(x: Tensor) -> bool:
    """Whether the kernels can compute with x: float32, [batch, C, height, width], on a CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 4 and status().ready


@functools.cache
@ordinary()
def status() -> Status:
    """Load the kernels, compiling them first unless an earlier run has; returns how that went."""
    return build.load(_verify)


def _verify() -> None:
    random = torch.Generator("cpu").manual_seed(0)
    weight, bias, x = (
        torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")
        for shape in ((64, 64, 3, 3), 64, (1, 64, 11, 14))
    )
    weight /= 24
    y = Convolution(lambda: (weight, bias)).forward(x, rectify=True)
    if not torch.allclose(y, F.conv2d(x, weight, bias, padding=1).relu(), atol=1e-4):
        raise ArithmeticError("they fail their test")


def torch_on_one_thread() -> contextlib.AbstractContextManager[None]:
    """Leave the cores to the kernels if they are in use; see `sharing.torch_on_one_thread`."""
    return sharing.torch_on_one_thread() if status().ready else contextlib.nullcontext()


class Convolution:
    """A 3x3 convolution of padding 1, with or without the ReLU after it, on the compiled kernels.

    The weights are prepared for each direction (forward, backward) when it is first needed. For
    both they take 8 times the memory of the weights themselves, which are not kept: 36 values for
    every 9, twice. Threads can share an object.

    Args:
        read: returns weight [out, in, 3, 3] and bias [out], float32 on the CPU; `in` is 3 or, like
            `out`, a multiple of 64. Called only when weights are prepared.
    """

    def __init__(self, read: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self._read = read
        self._prepared: dict[Callable[[Tensor], Floats], Floats] = {}
        self.in_channels = 0  # until weights are prepared

    def __call__(self, x: Tensor, *, rectify: bool) -> Tensor:
        """The activations [batch, out, height, width] of x [batch, in, height, width]."""
        return _Convolved.apply(x, self, rectify)  # type: ignore[no-untyped-call, no-any-return]

    def forward(self, x: Tensor, rectify: bool) -> Tensor:
        """The activations, as a call returns them, without autograd."""
        weights = self._weights(_straight)
        if self.in_channels == 3:
            return _convolve_colours(x, weights, self._bias, rectify)
        return _convolve(x, weights, self._bias, rectify)

    def backward(self, gradient: Tensor, mask: Tensor | None) -> Tensor:
        """The gradient with respect to x: a convolution with the kernels turned and transposed.

        `gradient` counts as zero where `mask`, the output of a rectified call, is not positive.
        """
        weights = self._weights(_turned)
        if self.in_channels == 3:
            return _convolve_colours_back(gradient, weights, mask)
        return _convolve(gradient, weights, np.empty(0, np.float32), False, mask)

    def prepare(self) -> None:
        """Prepare the weights for both directions now."""
        self._prepare(_straight, _turned)

    def _weights(self, direction: Callable[[Tensor], Floats]) -> Floats:
        if direction not in self._prepared:
            self._prepare(direction)
        return self._prepared[direction]

    @ordinary()  # the prepared weights also serve callers with other torch settings
    def _prepare(self, *directions: Callable[[Tensor], Floats]) -> None:
        with _preparing:
            missing = [direction for direction in directions if direction not in self._prepared]
            if missing:
                weight, bias = self._read()
                self.in_channels = weight.shape[1]
                self._bias = bias.detach().numpy().copy()
                for direction in missing:
                    self._prepared[direction] = direction(weight.detach())


_preparing = threading.Lock()  # one layer at a time: preparing takes twice as much memory


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: Convolution, rectify: bool) -> Tensor:
        y = convolution.forward(x, rectify)
        ctx.convolution = convolution
        if rectify:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors or (None,)
        return ctx.convolution.backward(gradient, mask), None, None


def average_pool(x: Tensor) -> Tensor:
    """2x2 average pooling of x [batch, C, height, width]; drops an odd last row or column."""
    return _Averaged.apply(x)  # type: ignore[no-untyped-call, no-any-return]


class _Averaged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape = x.shape
        out = empty(batch, channels, height // 2, width // 2)
        run(kernels().average, (values(x), values(out)), (), ranges(height // 2, 8))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = empty(*ctx.shape)
        rows = ranges(out.shape[2], 16)
        run(kernels().average_back, (values(gradient), values(out)), (), rows)
        return out


def fork(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [batch, C, height, width] twice, C a multiple of 64; adds up the gradients in place."""
    return _Forked.apply(x)  # type: ignore[no-untyped-call, no-any-return]


class _Forked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        # `view_as` would change the first stride of one picture, and torch then copies it.
        return x.expand_as(x), x.expand_as(x)

    @staticmethod
    @once_differentiable
    def backward(_: Any, first: Tensor | None, second: Tensor | None) -> Tensor | None:
        if first is None or second is None:
            return second if first is None else first
        if not first.is_contiguous(memory_format=torch.channels_last):
            return first + second
        total, term = (values(gradient).reshape(1, -1) for gradient in (first, second))
        run(kernels().add, (total, term), (), ranges(total.size, 2**18))
        return first


def gram(features: Tensor, core: tuple[slice, slice] | None = None) -> Tensor:
    """Gram matrices [batch, C, C] of features [batch, C, height, width], C a multiple of 64.

    As in `losses`, F F^T divided by the number of positions; here the sums are in float64. With
    `core`, only these (rows, columns) count; they are not copied.
    """
    height, width = features.shape[2:]
    core = core or (slice(0, height), slice(0, width))
    return _Gram.apply(features, *core)  # type: ignore[no-untyped-call, no-any-return]


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, rows: slice, columns: slice) -> Tensor:
        ctx.save_for_backward(features)
        ctx.core = rows, columns
        batch, channels = features.shape[:2]
        source, parts = _core(values(features), rows, columns, STRIPS, least=kernels().DEPTH)
        strips = [(strip, *part) for strip, part in enumerate(parts)]
        result = torch.empty(batch, channels, channels, dtype=torch.float32, device="cpu")
        # Pictures with few strips: several at once, in the memory that one with STRIPS takes.
        at_once = max(1, STRIPS // len(strips))
        for first in range(0, batch, at_once):
            entries = slice(first, first + at_once)
            matrices = result.numpy()[entries]
            sums = np.zeros((len(matrices), len(strips), channels, channels))
            run(kernels().gram, (source[entries], sums), (), strips, (channels**2,))
            run(kernels().mean_gram, (sums, matrices), (_positions(rows, columns),), [()])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        rows, columns = ctx.core
        positions = _positions(rows, columns)
        symmetric = ((gradient + gradient.transpose(1, 2)) / positions)[:, None]
        out = empty(*features.shape)
        if positions < features.shape[2] * features.shape[3]:
            out.zero_()
        if min(positions, columns.stop - columns.start) < kernels().ROWS:
            for n, matrix in enumerate(symmetric):
                part = features[n : n + 1, :, rows, columns].permute(0, 2, 3, 1)
                out[n : n + 1, :, rows, columns] = (part @ matrix).permute(0, 3, 1, 2)
            return out, None, None
        least, count = 8 * kernels().ROWS, 8 * sharing.threads()
        source, parts = _core(values(features), rows, columns, count, least)
        target = values(out).reshape(source.shape)
        matrices = [_panels(matrix) for matrix in symmetric]
        run(kernels().product, (source, matrices, target), (), parts)
        return out, None, None


def _positions(rows: slice, columns: slice) -> int:
    return int((rows.stop - rows.start) * (columns.stop - columns.start))


def _core(
    pictures: Floats, rows: slice, columns: slice, count: int, least: int
) -> tuple[Floats, list[tuple[int, int, int, int]]]:
    """Split a core of pictures into at most `count` parts (first row, last, first column, last).

    If the core is as wide as the pictures, each picture is returned as one long row, and every part
    has at least `least` positions, if the core has as many.
    """
    batch, height, width, channels = pictures.shape
    length = rows.stop - rows.start
    if columns.stop - columns.start < width:
        cuts = [(rows.start + a, rows.start + b) for a, b in ranges(length, -(-length // count))]
        return pictures, [(*cut, columns.start, columns.stop) for cut in cuts]
    positions, first = length * width, rows.start * width
    cuts = ranges(positions, max(least, -(-positions // count)), min(least, positions))
    parts = [(0, 1, first + a, first + b) for a, b in cuts]
    return pictures.reshape(batch, 1, height * width, channels), parts


def _convolve(
    x: Tensor, weights: Floats, bias: Floats, rectify: bool, mask: Tensor | None = None
) -> Tensor:
    """3x3 convolution by Winograd's F(4x4, 3x3); a task is a block of tiles and of channels."""
    k = kernels()
    batch, in_channels, height, width = x.shape
    out = empty(batch, weights.size // (36 * in_channels), height, width)
    tiles = -(-height // GRID) * -(-width // GRID)
    room = -(-tiles // (-(-tiles // TILES) * k.ROWS)) * k.ROWS
    blocks, panels, slices = ranges(tiles, room), out.shape[1] // k.PANEL, 1
    # If there are few blocks, channels are cut into slices, so that every thread has work.
    while slices < panels and batch * len(blocks) * slices < 2 * sharing.threads():
        slices *= 2
    groups = ranges(panels, -(-panels // slices))
    run(
        k.convolve,
        (values(x), _hidden(mask, batch), values(out)),
        (weights, bias, rectify, room),
        [(*block, *group) for block in blocks for group in groups],
        (
            36 * (room * in_channels + k.SKEW),
            36 * (room * k.PANEL + k.SKEW),
            max(36 * in_channels, 16 * k.LANES),
        ),
    )
    return out


def _convolve_colours(x: Tensor, weights: Floats, bias: Floats, rectify: bool) -> Tensor:
    k = kernels()
    batch, _, height, width = x.shape
    out = empty(batch, bias.size, height, width)
    sizes = k.ROWS * k.TAPS, k.ROWS * bias.size
    arrays, others = (values(x), values(out)), (weights, bias, rectify)
    run(k.convolve_colours, arrays, others, ranges(height, 16), sizes)
    return out


def _convolve_colours_back(gradient: Tensor, weights: Floats, mask: Tensor | None) -> Tensor:
    k = kernels()
    batch, channels, height, width = gradient.shape
    out = empty(batch, 3, height, width)
    sizes = k.ROWS * channels, k.ROWS * k.TAPS_WIDTH
    arrays = values(gradient), _hidden(mask, batch), values(out)
    run(k.convolve_colours_back, arrays, (weights,), ranges(height, 16), sizes)
    return out


def _hidden(mask: Tensor | None, batch: int) -> Floats:
    """The values of a mask, or an empty array for each picture if the mask is None."""
    return np.empty((batch, 0, 0, 0), np.float32) if mask is None else values(mask)


def _straight(weight: Tensor) -> Floats:
    """Weights [out, in, 3, 3] in the layout of the forward kernels."""
    if weight.shape[1] == 3:
        return _panels(weight.permute(2, 3, 1, 0).reshape(1, kernels().TAPS, -1))
    return _winograd(weight)


def _turned(weight: Tensor) -> Floats:
    """The same for the gradient's kernels."""
    if weight.shape[1] == 3:
        columns = weight.permute(0, 2, 3, 1).flatten(1)
        return _panels(F.pad(columns, (0, kernels().TAPS_WIDTH - kernels().TAPS))[None])
    return _winograd(weight.flip(2, 3).transpose(0, 1))


def _winograd(weight: Tensor) -> Floats:
    """G g G^T of weights [out, in, 3, 3] as [out / PANEL, 36, in, PANEL], flat; see `vectors`."""
    rows = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
    g = torch.tensor(rows, dtype=torch.float64, device="cpu") / 24
    both = torch.kron(g, g).float()  # [36, 9]
    flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return _panels((both @ flat).view(36, weight.shape[1], weight.shape[0]))


def _panels(matrices: Tensor) -> Floats:
    """Matrices [n, rows, columns] as [columns / PANEL, n, rows, PANEL], flat."""
    n, rows, _ = matrices.shape
    panels = matrices.reshape(n, rows, -1, kernels().PANEL).permute(2, 0, 1, 3)
    # NumPy asks for large memory pages, torch does not; it saves a tenth of a wide layer's time.
    return np.ascontiguousarray(panels.numpy()).reshape(-1)
