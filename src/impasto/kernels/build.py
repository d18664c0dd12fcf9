"""Compiling the kernels for this processor, keeping them on disk, and testing them before use."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from impasto.errors import notice, reason_of

SWITCH = "IMPASTO_KERNELS"
"""Environment variable: the value `plain` switches the compiled kernels off."""
CACHE = "IMPASTO_CACHE"
"""Environment variable: the folder for compiled kernels, instead of the user's own cache."""

_LOOPS = "impasto.kernels.loops"

_loading = threading.Lock()


@dataclass(frozen=True)
class Status:
    """Whether the compiled kernels are in use, why or why not, and where they are cached."""

    ready: bool
    reason: str
    cache: Path | None = None


def kernels() -> Any:
    """The module `loops`; only after `load` has returned a status that is ready."""
    return sys.modules[_LOOPS]


def load(verify: Callable[[], None]) -> Status:
    """Load the kernels, compiling them first unless an earlier run has; returns how that went.

    `verify` tests them, and raises an error if they must not be used.
    """
    with _loading:  # numba's settings belong to all threads
        return _loaded(verify)


@functools.cache
def _loaded(verify: Callable[[], None]) -> Status:
    if os.environ.get(SWITCH, "compiled") == "plain":
        return Status(False, f"switched off by {SWITCH}=plain")
    try:
        import numba
    except Exception as error:  # an import of compiled code can fail in many ways
        return Status(False, f"numba cannot be imported ({error})")
    if numba.config.DISABLE_JIT:
        return Status(False, "numba is switched off by NUMBA_DISABLE_JIT")

    made, in_memory = "compiled for this processor", "in memory, again at every start"
    folder, trouble = _cache()
    damage = None
    if folder:
        try:
            with _usable(folder, trouble) as usable:
                fresh = _import(usable, verify, _how_often(trouble))
        except Exception as error:  # a damaged cache, a full disk, an odd processor
            # An error of disk or memory does not mean that the kept kernels are damaged.
            if not trouble and not isinstance(error, OSError | MemoryError):
                damage = error
            trouble = f"{folder} cannot be used ({reason_of(error)})"
        else:
            if fresh and trouble:
                return Status(True, f"{made}, {in_memory}: {trouble}")
            how = "and kept in" if fresh else "read from"
            return Status(True, f"{made}, {how} {folder}", folder)
    try:
        _import(None, verify, f"as {trouble}" if damage else _how_often(trouble))
    except Exception as error:
        return Status(False, f"the kernels cannot be compiled ({reason_of(error)})")
    if folder and damage:  # confirmed: the same kernels work in memory
        shutil.rmtree(folder, ignore_errors=True)
        what = f"the kernels kept in {folder} were damaged ({reason_of(damage)})"
        return Status(True, f"{made}, in memory: {what}")
    return Status(True, f"{made}, {in_memory}: {trouble}")


def _how_often(trouble: str) -> str:
    if not trouble:
        return "once"
    return f"at every start as long as {trouble}; set {CACHE} to a folder where you may write"


def _import(folder: Path | None, verify: Callable[[], None], why: str) -> bool:
    """Import and test the kernels, cached in `folder` (None: not cached).

    Returns whether any had to be compiled. If so, a notice says it beforehand, ending with `why`.
    """
    import numba
    from numba.core import event

    compiled = False

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, _: Any) -> None:
            nonlocal compiled
            if not compiled:
                compiled = True
                notice(f"compiling for this processor; that takes some seconds, {why}")

        on_end = on_start

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder or "")
    try:
        with event.install_listener("numba:compile", Listener()):
            importlib.import_module(_LOOPS)
        verify()
    except BaseException:
        sys.modules.pop(_LOOPS, None)
        raise
    finally:
        numba.config.CACHE_DIR = before
    return compiled


@contextlib.contextmanager
def _usable(folder: Path, trouble: str) -> Iterator[Path]:
    """Yield `folder`, or a copy if it is read-only: numba reads only where it may write."""
    if not trouble:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="impasto-", ignore_cleanup_errors=True) as temporary:
        for file in folder.rglob("*.nb[ci]"):
            place = Path(temporary, file.relative_to(folder))
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(file.read_bytes())  # without its permissions
        yield Path(temporary)


def _cache() -> tuple[Path | None, str]:
    """Return the folder for this version's kernels on this processor, and why it is not writable.

    The reason is empty if it is writable; if it is neither that nor filled, the folder is None.
    """
    import numba
    from llvmlite import binding

    sources = [Path(__file__).with_name(name).read_bytes() for name in ("vectors.py", "loops.py")]
    features = binding.get_host_cpu_features().flatten()
    facts = sys.version, numba.__version__, binding.get_host_cpu_name(), features
    digest = hashlib.sha256(b"".join([*sources, *map(str.encode, facts)])).hexdigest()
    own = numba.config.CACHE_DIR or os.environ.get(CACHE)
    parent = Path(own) if own else platformdirs.user_cache_path("impasto", appauthor=False)
    folder = parent / f"kernels-{digest[:16]}"
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ has no folder
        reason = getattr(error, "strerror", None) or error
        trouble = f"the compiled kernels cannot be kept in {folder} ({reason})"
        return folder if any(folder.rglob("*.nbi")) else None, trouble
    return folder, ""
