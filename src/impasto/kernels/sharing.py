"""Memory that the kernels reuse, and the threads that share their work."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impasto.device import one_thread

Floats = npt.NDArray[np.float32]

_mine = threading.local()


class Recycler:
    """Memory for activations that is reused when the activations are gone.

    Fresh memory costs more time than the arithmetic that fills it, because the system clears it
    page by page. Idle memory never raises the total above the most that was in use at once.
    """

    def __init__(self) -> None:
        self.free: list[Floats] = []
        self.in_use = self.most = 0
        self.lock = threading.RLock()

    def take(self, size: int) -> Floats:
        """An uninitialised array whose memory returns here when nothing refers to it any more."""
        with self.lock:
            fits = [(m.size, n) for n, m in enumerate(self.free) if size <= m.size <= 1.25 * size]
            if fits:
                memory = self.free.pop(min(fits)[1])
            else:
                allowed = max(self.most - self.in_use - size, 0)
                self.free.sort(key=len)
                while self.free and sum(memory.size for memory in self.free) > allowed:
                    self.free.pop(0)
                memory = np.empty(size, np.float32)
            self.in_use += memory.size
            self.most = max(self.most, self.in_use)
            view = memory[:size]
            weakref.finalize(view, self._give_back, memory).atexit = False
            return view

    def clear(self) -> None:
        """Give idle memory back to the system."""
        with self.lock:
            self.free.clear()
            self.most = self.in_use

    def _give_back(self, memory: Floats) -> None:
        with self.lock:
            self.in_use -= memory.size
            self.free.append(memory)


recycler = Recycler()
clear = recycler.clear


def empty(batch: int, channels: int, height: int, width: int) -> Tensor:
    """An uninitialised tensor [batch, channels, height, width] in channels-last memory."""
    memory = torch.from_numpy(recycler.take(batch * channels * height * width))
    return memory.view(batch, height, width, channels).permute(0, 3, 1, 2)


def values(x: Tensor) -> Floats:
    """x [batch, C, height, width] as an array [batch, height, width, C], a view if possible."""
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def ranges(total: int, length: int, least: int = 1) -> list[tuple[int, int]]:
    """Split 0..`total` into ranges of `length`; a rest below `least` joins the range before."""
    starts = list(range(0, total, length))
    if len(starts) > 1 and total - starts[-1] < least:
        starts.pop()
    return list(itertools.pairwise([*starts, total]))


@contextlib.contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Leave the cores to the kernels: torch has little to do itself meanwhile.

    After a parallel operation torch's threads keep the cores busy for some milliseconds, waiting
    for the next one. On two cores that makes the kernels a fifth slower.
    """
    with one_thread() as count:
        before, _mine.threads = getattr(_mine, "threads", None), count
        try:
            yield
        finally:
            _mine.threads = before


def threads() -> int:
    """The number of threads for kernels: torch's usual number, also in `torch_on_one_thread`."""
    return getattr(_mine, "threads", None) or torch.get_num_threads()


def run(
    kernel: Callable[..., None],
    arrays: Sequence[npt.NDArray[Any] | Sequence[Floats]],
    others: Sequence[Any],
    tasks: Sequence[tuple[int, ...]],
    sizes: Sequence[int] = (),
) -> None:
    """Call a kernel for each entry of a batch and each task; a free thread takes the next call.

    The kernel's arguments are the entry of each of the `arrays`, `others`, the task, and a buffer
    of each of the `sizes`.
    """
    calls = list(itertools.product(range(len(arrays[0])), tasks))
    left = iter(calls)  # threads can share the iterator of a list, but not that of `product`

    def work() -> None:
        for entry, task in left:
            kernel(*[array[entry] for array in arrays], *others, *task, *_buffers(sizes))

    count = threads()
    helpers = min(count, len(calls)) - 1
    futures = [_pool(count).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        calls.clear()  # after an interruption: leave none that a thread could begin
        for future in futures:
            # A future that has not begun waits behind another painting's work, and is not needed.
            if not future.cancel():
                future.result()


def _buffers(sizes: Sequence[int]) -> list[Floats]:
    """Uninitialised arrays of these sizes, this thread's own until its next call."""
    ends = [*itertools.accumulate(sizes, initial=0)]
    if not hasattr(_mine, "memory") or _mine.memory.size < ends[-1]:
        _mine.memory = np.empty(ends[-1], np.float32)
    return [_mine.memory[start:end] for start, end in itertools.pairwise(ends)]


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, count - 1), "impasto")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has no threads
