"""The machine: its devices and free memory, and the settings of torch and NumPy in this process.

A notebook or a larger program may have changed these settings: no gradients, half precision,
another default device, errors instead of warnings. They are not meant for impasto, and some would
stay in tensors that are kept for later, so `ordinary` puts them aside. The default dtype belongs to
all threads and cannot be put aside for one, so every tensor made in impasto names its dtype.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
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
"""The part of the free memory that is used if no bound is given."""


def free(device: torch.device) -> int:
    """How many bytes are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return min(int(psutil.virtual_memory().available), _free_in_container())


def _free_in_container() -> int:
    """How many bytes a container's own limit leaves on Linux; a large number without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no control groups, or the limit is "max"
        return 2**63
    return max(0, limit - used + int(statistics.get("inactive_file", 0)))  # file caches can go


def give_back() -> None:
    """Make the C library return freed memory to the system, which glibc does not do by itself."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def choose_device(name: str) -> torch.device:
    """The device called `name`; `"auto"` is the first of CUDA, MPS and CPU on this machine.

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
    """Let torch use one thread for the calling thread's work; yields how many it had before.

    `torch.set_num_threads` would also change every thread that begins meanwhile, for good.
    """
    threads = torch.get_num_threads()
    with _openmp().limit(limits=1) if threads > 1 else contextlib.nullcontext():
        yield threads


_AUTOCAST = [kind for kind in ("cpu", "cuda", "mps") if torch.amp.is_autocast_available(kind)]


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """Compute with the original settings of torch and NumPy; also a decorator.

    Gradients are recorded, nothing is computed in half precision, tensors are made on the CPU, and
    NumPy's floating-point errors are warnings. Only this thread changes, and only for the block.
    """
    _begin_vector_math()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # Only if another default is set: this slows every call of torch down a little.
        if torch.empty(0, dtype=torch.float32).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


def recordable(x: Tensor) -> Tensor:
    """x itself, or a copy if x was made in `torch.inference_mode`, which bars it from gradients."""
    return x.clone() if x.is_inference() else x


@functools.cache
def _begin_vector_math() -> None:
    """Let one thread alone make the first call of MKL's vector functions, which torch's cos uses.

    If two threads make it at once, one of them sometimes gets errors of 3e-5 instead of 2e-7 in
    that call (MKL 2024.2 in torch 2.13, in one process of ten). Then the same inputs would not give
    the same bytes.
    """
    torch.zeros(8, dtype=torch.float32, device="cpu").cos()
