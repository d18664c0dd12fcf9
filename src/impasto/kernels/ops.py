"""The compiled path for CPUs: convolutions, pooling and Gram matrices as torch functions.

What `vgg` and `losses` compute with where it fits (`suits`): one float32 picture on a CPU. The
kernels themselves are in `kernels`; here they are compiled or taken from the cache on disk, their
weights are prepared, and their work is shared out among as many threads as torch uses. Results do
not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import platform
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from impasto.device import one_thread, ordinary
from impasto.errors import notice

SWITCH = "IMPASTO_KERNELS"
"""Environment variable: `plain` does without the compiled kernels."""
CACHE = "IMPASTO_CACHE"
"""Environment variable: the folder for compiled kernels, instead of the user's own cache."""

GRID = 4
"""Side of the tiles that convolutions are computed in."""
STRIPS = 8
"""Parts that a sum over positions is made of, whatever the number of threads."""

TILES = 72
"""Tiles of 4x4 that a convolution works on at once: what it needs for them stays in cache."""

Floats = npt.NDArray[np.float32]
Task = TypeVar("Task")

_NOTHING: Floats = np.empty(0, np.float32)
_SOURCES = ("vectors.py", "loops.py")


@dataclass(frozen=True)
class Status:
    """Whether the compiled kernels are in use, why not, and where they are cached."""

    ready: bool
    reason: str
    cache: Path | None = None


def suits(x: Tensor) -> bool:
    """Whether the compiled kernels compute with `x`: one float32 picture on a CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.dim() == 4
        and x.shape[0] == 1
        and status().ready
    )


@functools.cache
@ordinary()
def status() -> Status:
    """Load the kernels, compiling them first where no earlier run has; says how that went."""
    if os.environ.get(SWITCH, "compiled") == "plain":
        return Status(False, f"switched off by {SWITCH}=plain")
    try:
        import numba
    except Exception as error:  # an import of compiled code can fail in many ways
        return Status(False, f"numba cannot be imported ({error})")
    if numba.config.DISABLE_JIT:
        return Status(False, "numba is switched off by NUMBA_DISABLE_JIT")
    return _loaded()


def _loaded() -> Status:
    """The kernels from where they are kept, or else compiled in memory."""
    made = "compiled for this processor"
    cache = _cache()
    damage = ""
    if cache.folder:
        notice = _at_every_start(cache.trouble) if cache.trouble else f"{_COMPILING}, once"
        try:
            with _usable(cache) as folder:
                compiled = _import_kernels(folder, notice)
        except Exception as error:  # a damaged cache, a full disk, an odd processor
            # A matter of disk or memory says nothing about what lies there.
            damage = "" if isinstance(error, OSError | MemoryError) else _told(error)
            trouble = f"{cache.folder} cannot be used ({_told(error)})"
        else:
            if not compiled:
                return Status(True, f"{made}, read from {cache.folder}", cache.folder)
            if not cache.trouble:
                return Status(True, f"{made}, and kept in {cache.folder}", cache.folder)
            return Status(True, f"{made}, in memory, at every start anew: {cache.trouble}")
    else:
        trouble = cache.trouble
    damaged = bool(damage) and not cache.trouble
    try:
        _import_kernels(
            None, f"{_COMPILING}, as {trouble}" if damaged else _at_every_start(trouble)
        )
    except Exception as error:
        return Status(False, f"the kernels cannot be compiled ({_told(error)})")
    # Now that they work in memory it was indeed the fault of what was kept.
    if cache.folder and damaged:
        shutil.rmtree(cache.folder, ignore_errors=True)
        return Status(
            True, f"{made}, in memory: what was kept in {cache.folder} was damaged ({damage})"
        )
    return Status(True, f"{made}, in memory, at every start anew: {trouble}")


_COMPILING = "compiling for this processor; that takes some seconds"


def _at_every_start(trouble: str) -> str:
    return (
        f"{_COMPILING}, at every start as long as {trouble}; "
        f"set {CACHE} to a folder where you may write"
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _import_kernels(folder: Path | None, sentence: str) -> bool:
    """Import and try the kernels, kept in a folder or in memory.

    Returns whether any had to be compiled; if so, the notice is given before.
    """
    import numba
    from numba.core import event

    compiled = False

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, _: Any) -> None:
            nonlocal compiled
            if not compiled:
                compiled = True
                notice(sentence)

        def on_end(self, _: Any) -> None:
            pass

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder or "")
    try:
        with event.install_listener("numba:compile", Listener()):
            importlib.import_module("impasto.kernels.loops")
        _verify()
    except BaseException:
        sys.modules.pop("impasto.kernels.loops", None)
        raise
    finally:
        numba.config.CACHE_DIR = before
    return compiled


@dataclass(frozen=True)
class _Cache:
    """A folder of kernels, if there is one to use; `trouble` says why it cannot be written."""

    folder: Path | None
    trouble: str = ""


@contextlib.contextmanager
def _usable(cache: _Cache) -> Iterator[Path]:
    """The folder of a cache as numba can use it.

    It reads only where it may write: what cannot be written is copied while it is loaded.
    """
    assert cache.folder
    if not cache.trouble:
        yield cache.folder
        return
    with tempfile.TemporaryDirectory(prefix="impasto-", ignore_cleanup_errors=True) as temporary:
        for file in cache.folder.rglob("*.nb[ci]"):
            place = Path(temporary, file.relative_to(cache.folder))
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(file.read_bytes())  # and not its permissions
        yield Path(temporary)


def _cache() -> _Cache:
    """The folder of this version's kernels on this processor, if it can be written or is filled."""
    import llvmlite.binding
    import numba

    digest = hashlib.sha256()
    for source in _SOURCES:
        digest.update(Path(__file__).with_name(source).read_bytes())
    features = llvmlite.binding.get_host_cpu_features().flatten()
    for fact in (sys.version, numba.__version__, llvmlite.binding.get_host_cpu_name(), features):
        digest.update(str(fact).encode())
    parent = Path(numba.config.CACHE_DIR or os.environ.get(CACHE) or _user_cache())
    folder = parent / f"kernels-{digest.hexdigest()[:16]}"
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # a RuntimeError where ~ is nobody's
        reason = getattr(error, "strerror", None) or error
        trouble = f"the compiled kernels cannot be kept in {folder} ({reason})"
        return _Cache(folder if any(folder.rglob("*.nbi")) else None, trouble)
    return _Cache(folder)


