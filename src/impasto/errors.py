"""What can go wrong through no fault of the code, and what is worth saying when it goes well.

An `ImpastoError` is a mistake that the caller can mend: its text is one sentence that names the
file or option and the mend. Everything else that escapes is a defect of impasto.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

LOGGER = logging.getLogger("impasto")
"""Where notices go. Python prints them to standard error unless a program sets up its logging."""

_told: ContextVar[set[str] | None] = ContextVar("told", default=None)


class ImpastoError(ValueError):
    """Bad input; the text says what is wrong and how to mend it."""


class ImpastoNotice(str):
    """Something the caller may want to know: only the first frame was used, a name was taken.

    It is the message of a record of the logger `impasto`, of level WARNING.
    """

    __slots__ = ()


def notice(sentence: str) -> None:
    """Tell of something that is no error."""
    told = _told.get()
    if told is None or sentence not in told:
        LOGGER.warning(ImpastoNotice(sentence))
    if told is not None:
        told.add(sentence)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Let every notice of this thread through once, however many runs give it."""
    token = _told.set(set())
    try:
        yield
    finally:
        _told.reset(token)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]


def reason_of(error: BaseException) -> str:
    """What an error says in a line; of what nobody foresaw, its kind as well."""
    said = str(error) if isinstance(error, ImpastoError) else f"{type(error).__name__}: {error}"
    line = said.splitlines()[0]
    return line if len(line) <= 200 else line[:199] + "…"
