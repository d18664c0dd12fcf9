"""A queue of long jobs: kept on disk, painted by workers, watched and cancelled from any thread."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto.errors import LOGGER, ImpastoError, reason_of, told_of
from impasto.jobs.orders import Order, checked
from impasto.jobs.painting import FILM, KEPT, Progress
from impasto.jobs.store import Gone, Job, Store, Unknown, result_of
from impasto.jobs.workers import Died, Hung, Runs, Wish
from impasto.pictures import files
from impasto.settings import WorkSettings

DEATHS = 2
"""How many workers a job may take with it before it fails."""

ENDING = "this server is ending"

_ROOM = 60.0  # seconds after which there may be room again
_PAUSE = 1.0  # seconds until a folder that failed is tried again
_IDLE = 60.0  # seconds between two looks at what is to be removed
_GRACE = 60.0  # seconds beyond the limit after which a worker that does not end itself is ended


class Full(ImpastoError):
    """The queue is full; `retry_after` is when to try again, in seconds."""

    def __init__(self, why: str, seconds: float) -> None:
        self.retry_after = max(1, min(3600, round(seconds)))
        super().__init__(f"{why}; try again in {self.retry_after} seconds")


@dataclass
class _Live:
    """What is known of a running job beside what is on disk."""

    progress: Progress | None = None
    preview: bytes | None = None
    wish: Wish = ""


class Jobs:
    """Jobs in a folder, and the workers that paint them.

    folder: where they are kept; see `Store`. limits: how much is taken on. start: begins a worker.
    networks: the networks for apply, by the names that orders may use, each with its file.

    Raises:
        ImpastoError: another process has the folder, or it cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        limits: WorkSettings,
        start: Callable[[], Runs],
        networks: Mapping[str, str] | None = None,
    ) -> None:
        self.limits, self.store = limits, Store(folder)
        self.networks = networks or {"samples": "samples"}
        self.store.tidy(limits)
        self.deaths = 0  # of workers, since the start
        self.ended: dict[str, int] = {"done": 0, "failed": 0, "cancelled": 0}
        self.seconds = 60.0  # that a job takes, by the last ones
        self.also_tidied: list[Callable[[], None]] = []  # what else goes with time
        self._start = start
        self._live: dict[str, _Live] = {}
        self._changed = threading.Condition(threading.RLock())
        self._arriving = 0  # jobs that are being written to disk
        self._is_open = True
        self._workers: list[Runs] = []
        self._threads = [
            threading.Thread(target=self._paint_jobs, name=f"painter-{number}", daemon=True)
            for number in range(limits.painters)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, order: Order, given: Mapping[str, bytes]) -> Job:
        """Put a job at the end of the queue.

        Raises:
            ImpastoError: the order cannot be carried out; the text says why.
            Full: too many jobs wait.
        """
        if order.network not in self.networks:
            known = ", ".join(self.networks)
            raise ImpastoError(f"there is no network {order.network!r}; there are: {known}")
        order = checked(order, given, self.limits)
        order = dataclasses.replace(order, network=self.networks[order.network])
        with self._changed:
            waiting = self.store.count("waiting") + self._arriving
            if not self._is_open or waiting >= self.limits.queue:
                why = f"{waiting} jobs wait already" if self._is_open else ENDING
                raise Full(why, self.seconds * (waiting + 1) / len(self._threads))
            self._arriving += 1
        try:
            job = self.store.add(order, given)
        except (OSError, sqlite3.Error, ImpastoError) as error:
            LOGGER.warning("a job could not be kept (%s)", reason_of(error))
            raise Full("this server has no room to keep a job", _ROOM) from None
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()
        return self.get(job.id)

    def get(self, id: str) -> Job:  # noqa: A002
        """The job with this id, as it is now; `Unknown` if there never was one."""
        with self._changed:
            job, live = self.store.get(id), self._live.get(id)
        if live is None or live.progress is None or job.state != "running":
            return job
        told = live.progress
        return dataclasses.replace(
            job,
            step=told.step,
            planned=told.planned,
            done=told.done,
            left=told.left,
            size=told.size,
            title=told.title,
        )

    def preview(self, id: str) -> bytes | None:  # noqa: A002
        """The picture so far of a running job, as a JPEG; None before there is one."""
        live = self._live.get(id)
        return live.preview if live else None

    def result(self, id: str) -> Path:  # noqa: A002
        """The file of a job's picture, a PNG; errors are those of `store.result_of`."""
        return result_of(self.store, self.store.get(id))

    def film(self, id: str) -> Path:  # noqa: A002
        """The file of a job's film, an MP4; errors are those of `store.result_of`."""
        job = self.store.get(id)
        picture = result_of(self.store, job)
        if "film" not in job.result:
            raise Unknown("this job was not filmed; send it again with film")
        return picture.with_name(FILM)

    def cancel(self, id: str) -> Job:  # noqa: A002
        """End a job; one that runs ends within a step, and what is painted by then is kept.

        Raises:
            Unknown, Gone: there is no such job, or it was removed.
        """
        with self._changed:
            job = self.store.get(id)
            if job.state == "gone":
                raise Gone("this job was removed already")
            if id in self._live:
                self._live[id].wish = "cancel"
            elif not job.is_over:  # it waits, or what happened to it could not be written
                self._end(job, "cancelled")
            self._changed.notify_all()
        self._tidy()
        return self.get(id)

    def remove(self, id: str) -> None:  # noqa: A002
        """Remove a job that is over, with its files; one that is not is cancelled first."""
        job = self.cancel(id) if not self.get(id).is_over else self.get(id)
        if job.state == "gone":
            raise Gone("this job was removed already")
        if job.is_over:
            self.store.remove(id)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return self.store.count("waiting")

    @property
    def running(self) -> int:
        """How many jobs are being painted."""
        return len(self._live)

    @property
    def workers(self) -> list[Runs]:
        """The workers that have been started."""
        return list(self._workers)

    @property
    def is_alive(self) -> bool:
        """Whether all of its threads go on."""
        return all(thread.is_alive() for thread in self._threads)

    def drain(self) -> None:
        """Take on nothing new; what runs saves its checkpoint and ends, to go on another time."""
        with self._changed:
            self._is_open = False
            for live in self._live.values():
                live.wish = live.wish or "stop"
            self._changed.notify_all()

    def close(self, seconds: float = 30.0) -> None:
        """`drain`, wait so long for the workers, and end them; what has not ended begins again."""
        self.drain()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for worker in self._workers:
            worker.close()
        for thread in self._threads:
            thread.join(5)
        self.store.close()

    def _paint_jobs(self) -> None:
        worker = self._start()
        self._workers.append(worker)
        while self._is_open:
            job = None
            try:
                job = self._next()
                if job:
                    self._paint(job, self._live[job.id], worker)
            except (OSError, sqlite3.Error, ImpastoError) as error:  # a full disk, say
                LOGGER.warning("the queue waits, because its folder fails (%s)", reason_of(error))
                time.sleep(_PAUSE)  # the job begins again: its worker's outcome is there
            except Exception as error:
                traceback.print_exception(error)
                with contextlib.suppress(Exception):
                    if job:
                        self._end(job, "failed", message=told_of("it", error))
            finally:
                with self._changed:
                    if job:
                        self._let_go(job)
                    self._changed.notify_all()
            self._tidy()

    def _let_go(self, job: Job) -> None:
        """A job is with no worker any more; a cancel that its worker did not hear counts still."""
        live = self._live.pop(job.id)
        with contextlib.suppress(OSError, sqlite3.Error):
            if live.wish == "cancel" and self.store.get(job.id).state in ("waiting", "running"):
                self._end(job, "cancelled")

    def _next(self) -> Job | None:
        """The job that has waited longest, as one that runs; None at the end, and now and then."""
        with self._changed:
            for lost in self.store.all("running"):  # what happened to it could not be written
                if lost.id not in self._live:
                    self.store.change(lost.id, state="waiting")
            job = self.store.next()
            if job is None and self._is_open:
                self._changed.wait(_IDLE)
                job = self.store.next()
            if job is None or not self._is_open:
                return None
            started = job.started or time.time()
            job = self.store.change(job.id, state="running", started=started, begun=job.begun + 1)
            self._live[job.id] = _Live()
            return job

    def _tidy(self) -> None:
        with contextlib.suppress(OSError, sqlite3.Error):
            self.store.tidy(self.limits)
            for tidy in self.also_tidied:
                tidy()

    def _paint(self, job: Job, live: _Live, worker: Runs) -> None:
        """Paint one job, and note on disk how it ended."""

        def hear(event: Progress) -> None:
            live.preview = event.preview or live.preview
            live.progress = event

        began = time.monotonic()
        seconds = self.limits.seconds + _GRACE
        try:
            told, notices = self._call(job, worker, hear, lambda: live.wish, seconds)
        except Died as death:
            self._died(job, live, death)
            return
        except ImpastoError as error:
            state = "cancelled" if live.wish == "cancel" else "failed"
            self._end(job, state, message=str(error))
            return
        if told["stopped"] == "later":
            progress = live.progress
            done = progress.done if progress else 0.0
            self.store.change(job.id, state="waiting", done=done, begun=job.begun - 1)
            return
        self.seconds += 0.3 * (time.monotonic() - began - self.seconds)
        limit = f"it ended at the limit of {self.limits.seconds:g} seconds, with the picture so far"
        message = limit if told["stopped"] == "time" else ""
        state = "cancelled" if told["stopped"] == "interrupted" else "done"
        progress = live.progress
        done = 1.0 if state == "done" else progress.done if progress else 0.0
        steps = told.get("steps", 0)
        planned = progress.planned if progress else steps
        self._end(
            job,
            state,
            message=message,
            result=told,
            notices=notices,
            done=done,
            step=steps,
            planned=planned,
        )

    def _call(
        self,
        job: Job,
        worker: Runs,
        hear: Callable[[Any], None],
        wish: Callable[[], Wish],
        seconds: float,
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        folder = self.store.place(job.id)
        ways: dict[str, Any] = {"hear": hear, "wish": wish, "seconds": seconds}
        where = "impasto.jobs.painting:"
        if worker.is_here:
            told, notices = worker.run(
                f"{where}work", job.order.text, str(folder), self.limits, **ways
            )
            return told, tuple(notices)
        given = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        (told, made), notices = worker.run(
            f"{where}work_elsewhere", job.order.text, given, self.limits, **ways
        )
        for name, data in made.items():
            files.write_whole(data, folder / name, force=True)
        return told, tuple(notices)

    def _died(self, job: Job, live: _Live, death: Died) -> None:
        """The worker ended: the job waits again, or fails if it was the second."""
        with self._changed:
            if not self._is_open:  # it was ended by `close`
                self.store.change(job.id, state="waiting", begun=job.begun - 1)
                return
        self.deaths += 1
        deaths = self.store.get(job.id).deaths + 1
        if live.wish == "cancel":
            self._end(job, "cancelled", message="its worker ended before it could stop")
        elif isinstance(death, Hung):
            limit = f"it painted longer than {self.limits.seconds:g} seconds and did not stop"
            message = f"{limit}; choose a smaller size or fewer steps"
            self._end(job, "failed", message=message, deaths=deaths)
        elif deaths >= DEATHS:
            message = f"it ended {deaths} workers, perhaps for lack of memory"
            self._end(job, "failed", message=f"{message}; choose a smaller size", deaths=deaths)
        else:
            self.store.change(job.id, state="waiting", deaths=deaths, begun=job.begun - 1)

    def _end(self, job: Job, state: str, **fields: Any) -> None:
        for path in self.store.place(job.id).iterdir():  # inputs and checkpoints are not kept
            if path.name not in KEPT:
                path.unlink(missing_ok=True)
        self.store.change(job.id, state=state, ended=time.time(), **fields)
        self.ended[state] += 1
