"""How long work still goes on, from the share of it that is done."""

from __future__ import annotations

import time


class Remaining:
    """Estimates the time left; steps at small sizes count for little, so the share does."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.begun = 0.0

    def seconds(self, done: float) -> float | None:
        """The seconds left when a share of 0..1 is done; None if nobody knows yet."""
        now = time.monotonic()
        if self.began is None:
            self.began, self.begun = now, done
        if done <= self.begun:
            return None
        return (now - self.began) * (1 - done) / (done - self.begun)
