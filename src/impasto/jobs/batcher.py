"""Pictures that are painted in one pass: what waits when a worker gets free goes in together.

There is no timer. While all workers are busy, pictures gather by themselves; when none waits, the
next one is painted at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from impasto.errors import LOGGER, ImpastoError, reason_of, told_of
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.orders import check_picture, check_pixels
from impasto.jobs.queue import DEATHS, ENDING, Full
from impasto.jobs.workers import Defect, Died, Runs, machine_cores
from impasto.networks.network import TOGETHER
from impasto.networks.sessions import Sessions
from impasto.pictures import images
from impasto.settings import FULL, ApplySettings, WorkSettings, choose

MOST = 16
"""The most pictures of a batch."""

SECONDS = 300.0
"""A worker that needs longer for a batch is ended as one that hangs."""

_WHERE = "impasto.jobs.one_pass:"


@dataclass(eq=False)
class _Waiting:
    """A picture that waits; by itself after a worker that had it died."""

    asked: Repaint
    size: tuple[int, int]
    since: float
    future: Future[Painted] = field(default_factory=Future)
    deaths: int = 0

    @property
    def group(self) -> object:
        """What can be painted together has the same."""
        return self.asked.network, self.size, id(self) if self.deaths else None

    def begins(self) -> bool:
        """Whether somebody still waits for it."""
        return self.future.set_running_or_notify_cancel()

    def settle(self, result: Painted | ImpastoError) -> None:
        """Give the future its result."""
        with contextlib.suppress(InvalidStateError):  # whoever asked has given up
            if isinstance(result, ImpastoError):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)


def worker_count(limits: WorkSettings) -> int:
    """How many workers paint in one pass: one a core is fastest, each with one thread."""
    if limits.workers is not None:
        return limits.workers
    return 1 if Sessions(limits.device).device == "cuda" else machine_cores()


class Batcher:
    """Paints pictures in one pass by workers, several at once.

    start: begins a worker. networks: those to load at once. observe: called with the number of
    pictures of each batch, and the seconds that it took.
    """

    def __init__(
        self,
        limits: WorkSettings,
        start: Callable[[], Runs],
        networks: Sequence[str] = ("samples",),
        observe: Callable[[int, float], None] = lambda *_: None,
    ) -> None:
        self.limits, self.networks, self.observe = limits, networks, observe
        self.deaths = self.ready = 0
        self.seconds = 1.0  # that a picture takes, by the last ones
        self.together = MOST
        self._start = start
        self._waiting: deque[_Waiting] = deque()
        self._running = 0
        self._changed = threading.Condition()
        self._is_open = True
        self._workers: list[Runs] = []
        self._threads = [
            threading.Thread(target=self._paint_batches, name=f"batcher-{number}", daemon=True)
            for number in range(worker_count(limits))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, asked: Repaint) -> Future[Painted]:
        """Ask for a picture; the future gives it, or a sentence that says why there is none.

        Raises:
            ImpastoError: it is no picture, has too many pixels, or a setting is wrong.
            Full: too many pictures wait.
        """
        size = self.size_of(asked)
        with self._changed:
            waiting = len(self._waiting)
            if not self._is_open or waiting >= self.limits.queue:
                why = f"{waiting} pictures wait already" if self._is_open else ENDING
                raise Full(why, self.seconds * (waiting + 1) / len(self._threads))
            entry = _Waiting(asked, size, time.monotonic())
            self._waiting.append(entry)
            self._changed.notify()
        return entry.future

    def size_of(self, asked: Repaint) -> tuple[int, int]:
        """The (width, height) of the result; errors are those of `submit`."""
        settings = choose(ApplySettings, None, asked.settings)
        own = check_picture(asked.data, asked.name, self.limits)
        size = own if settings.size == FULL else images.fitted_size(own, int(settings.size))
        check_pixels("the result", size, self.limits)
        return size

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many pictures are being painted."""
        return self._running

    @property
    def workers(self) -> list[Runs]:
        """The workers that have been started."""
        return list(self._workers)

    @property
    def is_alive(self) -> bool:
        """Whether all of its threads go on."""
        return all(thread.is_alive() for thread in self._threads)

    def drain(self) -> None:
        """Take on nothing new; what waits is still painted."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def close(self, seconds: float = 30.0) -> None:
        """`drain`, wait so long for what waits and runs, and end the workers."""
        self.drain()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for worker in self._workers:
            worker.close()
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
        for entry in left:
            entry.settle(ImpastoError("the server has ended; try again"))

    def _paint_batches(self) -> None:
        worker = self._start()
        self._workers.append(worker)
        self._warm(worker)
        while batch := self._next():
            self._paint(batch, worker)

    def _warm(self, worker: Runs) -> None:
        for _ in range(DEATHS):
            try:
                worker.run(f"{_WHERE}warm", list(self.networks), self.limits, seconds=SECONDS)
            except Died:
                continue
            except Exception as error:  # pictures will say it, too
                LOGGER.warning("the networks cannot be loaded (%s)", reason_of(error))
                return
            self.ready += 1
            return

    def _next(self) -> list[_Waiting]:
        """The picture that has waited longest, and all that go with it; none at the end."""
        with self._changed:
            while True:
                while not self._waiting and self._is_open:
                    self._changed.wait(60)
                if not self._waiting:
                    return []
                first = self._waiting[0]
                pixels = first.size[0] * first.size[1]
                most = max(1, min(self.together, TOGETHER // pixels))
                batch = [entry for entry in self._waiting if entry.group == first.group][:most]
                self._waiting = deque(entry for entry in self._waiting if entry not in batch)
                # Whoever asked may have given up.
                batch = [entry for entry in batch if entry.deaths or entry.begins()]
                if batch:
                    self._running += len(batch)
                    return batch

    def _paint(self, batch: list[_Waiting], worker: Runs) -> None:
        began = time.monotonic()
        try:
            asked = [entry.asked for entry in batch]
            painted, _ = worker.run(f"{_WHERE}painted", asked, self.limits, seconds=SECONDS)
        except Died:
            self._died(batch)
        except Exception as error:
            failure = error if isinstance(error, ImpastoError) else Defect(told_of("it", error))
            for entry in batch:
                entry.settle(failure)
        else:
            seconds = time.monotonic() - began
            self.seconds += 0.2 * (seconds / len(batch) - self.seconds)
            self.observe(len(batch), seconds)
            for entry, each in zip(batch, painted, strict=True):
                entry.settle(each)
        finally:
            with self._changed:
                self._running -= len(batch)

    def _died(self, batch: list[_Waiting]) -> None:
        """The worker ended: each picture is tried once more, by itself; another may be to blame."""
        self.deaths += 1
        again = []
        for entry in batch:
            entry.deaths += 1
            if entry.deaths >= DEATHS:
                sentence = f"{entry.asked.name} ended {DEATHS} workers; choose a smaller size"
                entry.settle(Defect(sentence))
            else:
                again.append(entry)
        with self._changed:
            self._waiting.extendleft(reversed(again))
            self._changed.notify_all()
