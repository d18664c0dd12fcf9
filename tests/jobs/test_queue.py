"""Jobs: painted one after another, watched, cancelled, kept over every kind of death."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from impasto import read_record
from impasto.errors import ImpastoError
from impasto.jobs.orders import Order
from impasto.jobs.queue import Full, Jobs
from impasto.jobs.store import Gone, Job, Store, Unknown
from impasto.jobs.workers import Worker
from impasto.settings import WorkSettings
from tests.jobs.conftest import over, stylize, until

LIMITS = WorkSettings(queue=3)


def opened(folder: Path, limits: WorkSettings = LIMITS) -> Jobs:
    return Jobs(folder, limits, lambda: Worker(1))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    jobs = opened(tmp_path_factory.mktemp("jobs"))
    yield jobs
    jobs.close()


@pytest.fixture(scope="module")
def given(photo: bytes, painting: bytes) -> dict[str, bytes]:
    return {"photo": photo, "painting": painting}


def test_a_painting_grows_and_is_kept(jobs: Jobs, given: dict[str, bytes]) -> None:
    job = jobs.submit(stylize(steps=60, film=True, size=96), given)
    until(lambda: jobs.preview(job.id))
    with Image.open(io.BytesIO(jobs.preview(job.id) or b"")) as preview:
        assert preview.format == "JPEG"
        assert preview.size == (96, 54)
    seen = jobs.get(job.id)
    assert (seen.state, seen.planned, seen.place) == ("running", 60, None)
    job = over(jobs, job)
    assert (job.state, job.step, job.done, job.message) == ("done", 60, 1.0, "")
    record = read_record(jobs.result(job.id))
    assert record["settings"]["steps"] == 60
    assert record["stopped"] == "budget"
    assert jobs.film(job.id).read_bytes()[4:8] == b"ftyp"
    left = {path.name for path in jobs.store.place(job.id).iterdir()}
    assert left == {"result.png", "film.mp4", "outcome.json"}  # no photo is kept


def test_cancel_keeps_the_picture_so_far(jobs: Jobs, given: dict[str, bytes]) -> None:
    job = jobs.submit(stylize(steps=5000), given)
    until(lambda: jobs.get(job.id).step > 2)
    step = jobs.get(job.id).step
    jobs.cancel(job.id)
    job = over(jobs, job)
    assert job.state == "cancelled"
    assert step <= job.step < 5000
    assert read_record(jobs.result(job.id))["stopped"] == "interrupted"


def test_those_who_wait_know_their_place(jobs: Jobs, given: dict[str, bytes]) -> None:
    first = jobs.submit(stylize(steps=5000), given)
    until(lambda: jobs.get(first.id).state == "running")
    waiting = [jobs.submit(stylize(steps=1), given) for _ in range(3)]
    assert [jobs.get(job.id).place for job in waiting] == [0, 1, 2]
    with pytest.raises(Full, match="3 jobs wait already; try again in") as full:
        jobs.submit(stylize(steps=1), given)
    assert full.value.retry_after >= 1
    assert jobs.cancel(waiting[0].id).state == "cancelled"
    assert [jobs.get(job.id).place for job in waiting[1:]] == [0, 1]
    jobs.cancel(first.id)
    assert [over(jobs, job).state for job in waiting] == ["cancelled", "done", "done"]


def test_a_worker_that_dies_costs_a_retry(jobs: Jobs, given: dict[str, bytes]) -> None:
    job = jobs.submit(stylize(steps=5000), given)
    until(lambda: jobs.get(job.id).step > 1)
    killed(jobs)
    until(lambda: jobs.get(job.id).deaths == 1)
    jobs.cancel(job.id)
    assert over(jobs, job).state == "cancelled"


def test_a_cancel_as_the_worker_dies_is_heard(
    jobs: Jobs, given: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    change = jobs.store.change

    def changed(id: str, **fields: Any) -> Job:  # noqa: A002
        job = change(id, **fields)
        if fields.get("deaths"):
            jobs.cancel(id)  # it waits again, but has not been let go
        return job

    monkeypatch.setattr(jobs.store, "change", changed)
    job = jobs.submit(stylize(steps=5000), given)
    until(lambda: jobs.get(job.id).step > 0)
    killed(jobs)
    until(lambda: jobs.get(job.id).deaths == 1)
    assert over(jobs, job).state == "cancelled"


def test_a_job_that_ends_two_workers_fails(jobs: Jobs, given: dict[str, bytes]) -> None:
    job = jobs.submit(stylize(steps=5000), given)
    for deaths in (1, 2):
        until(lambda: jobs.get(job.id).step > 0)
        killed(jobs)
        until(lambda number=deaths: jobs.get(job.id).deaths == number)  # type: ignore[misc]
    job = over(jobs, job)
    assert job.state == "failed"
    assert "ended 2 workers" in job.message
    with pytest.raises(Unknown):
        jobs.result(job.id)


def killed(jobs: Jobs) -> None:
    (worker,) = jobs.workers
    assert isinstance(worker, Worker)
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)


def test_what_only_painting_finds_is_told(jobs: Jobs, painting: bytes) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(buffer, "PNG")
    given = {"photo": buffer.getvalue(), "painting": painting}
    job = over(jobs, jobs.submit(stylize(), given))
    assert job.state == "failed"
    assert "wholly transparent" in job.message


def test_notices_are_the_jobs(jobs: Jobs, given: dict[str, bytes]) -> None:
    job = over(jobs, jobs.submit(stylize(steps=1, size=192), given))
    assert any("is enlarged" in sentence for sentence in job.notices)


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (Order("repaint"), "no command 'repaint' for jobs; did you mean"),
        (Order("train"), "no command 'train' for jobs"),
        (Order("stylize", {}, ("photo",)), "needs a painting"),
        (Order("stylize", {}, (), (("painting", 1),)), "takes 1 photo, and 0 came"),
        (Order("stylize", {}, ("other",), (("painting", 1),)), "there is no picture 'other'"),
        (Order("stylize", {}, ("../x",), (("painting", 1),)), "there is no picture '../x'"),
        (Order("stylize", {}, ("sample:x",), (("painting", 1),)), "there is no sample 'x'"),
        (Order("stylize", {"stepz": 3}, ("photo",), (("painting", 1),)), "'stepz'; did you mean"),
        (Order("stylize", {"steps": -3}, ("photo",), (("painting", 1),)), "steps is -3"),
        (Order("stylize", {"weights": "/x"}, ("photo",), (("painting", 1),)), "not a job's"),
        (Order("stylize", {"device": "cuda"}, ("photo",), (("painting", 1),)), "not a job's"),
        (Order("stylize", {"init": "/etc/x"}, ("photo",), (("painting", 1),)), "init is '/etc/x'"),
        (Order("stylize", {"size": 60000}, ("photo",), (("painting", 1),)), "million are allowed"),
        (Order("stylize", {}, ("photo",), (("painting", 0),)), "no picture has a share above 0"),
        (Order("stylize", {}, ("photo",), (("painting", float("nan")),)), "share of painting is"),
        (Order("texture", {"size": [60000, 60000]}, (), (("painting", 1),)), "million are allowed"),
        (Order("texture", {"film": True}, (), (("painting", 1),)), "no setting 'film'"),
        (Order("atlas", {}, ("photo",), (("painting", 1),), film=True), "no steps to film"),
        (Order("imagine", style=(("x", 1),)), "no generator 'x'; did you mean"),
        (Order("imagine"), "takes 1 to 16 styles, and 0 came"),
        (Order("apply", {}, ("photo",), style=(("x", 1),), network="/etc/x"), "no network"),
        (Order("compare", {}, ("photo",), (("painting", 1),)), "needs settings to vary"),
        (
            Order("compare", {}, ("photo",), (("painting", 1),), vary={"weights": ["x"]}),
            "weights cannot be varied",
        ),
        (
            Order("compare", {}, ("photo",), (("painting", 1),), vary={"seed": [*range(99)]}),
            "up to 16 pictures",
        ),
    ],
)
def test_bad_orders_are_refused(
    jobs: Jobs, given: dict[str, bytes], order: Order, told: str
) -> None:
    with pytest.raises(ImpastoError, match=told.replace("(", r"\(")):
        jobs.submit(order, given)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 9, b"<svg/>"])
def test_what_is_no_picture_is_refused(jobs: Jobs, painting: bytes, data: bytes) -> None:
    with pytest.raises(ImpastoError, match="photo"):
        jobs.submit(stylize(), {"photo": data, "painting": painting})


@pytest.mark.parametrize(
    "order",
    [
        Order("reconstruct", {"steps": 2, "size": 48}, ("photo", "sample:owl"), film=True),
        Order("texture", {"steps": 2, "size": [64, 32]}, paintings=(("painting", 1),)),
        Order("atlas", {"steps": 1, "size": 48}, ("photo",), (("painting", 1),)),
        Order(
            "compare",
            {"steps": 1, "size": 48},
            ("photo",),
            (("painting", 1),),
            vary={"strength": [0.2, 0.8]},
        ),
        Order("apply", {"size": 64}, ("photo",), style=(("great_wave", 1), ("night_cafe", 2))),
        Order("imagine", {"size": [64, 32], "seed": 3}, style=(("great_wave", 1),)),
        Order(
            "stylize",
            {"steps": 2, "size": 64, "preset": "gatys"},
            ("photo",),
            (("sample:night_cafe", 1),),
            (("mask", "painting"),),
        ),
    ],
    ids=lambda order: order.command,
)
def test_every_command(jobs: Jobs, given: dict[str, bytes], order: Order) -> None:
    mask = io.BytesIO()
    Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16)).save(mask, "PNG")
    job = over(jobs, jobs.submit(order, {**given, "mask": mask.getvalue()}))
    assert (job.state, job.message) == ("done", "")
    assert read_record(jobs.result(job.id))["command"] in (order.command, "stylize")
    with Image.open(jobs.result(job.id)) as image:
        assert list(image.size) == job.result["size"]


def test_a_limit_on_time_keeps_the_picture_so_far(tmp_path: Path, given: dict[str, bytes]) -> None:
    jobs = opened(tmp_path / "jobs", replace(LIMITS, seconds=2))
    try:
        job = over(jobs, jobs.submit(stylize(steps=100_000), given))
    finally:
        jobs.close()
    assert job.state == "done"
    assert "limit of 2 seconds" in job.message
    assert 0 < job.step < 100_000


def test_draining_keeps_the_work_and_the_queue(tmp_path: Path, given: dict[str, bytes]) -> None:
    jobs = opened(tmp_path / "jobs")
    running = jobs.submit(stylize(steps=3000), given)
    waiting = jobs.submit(stylize(steps=2), given)
    until(lambda: jobs.get(running.id).step > 30)
    step = jobs.get(running.id).step
    jobs.drain()
    with pytest.raises(Full, match="ending"):
        jobs.submit(stylize(), given)
    jobs.close()
    again = opened(tmp_path / "jobs")
    try:
        until(lambda: again.get(running.id).step > 0)
        assert again.get(running.id).step >= step  # from its checkpoint, not from the start
        assert again.get(running.id).deaths == 0
        again.cancel(running.id)
        assert over(again, waiting).state == "done"
    finally:
        again.close()


def test_kill_9_of_everything_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    script = tmp_path / "server.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from pathlib import Path
            from impasto.jobs.queue import Jobs
            from impasto.jobs.workers import Worker
            from impasto.settings import WorkSettings
            from tests.jobs.conftest import small, stylize

            if __name__ == "__main__":
                given = {{"photo": small("kingfisher"), "painting": small("great_wave")}}
                jobs = Jobs(Path({str(folder)!r}), WorkSettings(), lambda: Worker(1))
                done = jobs.submit(stylize(steps=1), given)
                while not jobs.get(done.id).is_over:
                    time.sleep(0.02)
                running = jobs.submit(stylize(steps=100000), given)
                waiting = jobs.submit(stylize(steps=1), given)
                while jobs.get(running.id).step < 5:
                    time.sleep(0.02)
                print(done.id, running.id, waiting.id, flush=True)
                time.sleep(60)
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout
    done, running, waiting = process.stdout.readline().split()
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    until(lambda: not any(c.is_running() and c.status() != "zombie" for c in children), 10)
    jobs = opened(folder)
    try:
        assert jobs.get(done).state == "done"
        assert jobs.result(done).exists()
        until(lambda: jobs.get(running).state == "running")
        assert jobs.get(waiting).place == 0
        jobs.cancel(running)
        until(lambda: jobs.get(waiting).is_over)
        assert jobs.get(waiting).state == "done"
    finally:
        jobs.close()


def test_finished_jobs_are_kept_within_limits(tmp_path: Path, given: dict[str, bytes]) -> None:
    jobs = opened(tmp_path / "jobs", replace(LIMITS, kept=1))
    try:
        first = over(jobs, jobs.submit(stylize(steps=1), given))
        over(jobs, jobs.submit(stylize(steps=1), given))
        until(lambda: jobs.get(first.id).state == "gone")
        with pytest.raises(Gone):
            jobs.result(first.id)
        with pytest.raises(Gone):
            jobs.cancel(first.id)
        until(lambda: not jobs.store.place(first.id).exists())
        jobs.store.tidy(replace(LIMITS, kept_days=0.001))
        assert jobs.store.count("done") == 1  # it is not that old yet
    finally:
        jobs.close()


def test_removing_and_asking_for_what_never_was(jobs: Jobs, given: dict[str, bytes]) -> None:
    job = over(jobs, jobs.submit(stylize(steps=1), given))
    jobs.remove(job.id)
    with pytest.raises(Gone):
        jobs.remove(job.id)
    with pytest.raises(Unknown, match="no such job"):
        jobs.get("../../etc/passwd")
    with pytest.raises(Unknown):
        jobs.cancel("")


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs")
    with pytest.raises(ImpastoError, match="another impasto works in"):
        Store(tmp_path / "jobs")
    store.close()
    Store(tmp_path / "jobs").close()


def test_a_damaged_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no table" * 1000)
    with pytest.raises(ImpastoError, match=r"jobs\.sqlite is damaged"):
        Store(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImpastoError, match="cannot be used"):
        Store(tmp_path / "file")
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "jobs.sqlite").execute("select * from jobs")


def test_a_full_disk_ends_no_queue(tmp_path: Path, given: dict[str, bytes]) -> None:
    jobs = opened(tmp_path / "jobs")
    table = jobs.store._table
    try:
        running = jobs.submit(stylize(steps=40, size=96), given)
        until(lambda: jobs.get(running.id).step > 0)
        waiting = jobs.submit(stylize(steps=1), given)
        with jobs.store._lock:
            table.execute("insert into jobs (id, state, about) values ('x', 'gone', '')")
            table.execute("pragma query_only = on")  # as a disk that takes no more
        until((jobs.store.place(running.id) / "outcome.json").exists)
        with pytest.raises(Full, match="no room to keep a job; try again in 60 seconds"):
            jobs.submit(stylize(), given)
        until(lambda: not jobs.running)
        with jobs.store._lock:
            table.execute("pragma query_only = off")
        assert over(jobs, running).state == "done"
        assert jobs.get(running.id).step == 40
        assert over(jobs, waiting).state == "done"
        assert jobs.is_alive
    finally:
        jobs.close()


def test_cancelled_jobs_that_waited_take_no_room(jobs: Jobs, given: dict[str, bytes]) -> None:
    first = jobs.submit(stylize(steps=5000), given)
    until(lambda: jobs.get(first.id).state == "running")
    second = jobs.submit(stylize(), given)
    jobs.cancel(second.id)
    assert list(jobs.store.place(second.id).iterdir()) == []
    jobs.cancel(first.id)
    over(jobs, first)


def test_cancel_is_heard_where_nothing_moves(jobs: Jobs) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(buffer, "PNG")
    plain = {"photo": buffer.getvalue(), "painting": buffer.getvalue()}
    job = jobs.submit(stylize(steps=100_000, size=96), plain)
    until(lambda: jobs.get(job.id).state != "waiting")
    time.sleep(3)
    jobs.cancel(job.id)
    until(lambda: jobs.get(job.id).is_over, 10)
    assert jobs.get(job.id).state == "cancelled"


def test_a_job_that_the_server_dies_of_fails_at_last(
    tmp_path: Path, given: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    job = store.add(stylize(), given)
    for begun in range(1, 6):
        store.change(job.id, state="running", begun=begun)
        store.close()
        store = Store(tmp_path)
        assert store.get(job.id).state == ("waiting" if begun < 5 else "failed")
    assert "the server ended 5 times" in store.get(job.id).message
    store.close()
