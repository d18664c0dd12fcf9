"""Errors that the caller can mend, and notices.

The text of an `ImpastoError` is one sentence that names the file or option and says how to mend
it. Any other exception that reaches the caller is a defect of impasto.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

LOGGER = logging.getLogger("impasto")
"""Where notices go. Python prints them to standard error unless a program sets up logging."""

_told: ContextVar[set[str]] = ContextVar("told")


class ImpastoError(ValueError):
    """Bad input; the text says what is wrong and how to mend it."""


class ImpastoNotice(str):
    """Something the caller may want to know, such as that a file name was taken.

    It is the message of a WARNING record of the logger `impasto`.
    """

    __slots__ = ()


def notice(sentence: str) -> None:
    """Log a notice; within `told_once`, only if it has not been logged there before."""
    told = _told.get(set())
    if sentence not in told:
        LOGGER.warning(ImpastoNotice(sentence))
        told.add(sentence)


@contextlib.contextmanager
def fitting(what: str, mend: str = "use a smaller size") -> Iterator[None]:
    """Turn an out-of-memory error into an `ImpastoError` that says that `what` does not fit."""
    try:
        yield
    except Exception as error:
        # The words of torch, on a CPU and on accelerators, and of ONNX Runtime.
        words = "allocate memory|out of memory|bad_alloc|bad allocation|failed to allocate"
        told = re.search(words, str(error), re.IGNORECASE)
        if isinstance(error, MemoryError) or told:
            raise ImpastoError(f"{what} does not fit into memory; {mend}") from None
        raise


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Log each different notice of this thread only once, however many runs give it."""
    token = _told.set(set())
    try:
        yield
    finally:
        _told.reset(token)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`; of several, the one that comes first."""
    return max(known, key=lambda each: difflib.SequenceMatcher(None, each, name).ratio())


def reason_of(error: BaseException) -> str:
    """An error's first line, 200 characters at most; its type as well, unless an `ImpastoError`."""
    said = str(error) if isinstance(error, ImpastoError) else f"{type(error).__name__}: {error}"
    line = said.splitlines()[0]
    return line if len(line) <= 200 else line[:199] + "…"


def told_of(name: str, error: Exception) -> str:
    """A sentence about an error that one of several pictures met with."""
    if isinstance(error, ImpastoError):
        return str(error)
    reason = f"{name} failed ({type(error).__name__}: {error}); that is a defect of impasto, "
    return reason + "please report it"
