"""Workers: processes that make one call after another, and may die without taking others along.

A call is the name of a function, as `module:name`, and its arguments. The function also gets
`tell`, by which it reports events and hears whether it should end. A `Worker` is a spawned process
on this machine; `impasto.jobs.cluster` has one with the same methods on another machine.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pkgutil
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol

from impasto.errors import LOGGER, ImpastoError, ImpastoNotice, told_of

Wish = Literal["", "cancel", "stop"]
"""What a call should do: go on, end with what there is, or end so that it can go on later."""

Tell = Callable[[Any], Wish]
"""Called by a call with each event (None for none), it gives the wish of the moment."""

Notices = list[str]

_PAUSE = 0.05  # seconds between two looks at the wish
_CONTEXT = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork


class Died(Exception):
    """A worker ended in the middle of a call."""


class Hung(Died):
    """A call took longer than it may, and its worker was ended."""


class Defect(ImpastoError):
    """A call failed in a way that nobody foresaw; the text says so."""


class Runs(Protocol):
    """What `Jobs` and `Batcher` need of a worker."""

    @property
    def is_here(self) -> bool:
        """Whether it sees the files of this machine."""
        ...

    def run(
        self,
        call: str,
        *arguments: Any,
        hear: Callable[[Any], None] = ...,
        wish: Callable[[], Wish] = ...,
        seconds: float | None = None,
    ) -> tuple[Any, Notices]:
        """Make a call; returns its result and the notices that it gave.

        hear: gets its events. wish: asked often what it should do. seconds: after this time the
        worker is ended, as one that hangs.

        Raises:
            Died: the worker ended; the next call has a new one.
            ImpastoError: as the call raised it; `Defect` for any other exception.
        """
        ...

    def close(self) -> None:
        """End the worker at once."""
        ...


def machine_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Worker:
    """A process on this machine; see `Runs`.

    threads: how many threads compute in it, at most as many as OMP_NUM_THREADS says; None for
        that, or for one a core.
    """

    is_here = True

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._process: Any = None
        self._connection: Connection | None = None
        self._number = 0
        self._closed = False
        self._changing = threading.Lock()  # another thread may close it as it begins

    @property
    def pid(self) -> int | None:
        """The number of its process, while there is one."""
        return self._process.pid if self._process else None

    def run(
        self,
        call: str,
        *arguments: Any,
        hear: Callable[[Any], None] = lambda _: None,
        wish: Callable[[], Wish] = lambda: "",
        seconds: float | None = None,
    ) -> tuple[Any, Notices]:
        """Make a call; see `Runs.run`."""
        if self._closed:
            raise Died("the worker is closed")
        try:
            connection = self._connection or self._start()
        except OSError as error:  # no more files or processes may be opened
            time.sleep(1)
            raise Died(f"it cannot begin ({error.strerror})") from None
        self._number += 1
        until = None if seconds is None else time.monotonic() + seconds
        told: Wish = ""
        try:
            connection.send((self._number, call, arguments))
            while True:
                if (wished := wish()) != told:
                    told = wished
                    connection.send((self._number, told, ()))
                if connection.poll(_PAUSE):
                    number, kind, value, notices = connection.recv()
                    if number == self._number and kind == "event":
                        hear(value)
                    elif number == self._number and kind == "done":
                        return value, notices
                    elif number == self._number:
                        raise (ImpastoError if kind == "refused" else Defect)(value)
                if until is not None and time.monotonic() > until:
                    break
        except (EOFError, OSError):  # it died, or another thread has closed it
            pass
        self._end()
        if until is not None and time.monotonic() > until:
            raise Hung("it took too long")
        raise Died("it died")

    def close(self) -> None:
        """End the process at once."""
        self._closed = True
        self._end()

    def _start(self) -> Connection:
        with self._changing:
            if self._closed:
                raise Died("the worker is closed")
            ours, theirs = _CONTEXT.Pipe()
            self._process = _CONTEXT.Process(
                target=_serve, args=(theirs, self._threads), name="impasto-worker", daemon=True
            )
            self._process.start()
            # Python would end it by SIGTERM at exit, which it leaves to its parent, and wait for
            # ever.
            util.Finalize(self, _killed, (self._process,), exitpriority=10)
            theirs.close()
            self._connection = ours
            return ours

    def _end(self) -> None:
        with self._changing:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
            if connection:
                connection.close()
            if process:
                _killed(process)


def _killed(process: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        process.kill()
        process.join(10)


class Collected(logging.Handler):
    """Collects notices, which are the caller's to show."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: Notices = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, ImpastoNotice):
            self.notices.append(record.getMessage())


def _serve(connection: Connection, threads: int | None) -> None:
    """What a worker's process does: calls, until its parent goes away."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the parent's to answer
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    if threads and not (allowed.isdigit() and 0 < int(allowed) < threads):
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    threading.Thread(target=_end_with_parent, daemon=True).start()
    collected = Collected()
    LOGGER.addHandler(collected)
    LOGGER.propagate = False
    while True:
        try:
            number, call, arguments = connection.recv()
        except EOFError:
            return
        if call in ("", "cancel", "stop"):  # a wish that came too late
            continue
        collected.notices = []
        kind, value = made(call, arguments, _Ear(connection, number))
        connection.send((number, kind, value, collected.notices))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait([parent.sentinel])
        os._exit(1)


def made(call: str, arguments: tuple[Any, ...], tell: Tell) -> tuple[str, Any]:
    """Make a call; how it went ("done", "refused" or "defect"), and its result or a sentence."""
    try:
        return "done", pkgutil.resolve_name(call)(*arguments, tell)
    except ImpastoError as error:
        return "refused", str(error)
    except Exception as error:
        traceback.print_exc()
        return "defect", told_of("it", error)


class _Ear:
    """The worker's side of `Tell`."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection, self.number = connection, number
        self.wish: Wish = ""

    def __call__(self, event: Any) -> Wish:
        if event is not None:
            self.connection.send((self.number, "event", event, []))
        while self.connection.poll():
            number, wish, _ = self.connection.recv()
            if number == self.number:
                self.wish = wish
        return self.wish
