"""How the command talks to its user: lines, notices, and signals such as Ctrl-C.

No painting is lost because of them. A stream that fails (its reader has gone, its terminal was
closed, it never existed) is written to no more, and Ctrl-C ends the work once, whenever it comes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from impasto.errors import LOGGER, ImpastoError


def prepare() -> None:
    """Make sure that the three standard streams exist, and that every file name can be printed.

    If a stream is closed (`2>&-`), the next file to be opened, such as a picture, gets its number,
    and what a library writes to the stream ends up in that file.
    """
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may be no valid text


def say(line: str) -> None:
    """Write a line to standard error, if that still works."""
    _write("stderr", f"{line}\n")


def tell(line: str) -> None:
    """Write a line about a result to standard output, if that still works."""
    _write("stdout", f"{line}\n")


def print_out(text: str) -> None:
    """Print on standard output the text that a command was asked for.

    Raises:
        ImpastoError: it cannot be written; a pipe that its reader has closed is no error.
    """
    error = _write("stdout", f"{text}\n")
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        raise ImpastoError(
            f"standard output cannot be written ({error.strerror}); send it somewhere else"
        )


def silence(stream: Any) -> None:
    """Discard all that is written to a stream that is gone, even what Python flushes at exit."""
    gone = contextlib.suppress(OSError, ValueError, AttributeError)
    with gone, Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def finish() -> None:
    """Flush the streams, so that Python does not complain about them at exit."""
    for name in ("stdout", "stderr"):
        _write(name, "")


def _write(name: str, text: str) -> Exception | None:
    stream = getattr(sys, name)
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError, AttributeError) as error:  # gone, closed, never there
        silence(stream)
        return error
    return None


class Notices(logging.Handler):
    """A context manager that prints this thread's notices on standard error, unless quiet."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self.quiet, self.thread = quiet, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        if not self.quiet and record.thread == self.thread:
            say(f"note: {record.getMessage()}")

    def __enter__(self) -> None:
        LOGGER.addHandler(self)

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self)


class Interruptions:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP (a closed terminal) into a KeyboardInterrupt.

    The code that catches it saves what there is, which later signals cannot disturb. In threads
    other than the main one, where no signals arrive, this does nothing.

    hold: raise at the next `check`, not when the signal comes. lasting: ignore these signals
    afterwards as well, until the process ends.
    """

    def __init__(self, *, lasting: bool = False) -> None:
        self.asked = False
        self.hold = False
        self.lasting = lasting
        self._before: dict[int, Any] = {}
        self._told: Any = None  # the hook for exceptions that Python loses

    def __enter__(self) -> Interruptions:
        interruptions.set(self)
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                # A script's background job ignores SIGINT by default, but has to save, too. The
                # signals that nohup ignores stay ignored.
                if number and (name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._end)
            self._told, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(self, *_: object) -> None:
        if self._told:
            sys.unraisablehook = self._told
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.lasting else handler)

    def check(self) -> None:
        """Raise a KeyboardInterrupt if a signal was held, or if Python lost the first exception."""
        if self.asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the block end before a signal counts; afterwards `asked` says if one came."""
        self.hold = True
        try:
            yield
        finally:
            self.hold = False

    def _lost(self, lost: Any) -> None:
        """Say nothing of a Ctrl-C that Python lost, in a finaliser: the next `check` raises it."""
        if not (self.asked and isinstance(lost.exc_value, KeyboardInterrupt)):
            self._told(lost)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if first and not self.hold:
            raise KeyboardInterrupt


interruptions: ContextVar[Interruptions] = ContextVar("interruptions")
"""Holds the `Interruptions` of the command that runs in this thread."""