def _user_cache() -> Path:
    if platform.system() == "Windows":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif platform.system() == "Darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base) / "impasto"


def _kernels() -> ModuleType:
    return sys.modules["impasto.kernels.loops"]


def _verify() -> None:
    """Try the kernels on a small picture: what is not exact here is not to be used."""
    random = torch.Generator("cpu").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")

    weight, bias, x = normal(64, 64, 3, 3) / 24, normal(64), normal(1, 64, 11, 14)
    y = Convolution(weight, bias).forward(x, rectify=True)
    expected = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
    if not torch.allclose(y, expected, atol=1e-4):
        raise ArithmeticError("they fail their test")


class Convolution:
    """A 3x3 convolution of padding 1, with or without the ReLU after it, on the compiled kernels.

    Args:
        weight: [out, in, 3, 3]; `in` is 3 or, like `out`, a multiple of 64.
        bias: [out].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight = weight.detach()
        self.bias = bias.detach().contiguous()
        self.reads_colours = weight.shape[1] == 3

    def __call__(self, x: Tensor, *, rectify: bool) -> Tensor:
        """The activations [1, out, height, width] of x [1, in, height, width]."""
        result: Tensor = _Convolved.apply(x, self, rectify)  # type: ignore[no-untyped-call]
        return result

    def forward(self, x: Tensor, rectify: bool) -> Tensor:
        """What a call computes, without its gradient."""
        kernels = _kernels()
        if x.shape[1] == 3:
            return _convolve_colours(x, self._weights, self.bias, rectify)
        finish = kernels.RECTIFIED if rectify else kernels.BIASED
        return _convolve(x, self._weights, self.bias, finish)

    def backward(self, gradient: Tensor, mask: Tensor | None) -> Tensor:
        """The gradient with respect to x: a convolution with the kernels turned and transposed."""
        if self.reads_colours:
            return _convolve_colours_back(gradient, mask, self._turned_weights)
        return _convolve(gradient, self._turned_weights, None, _kernels().PLAIN, mask)

    def prepare(self) -> None:
        """Prepare the weights now, and let go of them as they were."""
        _ = self._weights, self._turned_weights
        self.weight = torch.empty(0, dtype=torch.float32, device="cpu")

    # Prepared when first needed: they are four times as large as the weights themselves.

    @functools.cached_property
    def _weights(self) -> Floats:
        return _prepared(_Numbers(self.weight))

    @functools.cached_property
    def _turned_weights(self) -> Floats:
        return _prepared_turned(_Numbers(self.weight))


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
    """2x2 average pooling of x [1, channels, height, width]; drops an odd last row or column."""
    result: Tensor = _Averaged.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Averaged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        ctx.size = height, width
        out = _empty(channels, height // 2, width // 2)
        source, target = _flat(x), _flat(out)

        def average(rows: range) -> None:
            _kernels().average(source, target, width, channels, rows.start, rows.stop)

        _share_out(_ranges(height // 2, 8), average)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.size
        channels = gradient.shape[1]
        out = _empty(channels, height, width)
        source, target = _flat(gradient), _flat(out)

        def spread(rows: range) -> None:
            _kernels().average_back(source, target, height, width, channels, rows.start, rows.stop)

        _share_out(_ranges(height, 16), spread)
        return out


def fork(x: Tensor) -> tuple[Tensor, Tensor]:
    """x twice; the two gradients are added up where the first one lies, without more memory."""
    result: tuple[Tensor, Tensor] = _Forked.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Forked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return x.view_as(x), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(_: Any, first: Tensor | None, second: Tensor | None) -> Tensor | None:
        if first is None or second is None:
            return second if first is None else first
        if not first.is_contiguous(memory_format=torch.channels_last):
            return first + second
        total, term = _flat(first), _flat(second)

        def add(part: range) -> None:
            _kernels().add(total, term, part.start, part.stop)

        _share_out(_ranges(total.size, 2**18), add)
        return first


def gram(features: Tensor, core: tuple[slice, slice] | None = None) -> Tensor:
    """`losses.gram` of features [1, C, height, width], C a multiple of 64; summed in float64.

    With `core`, of these (rows, columns) alone, without copying them.
    """
    _, _, height, width = features.shape
    rows, columns = core or (slice(0, height), slice(0, width))
    result: Tensor = _Gram.apply(features, rows, columns)  # type: ignore[no-untyped-call]
    return result


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, rows: slice, columns: slice) -> Tensor:
        ctx.save_for_backward(features)
        ctx.core = rows, columns
        channels = features.shape[1]
        positions = (rows.stop - rows.start) * (columns.stop - columns.start)
        flat = _flat(features)
        kernels = _kernels()
        runs = _runs(features, rows, columns, STRIPS, least=kernels.DEPTH)
        sums = np.zeros((len(runs), channels, channels))

        def add(strip: int) -> None:
            (products,) = _buffers(channels**2)
            kernels.gram(flat, sums[strip].reshape(-1), products, channels, *runs[strip])

        _share_out(range(len(runs)), add)
        result = np.empty(channels**2, np.float32)
        kernels.mean_gram(sums.reshape(-1), result, len(runs), channels, positions)
        return torch.from_numpy(result).view(1, channels, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (features,) = ctx.saved_tensors
        rows, columns = ctx.core
        _, channels, height, width = features.shape
        positions = (rows.stop - rows.start) * (columns.stop - columns.start)
        symmetric = (gradient + gradient.transpose(1, 2)) / positions
        kernels = _kernels()
        whole = positions == height * width
        out = _empty(channels, height, width)
        if not whole:
            out.zero_()
        if min(positions, columns.stop - columns.start) < kernels.ROWS:
            part = features[..., rows, columns].permute(0, 2, 3, 1)
            out[..., rows, columns] = (part @ symmetric).permute(0, 3, 1, 2)
            return out, None, None
        source, target, weights = _flat(features), _flat(out), _panels(symmetric)

        def multiply(run: tuple[int, int, int, int, int]) -> None:
            kernels.product(source, weights, target, channels, *run)

        parts = 8 * _threads()
        _share_out(_runs(features, rows, columns, parts, least=kernels.ROWS * 8), multiply)
        return out, None, None


def _runs(
    features: Tensor, rows: slice, columns: slice, parts: int, least: int
) -> list[tuple[int, int, int, int, int]]:
    """A core as (width, first row, last row, first column, last column), in about so many parts.

    Where it is as wide as the features, as parts of one long row of at least so many positions.
    """
    width = features.shape[3]
    if columns.stop - columns.start < width:
        length = -(-(rows.stop - rows.start) // parts)
        return [
            (width, rows.start + part.start, rows.start + part.stop, columns.start, columns.stop)
            for part in _ranges(rows.stop - rows.start, length)
        ]
    first, positions = rows.start * width, (rows.stop - rows.start) * width
    length = max(least, -(-positions // parts))
    return [
        (0, 0, 1, first + part.start, first + part.stop)
        for part in _ranges(positions, length, least=min(least, positions))
    ]


def _convolve(
    x: Tensor,
    weights: Floats,
    bias: Tensor | None,
    finish: int,
    mask: Tensor | None = None,
) -> Tensor:
    """3x3 convolution by Winograd's F(4x4, 3x3), blocks of tiles and of channels shared out."""
    kernels = _kernels()
    _, in_channels, height, width = x.shape
    out_channels = weights.size // (36 * in_channels)
    out = _empty(out_channels, height, width)
    source, target = _flat(x), _flat(out)
    hidden = _NOTHING if mask is None else _flat(mask)
    added = _NOTHING if bias is None else bias.numpy()
    panels = out_channels // kernels.PANEL
    tiles = -(-height // 4) * -(-width // 4)
    capacity = -(-tiles // (-(-tiles // TILES) * kernels.ROWS)) * kernels.ROWS
    blocks = _ranges(tiles, capacity)
    # Few blocks are cut into slices of channels, so that every thread has work.
    slices = 1
    while slices < panels and len(blocks) * slices < 2 * _threads():
        slices *= 2
    groups = _ranges(panels, -(-panels // slices))
    plane = capacity * in_channels + kernels.SKEW
    product_plane = capacity * kernels.PANEL + kernels.SKEW
    patch_size = max(36 * in_channels, 16 * kernels.LANES)

    def convolve(task: tuple[range, range]) -> None:
        block, group = task
        kernels.convolve(
            source, hidden, weights, added, target,
            height, width, in_channels, out_channels,
            block.start, len(block), capacity, group.start, group.stop, finish,
            *_buffers(36 * plane, 36 * product_plane, patch_size),
        )  # fmt: skip

    _share_out([(block, group) for block in blocks for group in groups], convolve)
    return out


def _convolve_colours(x: Tensor, weights: Floats, bias: Tensor, rectify: bool) -> Tensor:
    kernels = _kernels()
    _, _, height, width = x.shape
    channels = bias.numel()
    out = _empty(channels, height, width)
    source, target, added = _flat(x), _flat(out), bias.numpy()

    def convolve(rows: range) -> None:
        kernels.convolve_colours(
            source, weights, added, target,
            height, width, channels, rows.start, rows.stop, int(rectify),
            *_buffers(kernels.ROWS * kernels.TAPS, kernels.ROWS * channels),
        )  # fmt: skip

    _share_out(_ranges(height, 16), convolve)
    return out


def _convolve_colours_back(gradient: Tensor, mask: Tensor | None, weights: Floats) -> Tensor:
    kernels = _kernels()
    _, channels, height, width = gradient.shape
    out = _empty(3, height, width)
    source, target = _flat(gradient), _flat(out)
    hidden = _NOTHING if mask is None else _flat(mask)

    def convolve(rows: range) -> None:
        kernels.convolve_colours_back(
            source, hidden, weights, target,
            height, width, channels, rows.start, rows.stop,
            *_buffers(kernels.ROWS * channels, kernels.ROWS * kernels.TAPS_WIDTH),
        )  # fmt: skip

    _share_out(_ranges(height, 16), convolve)
    return out


class _Numbers:
    """Equals another one, and hashes like it, where both were made of the same numbers.

    The tensor itself can be taken once: as a key in a cache it is not to keep it.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor
        self.shape = tensor.shape
        numbers = np.ascontiguousarray(tensor.permute(0, 2, 3, 1).numpy())
        self.digest = hashlib.blake2b(numbers.data, digest_size=16).digest()

    def take(self) -> Tensor:
        tensor, self.tensor = self.tensor, None
        assert tensor is not None
        return tensor

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Numbers)
            and other.digest == self.digest
            and other.shape == self.shape
        )


# Shared by all encoders of the same weights, one after another too: a second or two each.
@functools.lru_cache(maxsize=16)  # the convolutions of a VGG-19
@ordinary()  # as they are kept
def _prepared(numbers: _Numbers) -> Floats:
    weight = numbers.take()
    if weight.shape[1] == 3:
        rows = weight.permute(2, 3, 1, 0).reshape(_kernels().TAPS, -1)
        return _panels(rows[None])
    return _winograd(weight)


@functools.lru_cache(maxsize=16)
@ordinary()
def _prepared_turned(numbers: _Numbers) -> Floats:
    weight = numbers.take()
    if weight.shape[1] == 3:
        kernels = _kernels()
        columns = weight.permute(0, 2, 3, 1).flatten(1)
        padding = (0, kernels.TAPS_WIDTH - kernels.TAPS)
        return _panels(torch.nn.functional.pad(columns, padding)[None])
    return _winograd(weight.flip(2, 3).transpose(0, 1))


def _winograd(weight: Tensor) -> Floats:
    """G g G^T of kernels [out, in, 3, 3]: [out / PANEL, 36, in, PANEL], flat.

    Lavin & Gray 2015, section 4.3.
    """
    g = torch.tensor(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        dtype=torch.float64,
        device="cpu",
    )
    both = torch.kron(g, g).float()  # [36, 9]
    flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return _panels((both @ flat).view(36, weight.shape[1], weight.shape[0]))


def _panels(matrices: Tensor) -> Floats:
    """Matrices [n, rows, columns] as [columns / PANEL, n, rows, PANEL], flat."""
    n, rows, _ = matrices.shape
    panels = matrices.reshape(n, rows, -1, _kernels().PANEL).permute(2, 0, 1, 3)
    # NumPy asks for large pages, torch does not: a tenth of the time of wide layers.
    return np.ascontiguousarray(panels.numpy()).reshape(-1)


class _Recycler:
    """Memory for activations that is used again when they are gone.

    Fresh memory costs more time than the arithmetic that fills it: the system clears it page by
    page. What lies idle never adds to the most that was in use at once.
    """

    def __init__(self) -> None:
        self.free: list[Floats] = []
        self.in_use = 0
        self.most = 0
        self.lock = threading.RLock()

    def take(self, size: int) -> Floats:
        """An uninitialised array that comes back by itself when nobody refers to it."""
        with self.lock:
            fitting = [memory for memory in self.free if size <= memory.size <= 1.25 * size]
            if fitting:
                memory = min(fitting, key=len)
                self.free = [other for other in self.free if other is not memory]
            else:
                self._make_room(size)
                memory = np.empty(size, np.float32)
            self.in_use += memory.size
            self.most = max(self.most, self.in_use)
            view = memory[:size]
            weakref.finalize(view, self._give_back, memory).atexit = False
            return view

    def clear(self) -> None:
        """Give what lies idle back to the system."""
        with self.lock:
            self.free.clear()
            self.most = self.in_use

    def _give_back(self, memory: Floats) -> None:
        with self.lock:
            self.in_use -= memory.size
            self.free.append(memory)

    def _make_room(self, size: int) -> None:
        allowed = max(self.most, self.in_use + size) - self.in_use - size
        self.free.sort(key=len)
        while self.free and sum(memory.size for memory in self.free) > allowed:
            self.free.pop(0)


_recycler = _Recycler()


def clear() -> None:
    """Give the memory of activations that are gone back to the system."""
    _recycler.clear()


def _empty(channels: int, height: int, width: int) -> Tensor:
    """An uninitialised [1, channels, height, width], channels last."""
    memory = torch.from_numpy(_recycler.take(channels * height * width))
    return memory.view(1, height, width, channels).permute(0, 3, 1, 2)


def _flat(x: Tensor) -> Floats:
    """The values of x [1, channels, height, width], channels last."""
    values: Floats = x.detach().permute(0, 2, 3, 1).contiguous().view(-1).numpy()
    return values


def _ranges(total: int, length: int, least: int = 1) -> list[range]:
    """0 to `total` in ranges of `length`; the last is longer rather than below `least`."""
    starts = list(range(0, total, length))
    if len(starts) > 1 and total - starts[-1] < least:
        starts.pop()
    return [range(a, b) for a, b in zip(starts, [*starts[1:], total], strict=True)]


_mine = threading.local()


def _buffers(*sizes: int) -> list[Floats]:
    """Uninitialised arrays that belong to this thread until it asks again."""
    if getattr(_mine, "memory", _NOTHING).size < sum(sizes):
        _mine.memory = np.empty(sum(sizes), np.float32)
    ends = np.cumsum(sizes)
    return [_mine.memory[end - size : end] for end, size in zip(ends, sizes, strict=True)]


@contextlib.contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Let the kernels have the cores; what torch itself has to do meanwhile is small.

    After each of its parallel operations torch's threads keep a core busy for some milliseconds,
    waiting for the next one: on two cores that makes the kernels a fifth slower.
    """
    if not status().ready:
        yield
        return
    with one_thread() as threads:
        before, _mine.threads = getattr(_mine, "threads", None), threads
        try:
            yield
        finally:
            _mine.threads = before


def _threads() -> int:
    return getattr(_mine, "threads", None) or torch.get_num_threads()


def _share_out(tasks: Iterable[Task], work: Callable[[Task], None]) -> None:
    """Do every task, on as many threads as torch uses; each takes the next that is left."""
    left: Iterator[Task] = iter(list(tasks))

    def work_on() -> None:
        for task in left:
            work(task)

    threads = _threads()
    others = [_pool(threads).submit(work_on) for _ in range(threads - 1)]
    try:
        work_on()
    finally:
        for _ in left:  # after an interruption: nobody shall begin another
            pass
        for other in others:
            other.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads - 1), "impasto")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay with the parent
