"""Small photos and paintings as the bytes of files, and orders of them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from impasto import sample
from impasto.jobs.orders import Order
from impasto.jobs.queue import Jobs
from impasto.jobs.store import Job
from tests.conftest import tolerated


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
