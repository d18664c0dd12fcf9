"""The compiled kernels against torch's own operations, and what happens where they can't be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impasto import Vgg, gram
from impasto.kernels import ops as compiled
from impasto.kernels.vectors import in_two_dimensions, input_transform, output_transform

pytestmark = pytest.mark.skipif(
    not compiled.status().ready and os.environ.get(compiled.SWITCH) == "plain",
    reason="the compiled kernels are switched off",
)

channels = st.sampled_from([64, 128])
sides = st.integers(1, 23)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_they_are_in_use_here() -> None:
    status = compiled.status()
    assert status.ready, status.reason
    assert compiled.suits(random(1, 64, 4, 4))
    assert not compiled.suits(random(1, 64, 4, 4).double())
    assert not compiled.suits(random(2, 64, 4, 4))


def test_winograds_transforms_are_a_convolution() -> None:
    """F(4x4, 3x3) on plain numbers: Lavin & Gray 2015, eq. 8."""
    d, g = random(6, 6).double(), random(3, 3).double()
    weights = compiled._winograd(g.float().expand(64, 64, 3, 3))
    u = torch.from_numpy(weights).view(64 // compiled._kernels().PANEL, 36, -1)[0, :, 0].view(6, 6)
    v = torch.tensor(in_two_dimensions(input_transform, d.tolist()), dtype=torch.float64)
    y = torch.tensor(in_two_dimensions(output_transform, (u * v).tolist()))
    expected = F.conv2d(d[None, None], g.float().double()[None, None])[0, 0]
    assert torch.allclose(y.double(), expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(sides, sides, st.sampled_from([3, 64, 128]), channels, st.booleans(), st.integers(0, 99))
def test_convolutions(
    height: int, width: int, before: int, after: int, rectify: bool, seed: int
) -> None:
    weight = random(after, before, 3, 3, seed=seed) / before**0.5
    bias = random(after, seed=seed + 1)
    x = random(1, before, height, width, seed=seed + 2).requires_grad_(True)
    y = compiled.Convolution(weight, bias)(x, rectify=rectify)
    exact = x.detach().double().requires_grad_(True)
    expected = F.conv2d(exact, weight.double(), bias.double(), padding=1)
    if rectify:
        expected = expected * (y > 0)  # where rounding decides, both shall decide alike
    assert torch.allclose(y.double(), expected, atol=1e-3)
    toward = random(*y.shape, seed=seed + 3)
    (gradient,) = torch.autograd.grad(y, x, toward)
    (expected_gradient,) = torch.autograd.grad(expected, exact, toward.double())
    assert torch.allclose(gradient.double(), expected_gradient, atol=2e-3)


@settings(deadline=None, max_examples=25)
@given(sides, sides, channels)
def test_pooling(height: int, width: int, count: int) -> None:
    x = random(1, count, height + 1, width + 1).requires_grad_(True)
    y, expected = compiled.average_pool(x), F.avg_pool2d(x, 2)
    assert torch.allclose(y, expected, atol=1e-6)
    toward = random(*y.shape, seed=1)
    (gradient,) = torch.autograd.grad(y, x, toward)
    (expected_gradient,) = torch.autograd.grad(expected, x, toward)
    assert torch.equal(gradient, expected_gradient)


@settings(deadline=None, max_examples=25)
@given(sides, sides, channels)
def test_gram_matrices(height: int, width: int, count: int) -> None:
    x = random(1, count, height, width).requires_grad_(True)
    exact = x.detach().double().requires_grad_(True)
    matrix, expected = gram(x), gram(exact)
    assert torch.allclose(matrix.double(), expected, atol=1e-5)
    assert torch.equal(matrix, matrix.transpose(1, 2))
    toward = random(*matrix.shape, seed=1)
    (gradient,) = torch.autograd.grad(matrix, x, toward)
    (expected_gradient,) = torch.autograd.grad(expected, exact, toward.double())
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_gram_matrices_of_a_core(height: int, width: int, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    core = slice(top, bottom), slice(left, right)
    x = random(1, 64, height, width).requires_grad_(True)
    exact = x.detach().double().requires_grad_(True)
    matrix, expected = compiled.gram(x, core), gram(exact[(..., *core)])
    assert torch.allclose(matrix.double(), expected, atol=1e-5)
    toward = random(*matrix.shape, seed=1)
    (gradient,) = torch.autograd.grad(matrix, x, toward)
    (expected_gradient,) = torch.autograd.grad(expected, exact, toward.double())
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-4)


def test_gradients_of_a_fork_add_up() -> None:
    x = random(1, 64, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    one, other = compiled.fork(x * 1)
    (both,) = torch.autograd.grad((3 * one + other.square()).sum(), x, retain_graph=True)
    assert torch.allclose(both, 3 + 2 * x)
    (single,) = torch.autograd.grad(other.sum(), x)
    assert torch.equal(single, torch.ones_like(x))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_encoder_gives_the_same_with_and_without(
    encoder: Vgg, photo: Tensor, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ["relu1_1", "conv2_1", "relu2_1", "pool2", "relu4_2", "relu5_1"]
    monkeypatch.setattr(encoder, "pooling", pooling)
    fast = encoder(photo, layers)
    monkeypatch.setattr(compiled, "status", lambda: compiled.Status(False, "a test"))
    plain = encoder(photo, layers)
    for name in layers:
        assert torch.allclose(fast[name], plain[name], atol=1e-4 * plain[name].abs().max().item())


def test_the_number_of_threads_does_not_matter(encoder: Vgg, photo: Tensor) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(gram(encoder(photo, ["relu3_1"])["relu3_1"]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_memory_is_used_again_and_bounded() -> None:
    recycler = compiled._Recycler()
    first = recycler.take(1000)
    address = first.ctypes.data
    del first
    assert recycler.take(900).ctypes.data == address
    kept = [recycler.take(500) for _ in range(4)]
    assert recycler.in_use == 2000
    del kept
    assert sum(memory.size for memory in recycler.free) <= recycler.most
    recycler.clear()
    assert not recycler.free


# In processes of their own: compiling, caching, and doing without.

SHOW = """
import warnings; warnings.simplefilter("always")
import torch
from impasto import load_encoder
from impasto.kernels import ops as compiled
status = compiled.status()
x = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float32)
y = load_encoder()(x, ["relu3_1"])["relu3_1"]
print(status.ready, round(y.double().mean().item(), 3), "|", status.reason)
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
    told, notes = end(start(IMPASTO_CACHE=str(folder)))
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
    assert f"what was kept in {kernels} was damaged" in again
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
    assert "in memory, at every start anew" in told
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


