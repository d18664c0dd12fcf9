"""A worker makes calls in a process of its own, and its death is an exception here."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from impasto.jobs.workers import Died, Worker
from tests.jobs.conftest import CALLS, AnyWorker, until


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(1)
    yield worker
    worker.close()


class TestWorker(AnyWorker):
    """On this machine."""


def test_after_a_death_there_is_a_new_process(worker: Worker) -> None:
    before = worker.pid
    with pytest.raises(Died):
        worker.run(f"{CALLS}die")
    assert worker.run(f"{CALLS}count", 1, 0.0)[0] == [0]
    assert worker.pid != before


def test_signals_to_the_whole_group_are_the_parents_to_answer(worker: Worker) -> None:
    assert worker.run(f"{CALLS}ignores_signals")[0]


def test_a_worker_is_spawned_not_forked(worker: Worker) -> None:
    worker.run(f"{CALLS}count", 1, 0.0)
    assert worker.pid
    assert any("spawn" in word for word in psutil.Process(worker.pid).cmdline())


@pytest.mark.parametrize(("allowed", "given"), [("1", "1"), ("8", "2"), ("", "2")])
def test_no_more_threads_than_are_allowed(
    monkeypatch: pytest.MonkeyPatch, allowed: str, given: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    worker = Worker(2)
    try:
        assert worker.run(f"{CALLS}threads")[0] == given
    finally:
        worker.close()


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import threading, time
            from impasto.jobs.workers import Worker

            if __name__ == "__main__":
                worker = Worker(1)
                args = ("tests.jobs.calls:count", 1000, 1.0)
                threading.Thread(target=worker.run, args=args, daemon=True).start()
                while worker.pid is None:
                    time.sleep(0.01)
                time.sleep(0.5)
                print(worker.pid, flush=True)
                time.sleep(60)
            """
        )
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.communicate()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 10)


def test_closing_from_another_thread_ends_a_call() -> None:
    import threading

    worker, died = Worker(1), []

    def call() -> None:
        try:
            worker.run(f"{CALLS}count", 1000, 0.1)
        except Died:
            died.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: worker.pid is not None)
    time.sleep(0.2)
    worker.close()
    thread.join(10)
    assert died
