"""Jobs on disk: a SQLite table, and a folder of files for each job. Nothing is lost by kill -9."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from impasto.errors import ImpastoError
from impasto.jobs.orders import Order
from impasto.jobs.painting import RESULT
from impasto.pictures import files
from impasto.settings import WorkSettings, parse_memory

State = Literal["waiting", "running", "done", "failed", "cancelled", "gone"]
"""What a job is. A cancelled one may have a picture; one that is gone had one."""

OVER = ("done", "failed", "cancelled")

BEGUN = 5
"""How often a job may be what a server was painting when it was killed; then it fails."""

_REMEMBERED = 90 * 86400  # seconds for which a job that is gone is not merely unknown
_SCHEMA = """
create table if not exists jobs (
    number integer primary key autoincrement,
    id text not null unique,
    state text not null,
    ended real,
    bytes integer not null default 0,
    about text not null
);
create index if not exists states on jobs (state, number);
"""


class Unknown(ImpastoError):
    """There never was such a job."""


class Gone(ImpastoError):
    """The job was here and was removed."""


@dataclass(frozen=True)
class Job:
    """A job as it is at the moment.

    begun: how often it was begun without an end that anybody saw; only a server that ends with
    its workers leaves more than one.

    place: how many jobs are before it, if it waits. step, planned, done, left, size, title: see
    `painting.Progress`. message: why it failed, or what else is to be said. deaths: how many
    workers ended while they had it. result: facts about the result, see `painting.work`. notices:
    what the user may want to know.
    """

    id: str
    order: Order
    state: State = "waiting"
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    place: int | None = None
    step: int = 0
    planned: int = 0
    done: float = 0.0
    left: float | None = None
    size: tuple[int, int] | None = None
    title: str = ""
    message: str = ""
    deaths: int = 0
    begun: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more, but that it may be removed."""
        return self.state in OVER

    @property
    def has_result(self) -> bool:
        """Whether there is a picture."""
        return self.is_over and "result" in self.result


_KEPT = (
    "created",
    "started",
    "message",
    "deaths",
    "begun",
    "result",
    "notices",
    "step",
    "planned",
    "done",
)