def test_a_folder_that_nobody_has() -> None:
    told, notes = end(start(IMPASTO_CACHE="~nobody-of-this-name/cache"))
    assert told.startswith("True")
    assert "in memory, at every start anew: the compiled kernels cannot be kept in" in told
    assert "compiling for this processor" in notes
    assert "IMPASTO_CACHE" in notes


def test_nothing_can_be_written_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a container, say: no home, no temporary folder, nothing beside the package either."""
    (tmp_path / "file").write_text("no folder")
    for name in ("IMPASTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    nowhere = str(tmp_path / "file")
    told, notes = end(start(HOME=nowhere, TMPDIR=nowhere))
    assert told.startswith("True")
    assert "in memory, at every start anew" in told
    assert notes.count("ImpastoNotice") == 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("IMPASTO_KERNELS", "plain", "switched off by IMPASTO_KERNELS=plain"),
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT"),
    ],
)
def test_the_plain_path(name: str, value: str, reason: str) -> None:
    told, _ = end(start("env", f"{name}={value}"))
    assert told.startswith("False")
    assert reason in told
    assert told.split()[1] == end(start())[0].split()[1]


def test_without_numba(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')")
    told, _ = end(start(PYTHONPATH=str(tmp_path)))
    assert "False" in told
    assert "numba cannot be imported (no numba here)" in told
