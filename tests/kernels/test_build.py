"""Compiling, caching, and doing without: what happens where the kernels can't be had or kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from impasto import load_encoder
from impasto.kernels import build, ops

pytestmark = pytest.mark.skipif(
    not ops.status().ready and os.environ.get(ops.SWITCH) == "plain",
    reason="the compiled kernels are switched off",
)

COMPILING = "compiling for this processor; that takes some seconds"

# In processes of their own.

SHOW = """
import torch
from impasto.kernels import ops
status = ops.status()
random = torch.Generator().manual_seed(0)
weight = torch.randn(64, 64, 3, 3, generator=random, dtype=torch.float32)
x = torch.randn(2, 64, 9, 9, generator=random, dtype=torch.float32)
y = ops.gram(ops.Convolution(lambda: (weight, weight[0, :, 0, 0]))(x, rectify=True))
print(status.ready, round(y.double().mean().item()), "|", status.reason)
"""

IN_THREADS = """
from concurrent.futures import ThreadPoolExecutor
from impasto.kernels import ops
with ThreadPoolExecutor(4) as pool:
    first, *others = [pool.submit(ops.status) for _ in range(4)]
assert all(other.result() is first.result() for other in others)
"""

PAINT = """
import torch
from impasto import load_encoder
from impasto.kernels import ops
y = load_encoder()(torch.full((1, 3, 32, 32), 0.5, dtype=torch.float32), ["relu3_1"])["relu3_1"]
print(ops.status().ready, round(y.double().mean().item(), 3), "|", ops.status().reason)
"""


def start(*before: str, script: str = SHOW, **environment: str) -> subprocess.Popen[str]:
    """A process of its own; `before` is put before its command."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", script],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    told, notes = process.communicate(timeout=120)
    assert process.returncode == 0, notes
    return told, notes


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """A folder of compiled kernels, and what the two processes said that filled it at once."""
    folder = tmp_path_factory.mktemp("cache")
    processes = [start(IMPASTO_CACHE=str(folder)) for _ in range(2)]
    return folder, [end(process) for process in processes]


def test_two_processes_compile_at_once_and_a_third_need_not(
    cache: tuple[Path, list[tuple[str, str]]],
) -> None:
    folder, outcomes = cache
    assert all(told.startswith("True") for told, _ in outcomes), outcomes
    assert any("compiling for this processor" in notes for _, notes in outcomes)
    told, notes = end(start(script=IN_THREADS + SHOW, IMPASTO_CACHE=str(folder)))
    assert told.split("|")[0] == outcomes[0][0].split("|")[0] == outcomes[1][0].split("|")[0]
    assert f"read from {kernels_in(folder)}" in told
    assert not notes


def kernels_in(folder: Path) -> Path:
    """The one folder of kernels in a cache."""
    (kernels,) = folder.iterdir()
    return kernels


def damage(folder: Path) -> None:
    files = list(folder.rglob("*.nbc"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:100])


def test_a_damaged_cache_is_thrown_away_and_filled_again(
    cache: tuple[Path, list[tuple[str, str]]], tmp_path: Path
) -> None:
    folder, outcomes = cache
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    kernels = kernels_in(tmp_path)
    damage(tmp_path)
    again, notes = end(start(IMPASTO_CACHE=str(tmp_path)))
    assert again.split("|")[0] == outcomes[0][0].split("|")[0], notes
    assert f"the kernels kept in {kernels} were damaged" in again
    assert "compiling" in notes
    assert not kernels.exists()


def test_a_disk_that_is_full_costs_nothing_that_was_kept(
    cache: tuple[Path, list[tuple[str, str]]], tmp_path: Path
) -> None:
    """What is missing cannot be written: no reason to throw away the rest."""
    folder, _ = cache
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    missing, *others = sorted(tmp_path.rglob("*.nbi"))
    missing.unlink()
    limited = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (100, 100))" + SHOW
    told, notes = end(start(script=limited, IMPASTO_CACHE=str(tmp_path)))
    assert told.startswith("True")
    assert "in memory, again at every start" in told
    assert "cannot be used (OSError: " in told
    assert "compiling" in notes
    assert sorted(tmp_path.rglob("*.nbi")) == others


def test_what_else_is_switched_on_does_no_harm_to_it(
    cache: tuple[Path, list[tuple[str, str]]],
) -> None:
    """Another default dtype made the test of the kernels fail, and then they were thrown away."""
    folder, outcomes = cache
    kept = sorted(folder.rglob("*"))
    switched = "import torch; torch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)"
    switched += "\nforeign = torch.inference_mode(); foreign.__enter__()"
    told, notes = end(start(script=switched + SHOW, IMPASTO_CACHE=str(folder)))
    assert told.split("|")[0] == outcomes[0][0].split("|")[0]
    assert "read from" in told
    assert not notes
    assert sorted(folder.rglob("*")) == kept


NOT_ROOT = ["setpriv", "--bounding-set=-dac_override"]
"""Root without the right to write where nobody may."""


@pytest.fixture
def read_only(
    cache: tuple[Path, list[tuple[str, str]]], tmp_path: Path
) -> Iterator[tuple[Path, list[str]]]:
    """A copy of the cache where nothing can be written, and what to put before a command for it."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can write everywhere")
    shutil.copytree(cache[0], tmp_path, dirs_exist_ok=True)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield tmp_path, NOT_ROOT if os.geteuid() == 0 else []
    for folder in folders:
        folder.chmod(0o755)


def test_a_cache_that_can_only_be_read_is_read(read_only: tuple[Path, list[str]]) -> None:
    folder, before = read_only
    told, notes = end(start(*before, IMPASTO_CACHE=str(folder)))
    assert told.startswith("True")
    assert f"read from {kernels_in(folder)}" in told
    assert not notes


def test_a_folder_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.CACHE, "~nobody-of-this-name/cache")
    folder, trouble = build._cache()
    assert folder is None
    assert trouble.startswith("the compiled kernels cannot be kept in ~nobody-of-this-name/cache/")


def test_nothing_can_be_written_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a container, say: no home, no temporary folder, nothing beside the package either."""
    (tmp_path / "file").write_text("no folder")
    for name in ("IMPASTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    nowhere = str(tmp_path / "file")
    told, notes = end(start(HOME=nowhere, TMPDIR=nowhere))
    assert told.startswith("True")
    assert "in memory, again at every start: the compiled kernels cannot be kept in" in told
    assert notes.count(COMPILING) == 1
    assert f"at every start as long as the compiled kernels cannot be kept in {nowhere}" in notes
    assert "IMPASTO_CACHE" in notes


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("IMPASTO_KERNELS", "plain", "switched off by IMPASTO_KERNELS=plain"),
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT"),
    ],
)
def test_the_plain_path(name: str, value: str, reason: str) -> None:
    told, _ = end(start("env", f"{name}={value}", script=PAINT))
    assert told.startswith("False")
    assert reason in told
    here = load_encoder()(torch.full((1, 3, 32, 32), 0.5), ["relu3_1"])["relu3_1"]
    assert float(told.split()[1]) == pytest.approx(here.double().mean().item(), abs=1e-3)


def test_without_numba(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    told, _ = end(start(script=PAINT, PYTHONPATH=path))
    assert told.startswith("False")
    assert "numba cannot be imported (no numba here)" in told
