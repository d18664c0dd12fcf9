"""Small photos and paintings as the bytes of files, orders of them, and what any worker does."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from impasto import sample
from impasto.errors import ImpastoError
from impasto.jobs.orders import Order
from impasto.jobs.queue import Jobs
from impasto.jobs.store import Job
from impasto.jobs.workers import Defect, Died, Runs, Wish
from tests.conftest import tolerated

CALLS = "tests.jobs.calls:"


@pytest.fixture(autouse=True)
def _no_notice_is_overlooked() -> Iterator[None]:
    with tolerated():  # a worker's notices are the job's
        yield


def small(name: str, longer: int = 96, format: str = "PNG") -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    with Image.open(sample(name)) as image:
        image.thumbnail((longer, longer))
        image.save(buffer, format)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> bytes:
    return small("kingfisher")


@pytest.fixture(scope="session")
def painting() -> bytes:
    return small("great_wave")


def stylize(steps: int = 400, film: bool = False, **settings: object) -> Order:
    chosen = {"size": 64, "steps": steps, **settings}
    return Order("stylize", chosen, ("photo",), (("painting", 1.0),), film=film)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def over(jobs: Jobs, job: Job) -> Job:
    until(lambda: jobs.get(job.id).is_over)
    return jobs.get(job.id)


class AnyWorker:
    """The tests that every kind of worker passes: subclasses run them with their own `worker`."""

    def test_a_call_tells_events_and_returns(self, worker: Runs) -> None:
        heard: list[int] = []
        result, notices = worker.run(f"{CALLS}count", 3, 0.0, hear=heard.append)
        assert result == heard == [0, 1, 2]
        assert notices == ["counted to 3"]
        assert worker.run(f"{CALLS}count", 1, 0.0)[1] == ["counted to 1"]  # its own only

    @pytest.mark.parametrize("wish", ["cancel", "stop"])
    def test_a_wish_reaches_a_running_call(self, worker: Runs, wish: Wish) -> None:
        heard: list[int] = []
        result, _ = worker.run(
            f"{CALLS}count", 2000, 0.01, hear=heard.append, wish=lambda: wish if heard else ""
        )
        assert result[-1] == wish
        assert len(result) < 100
        assert worker.run(f"{CALLS}count", 2, 0.0)[0] == [0, 1]  # the wish was for that call

    def test_errors_come_back_as_sentences(self, worker: Runs) -> None:
        with pytest.raises(ImpastoError, match="this is wrong; do that"):
            worker.run(f"{CALLS}refuse")
        with pytest.raises(Defect, match=r"KeyError.*report it"):
            worker.run(f"{CALLS}break_down")

    def test_a_call_that_hangs_is_ended(self, worker: Runs) -> None:
        worker.run(f"{CALLS}count", 1, 0.0)
        with pytest.raises(Died, match="too long"):
            worker.run(f"{CALLS}count", 1000, 1.0, seconds=0.3)
