"""How the command talks with whoever runs it, whatever has become of the terminal by then.

Nothing here ends or loses a painting: a pipe whose reader has gone, a terminal that was closed or
a stream that never was are written to no more, and Ctrl-C ends the work once, whenever it comes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

from impasto.errors import LOGGER, ImpastoError


def prepare() -> None:
    """Make sure of the three standard streams, and that every file name can be printed.

    Where one of them is closed (`2>&-`), the next file to be opened, a picture say, would get its
    number, and whatever a library writes to that stream would end up in it.
    """
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text


def say(line: str) -> None:
    """A line on standard error, as long as anyone is there to read it."""
    _write("stderr", line)


def tell(line: str) -> None:
    """A line on standard output about what was made, likewise: the file itself is what counts."""
    _write("stdout", line)


def print_out(text: str) -> None:
    """What a command was asked to print, and nothing else.

    Raises:
        ImpastoError: it cannot be written; a reader who has seen enough is no error.
    """
    error = _write("stdout", text)
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        raise ImpastoError(
            f"standard output cannot be written ({error.strerror}); send it somewhere else"
        )


def silence(stream: Any) -> None:
    """Send what goes to a stream that is gone nowhere, what Python flushes at its end too."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def finish() -> None:
    """Write what is still waiting, so that Python has nothing to complain of at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            silence(stream)


def _write(name: str, text: str) -> Exception | None:
    stream = getattr(sys, name)
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except (OSError, ValueError, AttributeError) as error:  # gone, closed, never there
        silence(stream)
        return error
    return None


class Notices(logging.Handler):
    """While it is entered, says the notices of this thread, as plain sentences, unless quiet."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self.quiet, self.thread = quiet, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        if not self.quiet and record.thread == self.thread:
            say(f"note: {record.getMessage()}")

    def __enter__(self) -> None:
        LOGGER.addHandler(self)

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self)


class Interruptions:
    """Ctrl-C, SIGTERM and a closed terminal, all alike: the first one ends the work, once.

    It raises a KeyboardInterrupt, from which whoever works saves what there is. Those that follow
    change nothing: however often the key is pressed, what is being saved is saved. Signals only
    arrive in a program's main thread; in another one this does nothing.

    hold: whether it has to wait for the next `check`. lasting: when the work is over, what is left
    of the process is not to be disturbed any more.
    """

    def __init__(self, *, lasting: bool = False) -> None:
        self.asked = False
        self.hold = False
        self.lasting = lasting
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        _CURRENT.set(self)
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                # A job that a script starts in the background has Ctrl-C switched off; it shall
                # save, too. What nohup has switched off stays so.
                if number and (name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.lasting else handler)

    def check(self) -> None:
        """End the work if that was asked for: it was held, or Python lost what was raised."""
        if self.asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let something be finished first, such as a file; `asked` tells afterwards."""
        self.hold = True
        try:
            yield
        finally:
            self.hold = False

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if first and not self.hold:
            raise KeyboardInterrupt


_CURRENT: ContextVar[Interruptions] = ContextVar("interruptions")


def interruptions() -> Interruptions:
    """Those of the command that runs in this thread."""
    return _CURRENT.get()