class Store:
    """The jobs in a folder, which belongs to one process at a time.

    Raises:
        ImpastoError: another process has the folder, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / "jobs").mkdir(parents=True, exist_ok=True)
            self._owned = FileLock(folder / "lock")
            self._owned.acquire(timeout=0)
        except Timeout:
            raise ImpastoError(
                f"another impasto works in {folder}; end it first, or use another folder"
            ) from None
        except OSError as error:
            raise ImpastoError(
                f"the folder {folder} cannot be used ({error.strerror}); give another --folder"
            ) from None
        self._lock = threading.RLock()
        try:
            self._table = sqlite3.connect(
                folder / "jobs.sqlite", check_same_thread=False, isolation_level=None
            )
            self._table.execute("pragma journal_mode = wal")
            self._table.execute("pragma synchronous = full")
            self._table.executescript(_SCHEMA)
            self._recover()
        except sqlite3.DatabaseError as error:
            self._owned.release()
            raise ImpastoError(
                f"{folder / 'jobs.sqlite'} is damaged ({error}); move it away, or give another "
                "--folder"
            ) from None

    def close(self) -> None:
        """Give the folder back."""
        with self._lock:
            self._table.close()
            self._owned.release()

    def place(self, id: str) -> Path:  # noqa: A002
        """The folder of a job that is known to be one."""
        return self.folder / "jobs" / id

    def add(self, order: Order, given: Mapping[str, bytes]) -> Job:
        """Put a new job at the end of the queue."""
        job = Job(secrets.token_urlsafe(16), order, created=time.time())
        folder = self.place(job.id)
        folder.mkdir()
        try:
            for name, data in given.items():
                files.write_whole(data, folder / name, force=True)
            with self._lock:
                self._table.execute(
                    "insert into jobs (id, state, about) values (?, ?, ?)",
                    (job.id, job.state, _text(job)),
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return job

    def get(self, id: str) -> Job:  # noqa: A002
        """The job with this id.

        Raises:
            Unknown: there never was one.
        """
        with self._lock:
            row = self._table.execute(
                "select id, state, ended, about, number from jobs where id = ?", (id,)
            ).fetchone()
            if row is None:
                raise Unknown("there is no such job; check the id")
            job = _read(row)
            if job.state != "waiting":
                return job
            (before,) = self._table.execute(
                "select count(*) from jobs where state = 'waiting' and number < ?", (row[4],)
            ).fetchone()
            return dataclasses.replace(job, place=before)

    def next(self) -> Job | None:
        """The job that has waited longest."""
        with self._lock:
            row = self._table.execute(
                "select id, state, ended, about from jobs where state = 'waiting' "
                "order by number limit 1"
            ).fetchone()
            return _read(row) if row else None

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        with self._lock:
            (count,) = self._table.execute(
                "select count(*) from jobs where state = ?", (state,)
            ).fetchone()
            return int(count)

    def change(self, id: str, **fields: Any) -> Job:  # noqa: A002
        """Change a job on disk; returns it as it is then."""
        with self._lock:
            job = dataclasses.replace(self.get(id), **fields)
            size = 0
            if job.is_over:
                place = self.place(id)
                size = sum(path.stat().st_size for path in place.iterdir() if path.is_file())
            self._table.execute(
                "update jobs set state = ?, ended = ?, bytes = ?, about = ? where id = ?",
                (job.state, job.ended, size, _text(job), id),
            )
            return job

    def remove(self, id: str) -> None:  # noqa: A002
        """Remove a job's files; the id is remembered for a while."""
        with self._lock:
            job = self.get(id)
            self._table.execute(
                "update jobs set state = 'gone', ended = ?, bytes = 0, about = ? where id = ?",
                (time.time(), _text(Job(id, Order(job.order.command), created=job.created)), id),
            )
        shutil.rmtree(self.place(id), ignore_errors=True)

    def tidy(self, limits: WorkSettings) -> None:
        """Remove the oldest finished jobs that are beyond the limits."""
        now, most = time.time(), parse_memory(limits.kept_size)
        with self._lock:
            rows = self._table.execute(
                "select id, ended, bytes from jobs where state in ('done', 'failed', 'cancelled') "
                "order by ended desc"
            ).fetchall()
            total, removed = 0, []
            for number, (id_, ended, size) in enumerate(rows):
                total += size
                is_old = now - (ended or 0) > limits.kept_days * 86400
                if number >= limits.kept or (total > most and number) or is_old:
                    removed.append(id_)
            self._table.execute(
                "delete from jobs where state = 'gone' and ended < ?", (now - _REMEMBERED,)
            )
        for id_ in removed:
            self.remove(id_)

    def all(self, state: State) -> Iterator[Job]:
        """All jobs in a state, the oldest first."""
        with self._lock:
            rows = self._table.execute(
                "select id, state, ended, about from jobs where state = ? order by number", (state,)
            ).fetchall()
        yield from map(_read, rows)

    def _recover(self) -> None:
        """What was running when the process ended waits again, before all others."""
        for job in self.all("running"):
            if job.begun < BEGUN:
                self.change(job.id, state="waiting")
            else:
                message = f"the server ended {job.begun} times while it painted this; "
                message += "choose a smaller size"
                self.change(job.id, state="failed", ended=time.time(), message=message)
        known = {id_ for (id_,) in self._table.execute("select id from jobs where state != 'gone'")}
        for place in (self.folder / "jobs").iterdir():
            if place.name not in known:
                shutil.rmtree(place, ignore_errors=True)


def _text(job: Job) -> str:
    about = {name: getattr(job, name) for name in _KEPT}
    return json.dumps({**about, "order": job.order.text})


def _read(row: tuple[Any, ...]) -> Job:
    about = json.loads(row[3])
    order = Order.read(about.pop("order"))
    notices = tuple(about.pop("notices"))
    return Job(id=row[0], state=row[1], ended=row[2], order=order, notices=notices, **about)


def result_of(store: Store, job: Job) -> Path:
    """The picture of a job.

    Raises:
        Gone: it was removed.
        Unknown: there is none, or none yet.
    """
    if job.state == "gone":
        raise Gone("this job was removed, and its picture with it; send it again")
    path = store.place(job.id) / RESULT
    if not job.has_result or not os.path.isfile(path):  # noqa: PTH113
        raise Unknown("this job has no picture, or none yet; ask for its state")
    return path
