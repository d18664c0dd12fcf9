"""How far a run has got: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from impasto.apps.cli import console

if TYPE_CHECKING:  # imports torch, which `impasto --help` must not wait for
    from impasto.optimise.base import Step


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Shows each run, if it can, as a bar on a terminal, or in about `lines` lines elsewhere."""

    def __init__(self, *, quiet: bool, lines: int = 10) -> None:
        self.quiet = quiet
        self.lines = lines
        self.title = ""
        self.began, self.begun = 0.0, 0.0
        self.bar: Any = None

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            with self._quiet_if_it_fails():
                self.bar.refresh()
                self.bar.close()
        self.bar = None

    def update(self, title: str, step: Step) -> None:
        """Show a step of the run called `title`."""
        if title != self.title:
            self.__exit__()
            self.title, self.began, self.begun = title, time.monotonic(), step.done
        if not self.quiet:
            with self._quiet_if_it_fails():
                self._show(step)

    def _show(self, step: Step) -> None:
        if self.bar is None and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            # tqdm puts a comma before a postfix itself.
            form = "{desc} |{bar}| step {n_fmt}/{total_fmt}{postfix}"
            self.bar = tqdm(
                total=step.planned,
                desc=self.title,
                leave=False,
                bar_format=form,
                # A terminal may be resized; without known columns tqdm would show nothing.
                **({"dynamic_ncols": True} if _columns() else {"ncols": 80, "nrows": 24}),
            )
        if self.bar is not None:
            height, width = step.image.shape[-2:]
            told = f"loss {step.loss:.4g}, {width} x {height}{self._left(step)}"
            self.bar.set_postfix_str(told, refresh=False)
            self.bar.update(step.step - self.bar.n)
        elif step.step % max(1, step.planned // self.lines) == 0:
            line = f"{self.title}: step {step.step}/{step.planned}, loss {step.loss:.4g}"
            console.say(line + self._left(step))

    @contextlib.contextmanager
    def _quiet_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the terminal has gone; how shows in many ways
            self.quiet = True
            if isinstance(error, OSError):
                console.silence(sys.stderr)
            if self.bar is not None:
                self.bar.disable = True
                self.bar = None

    def _left(self, step: Step) -> str:
        """The time left, from the part of the work done; steps at small sizes count for little."""
        if step.done <= self.begun:
            return ""
        elapsed = time.monotonic() - self.began
        return f", about {elapsed * (1 - step.done) / (step.done - self.begun):.0f} s left"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0
