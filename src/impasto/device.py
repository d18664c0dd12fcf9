"""The machine: which device computes, how much memory is free, what a program around has set.

A notebook or a larger program can have changed what torch and NumPy do by themselves: no gradients,
half precision, another default device, errors instead of warnings. None of it is meant for the
work in here, and some of it would stay in what is kept for later: `ordinary` puts it aside. The
default dtype is not among them: it belongs to all threads at once and cannot be put aside for one
of them, so every tensor made in impasto asks for its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from impasto.errors import ImpastoError, nearest
from impasto.settings import Device

SHARE = 0.75
"""Of what is free, where no bound is given."""


def free(device: torch.device) -> int:
    """How many bytes are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return min(int(psutil.virtual_memory().available), _free_in_container())


def _free_in_container() -> int:
    """What a container's own limit leaves on Linux; no limit is a large number."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no control groups, or no limit: "max"
        return 2**63
    return max(0, limit - used + int(statistics.get("inactive_file", 0)))  # a cache of files yields


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """Turn what is said where memory has run out into one sentence about what is being made.

    Raises:
        ImpastoError: it does not fit.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # How torch says it, on a CPU and on accelerators.
        told = re.search("allocate memory|out of memory", str(error), re.IGNORECASE)
        if isinstance(error, MemoryError) or told:
            raise ImpastoError(f"{what} does not fit into memory; use a smaller size") from None
        raise


def give_back() -> None:
    """Let the C library return what was freed, where it would keep it (glibc does)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def choose_device(name: str) -> torch.device:
    """The device called `name`; `"auto"` is the first of CUDA, MPS and the CPU that is there.

    Raises:
        ImpastoError: the device is unknown or not on this machine.
    """
    accelerators = {"cuda": torch.cuda, "mps": torch.backends.mps}
    there = [*(kind for kind, module in accelerators.items() if module.is_available()), "cpu"]
    if name == "auto":
        return torch.device(there[0])
    if name not in get_args(Device):
        known = nearest(name, get_args(Device))
        raise ImpastoError(f"there is no device {name!r}; did you mean {known!r}?")
    if name not in there:
        raise ImpastoError(f"the device {name!r} is not on this machine; use 'cpu' or 'auto'")
    return torch.device(name)


@functools.cache
def _openmp() -> Any:
    return ThreadpoolController().select(user_api="openmp")


@contextlib.contextmanager
def one_thread() -> Iterator[int]:
    """Let torch compute on one thread, in this thread of the program alone; yields how many it had.

    `torch.set_num_threads` would change that of every thread that begins meanwhile, for good.
    """
    threads = torch.get_num_threads()
    with _openmp().limit(limits=1) if threads > 1 else contextlib.nullcontext():
        yield threads


_AUTOCAST = [kind for kind in ("cpu", "cuda", "mps") if torch.amp.is_autocast_available(kind)]


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """Compute as torch and NumPy do where nobody has told them anything else; also a decorator.

    Gradients are recorded, nothing is computed in half precision, tensors are made on the CPU, and
    NumPy's floating-point errors are warnings. All of it for this thread alone, and as it was
    before once the work is done.
    """
    _begin_vector_math()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # Only where there is another one: it slows every call of torch down a little.
        if torch.empty(0, dtype=torch.float32).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


def recordable(x: Tensor) -> Tensor:
    """x itself, or a copy of one that was made in `torch.inference_mode`.

    Such a tensor stays barred from gradients for good, wherever it is used later.
    """
    return x.clone() if x.is_inference() else x


@functools.cache
def _begin_vector_math() -> None:
    """Let one thread be the first to use MKL's vector functions, as torch's cosines do.

    Where two are the first at once, one of them now and then computes with errors of 3e-5 instead
    of 2e-7, that once (MKL 2024.2 in torch 2.13, in one process of ten): the same inputs would not
    give the same bytes.
    """
    torch.zeros(8, dtype=torch.float32, device="cpu").cos()
