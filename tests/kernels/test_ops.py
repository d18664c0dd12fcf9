"""The compiled kernels against torch's own operations, alone and in batches."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import Tensor

from impasto import load_encoder
from impasto.kernels import ops
from impasto.kernels.build import kernels
from impasto.kernels.vectors import in_two_dimensions, input_transform, output_transform

pytestmark = pytest.mark.skipif(
    not ops.status().ready and os.environ.get(ops.SWITCH) == "plain",
    reason="the compiled kernels are switched off",
)

Core = tuple[slice, slice]
Function = Callable[[Tensor], Tensor]

batches = st.integers(1, 3)
channels = st.sampled_from([64, 128])
sides = st.integers(1, 23)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(before: int, after: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The weight and bias of a convolution."""
    return random(after, before, 3, 3, seed=seed) / before**0.5, random(after, seed=seed + 1)


def exact_gram(x: Tensor, core: Core | None = None) -> Tensor:
    """Gatys et al. 2015, eq. 3, over the number of positions."""
    f = (x if core is None else x[(..., *core)]).flatten(2)
    return f @ f.transpose(1, 2) / f.shape[2]


@st.composite
def cores(draw: st.DrawFn, height: int, width: int) -> Core:
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    return slice(top, bottom), slice(left, right)


def pull(function: Function, x: Tensor, toward: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What a function gives, and its gradient: of a random direction, unless one is given."""
    x = x.detach().requires_grad_(True)
    y = function(x)
    toward = random(*y.shape, seed=99) if toward is None else toward
    (gradient,) = torch.autograd.grad(y, x, toward.to(y))
    return y.detach(), gradient


def assert_right(compiled: Function, exact: Function, x: Tensor, *tolerances: float) -> None:
    """It gives what a function says in double precision, and in batches, to the bit, the same."""
    together = pull(compiled, x)
    for found, expected, tolerance in zip(
        together, pull(exact, x.double()), tolerances, strict=True
    ):
        assert found.shape == expected.shape
        assert torch.allclose(found.double(), expected, atol=tolerance)
    toward = random(*together[0].shape, seed=99)
    for n in range(len(x)):
        one = slice(n, n + 1)
        for found, alone in zip(together, pull(compiled, x[one], toward[one]), strict=True):
            assert torch.equal(found[one], alone)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_they_are_in_use_here() -> None:
    status = ops.status()
    assert status.ready, status.reason
    assert ops.suits(random(1, 64, 4, 4))
    assert ops.suits(random(5, 64, 4, 4))
    assert not ops.suits(random(1, 64, 4, 4).double())
    assert not ops.suits(random(64, 4, 4))


def test_winograds_transforms_are_a_convolution() -> None:
    """F(4x4, 3x3) on plain numbers: Lavin & Gray 2015, eq. 8."""
    d, g = random(6, 6).double(), random(3, 3).double()
    weights = ops._winograd(g.float().expand(64, 64, 3, 3))
    u = torch.from_numpy(weights).view(64 // kernels().PANEL, 36, -1)[0, :, 0].view(6, 6)
    v = torch.tensor(in_two_dimensions(input_transform, d.tolist()), dtype=torch.float64)
    y = torch.tensor(in_two_dimensions(output_transform, (u * v).tolist()))
    expected = F.conv2d(d[None, None], g.float().double()[None, None])[0, 0]
    assert torch.allclose(y.double(), expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    batches,
    sides,
    sides,
    st.sampled_from([3, 64, 128]),
    channels,
    st.booleans(),
    st.integers(0, 99),
)
def test_convolutions(
    batch: int, height: int, width: int, before: int, after: int, rectify: bool, seed: int
) -> None:
    weight, bias = parameters(before, after, seed)
    x = random(batch, before, height, width, seed=seed + 2)
    convolution = ops.Convolution(lambda: (weight, bias))
    positive = convolution(x, rectify=rectify) > 0

    def exact(x: Tensor) -> Tensor:
        y = F.conv2d(x, weight.double(), bias.double(), padding=1)
        return y * positive if rectify else y  # where rounding decides, both shall decide alike

    assert_right(lambda x: convolution(x, rectify=rectify), exact, x, 1e-3, 2e-3)


@settings(deadline=None, max_examples=25)
@given(batches, sides, sides, channels)
def test_pooling(batch: int, height: int, width: int, count: int) -> None:
    x = random(batch, count, height + 1, width + 1)
    assert_right(ops.average_pool, lambda x: F.avg_pool2d(x, 2), x, 1e-6, 1e-7)


@settings(deadline=None, max_examples=25)
@given(batches, sides, sides, channels)
def test_gram_matrices(batch: int, height: int, width: int, count: int) -> None:
    x = random(batch, count, height, width)
    assert_right(ops.gram, exact_gram, x, 1e-5, 1e-4)
    matrices = ops.gram(x)
    assert torch.equal(matrices, matrices.transpose(1, 2))


@settings(deadline=None, max_examples=40)
@given(batches, st.integers(1, 30), st.integers(1, 30), st.data())
def test_gram_matrices_of_a_core(batch: int, height: int, width: int, data: st.DataObject) -> None:
    core = data.draw(cores(height, width))
    x = random(batch, 64, height, width)
    assert_right(lambda x: ops.gram(x, core), lambda x: exact_gram(x, core), x, 1e-5, 1e-4)


def test_gram_matrices_of_large_pictures_in_strips() -> None:
    """A few strips each, and as many as there can be; more entries than are summed at once."""
    assert_right(ops.gram, exact_gram, random(5, 64, 20, 33), 1e-5, 1e-4)
    assert_right(ops.gram, exact_gram, random(2, 64, 50, 61), 1e-5, 1e-4)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_gradients_of_a_fork_add_up(batch: int) -> None:
    x = random(batch, 64, 5, 7).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    one, other = ops.fork(x * 1)
    assert one.stride() == other.stride() == x.stride()  # by which torch tells how memory lies
    (both,) = torch.autograd.grad((3 * one + other.square()).sum(), x, retain_graph=True)
    assert torch.allclose(both, 3 + 2 * x)
    (single,) = torch.autograd.grad(other.sum(), x)
    assert torch.equal(single, torch.ones_like(x))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_the_encoder_gives_the_same_with_and_without(
    pooling: str, photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(pooling="max" if pooling == "max" else "avg")
    layers = ["relu1_1", "conv2_1", "relu2_1", "pool2", "relu4_2", "relu5_1"]
    fast = encoder(photo, layers)
    monkeypatch.setattr(ops, "status", lambda: ops.Status(False, "a test"))
    plain = encoder(photo, layers)
    for name in layers:
        assert torch.allclose(fast[name], plain[name], atol=1e-4 * plain[name].abs().max().item())


def small_network(seed: int = 0) -> Function:
    """One of each, so that all threads have something to do."""
    first, second = (ops.Convolution(partial(parameters, before, 64, seed)) for before in (3, 64))

    def network(x: Tensor) -> Tensor:
        y, z = ops.fork(ops.average_pool(second(first(x, rectify=True), rectify=True)))
        return ops.gram(y) + ops.gram(z, (slice(1, 9), slice(2, 9)))

    return network


def test_the_number_of_threads_does_not_matter() -> None:
    network, x = small_network(), random(2, 3, 61, 83)
    with on_threads(1):
        expected = pull(network, x)
    for count in (2, 3):
        with on_threads(count):
            for found, alone in zip(pull(network, x), expected, strict=True):
                assert torch.equal(found, alone)


def test_several_paintings_in_threads_of_their_own() -> None:
    """They share helpers, memory and encoders, and get what each would get alone."""
    network, pictures = small_network(), [random(1, 3, 61, 83, seed=n) for n in range(4)]
    with on_threads(1):
        expected = [pull(network, x) for x in pictures]

    def paint(x: Tensor) -> list[tuple[Tensor, Tensor]]:
        with on_threads(3):
            return [pull(network, x) for _ in range(20)]

    with ThreadPoolExecutor(len(pictures)) as pool:
        paintings = [pool.submit(paint, x) for x in pictures]
        for painting, alone in zip(paintings, expected, strict=True):
            for found in painting.result(timeout=60):
                assert torch.equal(found[0], alone[0])
                assert torch.equal(found[1], alone[1])


@pytest.mark.parametrize("before", [3, 64, 128])
def test_weights_are_prepared_once_and_not_kept_as_they_were(before: int) -> None:
    read = []

    def parameters_from_disk() -> tuple[Tensor, Tensor]:
        weight, bias = parameters(before, 64)
        read.append(weakref.ref(weight))
        return weight, bias

    convolution = ops.Convolution(parameters_from_disk)
    assert not read
    convolution.forward(random(1, before, 4, 4), rectify=True)
    assert len(read) == 1
    assert convolution.in_channels == before
    convolution.prepare()
    convolution.prepare()
    assert len(read) == 2
    gc.collect()
    assert not any(weight() is not None for weight in read)
    # What plans of memory count on: 36 values for every 9, in both directions.
    size = sum(prepared.size for prepared in convolution._prepared.values())
    raw = 9 * before * 64
    assert size == 8 * raw if before > 3 else size < 8 * raw


def test_two_threads_that_need_weights_at_once_prepare_them_once() -> None:
    weight, bias = parameters(64, 64)
    x = random(1, 64, 9, 9)
    expected = ops.Convolution(lambda: (weight, bias)).forward(x, rectify=False)
    read, together = [], threading.Barrier(4)

    def slowly() -> tuple[Tensor, Tensor]:
        read.append(threading.get_ident())
        threading.Event().wait(0.05)
        return weight, bias

    convolution = ops.Convolution(slowly)

    def convolve() -> Tensor:
        together.wait()
        return convolution.forward(x, rectify=False)

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(convolve) for _ in range(4)]
        assert all(torch.equal(result.result(), expected) for result in results)
    assert len(read) == 1
