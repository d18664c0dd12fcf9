"""Memory that is used again, and threads that share the work."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from impasto.kernels import sharing


def test_memory_is_used_again_and_bounded() -> None:
    recycler = sharing.Recycler()
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


def test_a_helper_that_is_busy_with_another_painting_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "threads", lambda: 2)
    done = threading.Event()
    busy = sharing._pool(2).submit(done.wait, 20)
    calls = []
    sharing.run(lambda *call: calls.append(call), [np.array([10, 20])], ["x"], [(1,), (2,)])
    assert calls == [(10, "x", 1), (10, "x", 2), (20, "x", 1), (20, "x", 2)]
    done.set()
    assert busy.result()


def test_what_a_helper_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "threads", lambda: 2)
    begun = threading.Barrier(2)

    def fail(_: object, task: int) -> None:
        begun.wait(10)
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError(str(task))

    with pytest.raises(MemoryError):
        sharing.run(fail, [np.zeros(1)], [], [(1,), (2,)])
