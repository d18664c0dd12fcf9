"""The kernels compiled for this processor: kept on disk where that can be, and tried before use."""

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
"""Environment variable: `plain` does without the compiled kernels."""
CACHE = "IMPASTO_CACHE"
"""Environment variable: the folder for compiled kernels, instead of the user's own cache."""

_LOOPS = "impasto.kernels.loops"

_loading = threading.Lock()


@dataclass(frozen=True)
class Status:
    """Whether the compiled kernels are in use, why (not), and where they are cached."""

    ready: bool
    reason: str
    cache: Path | None = None


def kernels() -> Any:
    """The module `loops`, once `load` has found it ready."""
    return sys.modules[_LOOPS]


def load(verify: Callable[[], None]) -> Status:
    """Load the kernels, compiling them first where no earlier run has; says how that went.

    `verify` tries them, and raises an error where they are not to be used.
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

    made, in_memory = "compiled for this processor", "in memory, at every start anew"
    folder, trouble = _cache()
    damage = None
    if folder:
        try:
            with _usable(folder, trouble) as usable:
                fresh = _import(usable, verify, _how_often(trouble))
        except Exception as error:  # a damaged cache, a full disk, an odd processor
            # A matter of disk or memory says nothing about what lies there.
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
    if folder and damage:  # indeed, now that they work in memory
        shutil.rmtree(folder, ignore_errors=True)
        what = f"what was kept in {folder} was damaged ({reason_of(damage)})"
        return Status(True, f"{made}, in memory: {what}")
    return Status(True, f"{made}, {in_memory}: {trouble}")


def _how_often(trouble: str) -> str:
    if not trouble:
        return "once"
    return f"at every start as long as {trouble}; set {CACHE} to a folder where you may write"


def _import(folder: Path | None, verify: Callable[[], None], why: str) -> bool:
    """Import and try the kernels, kept in a folder or in memory.

    Returns whether any had to be compiled; if so, that is told before, and `why`.
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
    """A folder of kernels as numba can use it.

    It reads only where it may write: what cannot be written is copied while it is loaded.
    """
    if not trouble:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="impasto-", ignore_cleanup_errors=True) as temporary:
        for file in folder.rglob("*.nb[ci]"):
            place = Path(temporary, file.relative_to(folder))
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(file.read_bytes())  # and not its permissions
        yield Path(temporary)


def _cache() -> tuple[Path | None, str]:
    """The folder of this version's kernels on this processor, and why it cannot be written to.

    None where it is neither: what cannot be written to has to be filled.
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
    except (OSError, RuntimeError) as error:  # a RuntimeError where ~ is nobody's
        reason = getattr(error, "strerror", None) or error
        trouble = f"the compiled kernels cannot be kept in {folder} ({reason})"
        return folder if any(folder.rglob("*.nbi")) else None, trouble
    return folder, ""
