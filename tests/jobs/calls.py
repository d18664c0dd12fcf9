"""Calls that workers make in tests; each has the `tell` of a call as its last argument."""

from __future__ import annotations

import os
import signal
import time

from impasto.errors import ImpastoError, notice
from impasto.jobs.workers import Tell


def count(to: int, pause: float, tell: Tell) -> list[int | str]:
    """Count, telling each number, until a wish comes."""
    counted: list[int | str] = []
    for number in range(to):
        counted.append(number)
        if wish := tell(number):
            return [*counted, wish]
        time.sleep(pause)
    notice(f"counted to {to}")
    return counted


def refuse(tell: Tell) -> None:  # noqa: ARG001
    raise ImpastoError("this is wrong; do that")


def break_down(tell: Tell) -> None:  # noqa: ARG001
    raise KeyError("a defect")


def die(tell: Tell) -> None:  # noqa: ARG001
    os.kill(os.getpid(), signal.SIGKILL)


def threads(tell: Tell) -> str:  # noqa: ARG001
    return os.environ["OMP_NUM_THREADS"]


def ignores_signals(tell: Tell) -> bool:  # noqa: ARG001
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return True
