"""One-pass pictures: what waits goes in together; who dies is replaced; who is late is told."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impasto import Network
from impasto.errors import ImpastoError
from impasto.jobs.batcher import MOST, Batcher
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.queue import Full
from impasto.jobs.workers import Defect, Worker
from impasto.pictures import images
from impasto.settings import WorkSettings
from tests.jobs.conftest import small, until

LIMITS = WorkSettings(workers=1, queue=40)


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def batcher(seen: list[int]) -> Iterator[Batcher]:
    batcher = Batcher(LIMITS, lambda: Worker(1), observe=lambda count, _: seen.append(count))
    until(lambda: batcher.ready)
    yield batcher
    batcher.close(0)


def ask(data: bytes, style: str = "great_wave", **settings: object) -> Repaint:
    return Repaint(data, "samples", {style: 1.0}, {"size": 64, **settings})


def test_what_waits_goes_in_together(batcher: Batcher, seen: list[int], photo: bytes) -> None:
    first = batcher.submit(ask(photo, size=512))  # keeps the worker busy
    styles = ["great_wave", "night_cafe", "composition_viii"] * 4
    others = [batcher.submit(ask(photo, style)) for style in styles]
    wait([first, *others])
    assert seen == [1, 12]
    network = Network.load(threads=1)
    with Image.open(io.BytesIO(photo)) as image:
        resized = images.resize(image.convert("RGB"), (64, 36))
        for style, future in zip(styles[:3], others, strict=False):
            data, facts = future.result()
            assert facts["size"] == [64, 36]
            alone = network(resized, style)
            together = np.asarray(Image.open(io.BytesIO(data)), np.int16)
            # Threads and batches sum in another order.
            assert np.abs(together - np.asarray(alone, np.int16)).max() <= 1


def test_batches_are_bounded_and_of_one_size(
    batcher: Batcher, seen: list[int], photo: bytes
) -> None:
    tall = small("owl", 96)
    first = batcher.submit(ask(photo, size=512))
    some = [batcher.submit(ask(data)) for data in [photo, tall] * 10]
    some += [batcher.submit(ask(photo)) for _ in range(10)]
    wait([first, *some])
    assert seen == [1, MOST, 10, 4]
    assert {tuple(f.result()[1]["size"]) for f in some} == {(64, 36), (64, 43)}


def test_one_bad_picture_does_not_spoil_a_batch(batcher: Batcher, photo: bytes) -> None:
    cut = photo[: len(photo) // 2]  # its header is whole
    first = batcher.submit(ask(photo, size=512))
    good, bad, unknown = (
        batcher.submit(ask(photo)),
        batcher.submit(ask(cut)),
        batcher.submit(ask(photo, "sunflowers")),
    )
    wait([first, good, bad, unknown])
    assert good.result()[0]
    with pytest.raises(ImpastoError, match="damaged or cut short"):
        bad.result()
    with pytest.raises(ImpastoError, match="no style 'sunflowers'"):
        unknown.result()


@pytest.mark.parametrize(
    ("data", "settings", "told"),
    [
        (b"hello", {}, "not a picture"),
        (b"", {}, "empty"),
        (None, {"size": 0}, "size is 0"),
        (None, {"size": 60000}, "million are allowed"),
        (None, {"strength": 2}, "strength is 2"),
        (None, {"steps": 2}, "no setting 'steps'"),
    ],
)
def test_bad_input_is_refused_at_once(
    batcher: Batcher, photo: bytes, data: bytes | None, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ImpastoError, match=told):
        batcher.submit(ask(photo if data is None else data, **settings))


def test_a_picture_with_too_many_pixels_is_refused() -> None:
    batcher = Batcher(replace(LIMITS, megapixels=0.01), lambda: Worker(1), networks=[])
    try:
        with pytest.raises(ImpastoError, match=r"160 x 90 pixels, and no more than 0\.01 million"):
            batcher.submit(ask(small("kingfisher", 160), size=9))
    finally:
        batcher.close(0)


def test_a_full_queue_sheds(batcher: Batcher, photo: bytes) -> None:
    accepted: list[Future[Painted]] = []

    def flood() -> None:
        for _ in range(100):
            accepted.append(batcher.submit(ask(photo, size=256)))

    with pytest.raises(Full, match="40 pictures wait already; try again in") as full:
        flood()
    assert full.value.retry_after >= 1
    assert len(accepted) >= 40
    wait(accepted)
    assert all(future.result()[0] for future in accepted)


def test_killed_under_load_all_are_answered(batcher: Batcher, photo: bytes) -> None:
    futures = [batcher.submit(ask(photo, size=256)) for _ in range(24)]
    until(lambda: any(future.done() for future in futures))
    kill(batcher)
    wait(futures)
    assert all(future.result()[0] for future in futures)
    assert batcher.deaths == 1


def test_a_picture_that_ends_two_workers_fails(batcher: Batcher, photo: bytes) -> None:
    big = batcher.submit(ask(photo, size=3000))
    for deaths in (1, 2):
        until(lambda: batcher.running)
        kill(batcher)
        until(lambda number=deaths: batcher.deaths == number)  # type: ignore[misc]
    with pytest.raises(Defect, match="ended 2 workers"):
        big.result(60)
    assert batcher.submit(ask(photo)).result(60)[0]  # the queue goes on


def kill(batcher: Batcher) -> None:
    (worker,) = batcher.workers
    assert isinstance(worker, Worker)
    until(lambda: worker.pid)
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)


def test_who_gave_up_is_not_painted(batcher: Batcher, seen: list[int], photo: bytes) -> None:
    first = batcher.submit(ask(photo, size=512))
    given_up, last = batcher.submit(ask(photo)), batcher.submit(ask(photo))
    assert given_up.cancel()
    wait([first, last])
    assert seen == [1, 1]


def test_draining_paints_what_waits(batcher: Batcher, photo: bytes) -> None:
    futures = [batcher.submit(ask(photo)) for _ in range(5)]
    batcher.drain()
    with pytest.raises(Full, match="ending"):
        batcher.submit(ask(photo))
    batcher.close(60)
    assert all(future.result()[0] for future in futures)
