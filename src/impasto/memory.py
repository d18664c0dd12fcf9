"""How much memory there is, and how much of it may be used."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

from impasto.errors import ImpastoError

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
    trim = _trim()
    if trim:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
    trim.argtypes = [ctypes.c_size_t]
    found: Callable[[int], int] = trim
    return found
