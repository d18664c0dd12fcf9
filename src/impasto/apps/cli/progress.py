"""How far a run has got: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from impasto.apps.cli import console
from impasto.jobs.remaining import Remaining

if TYPE_CHECKING:  # imports torch, which `impasto --help` must not wait for
    from impasto.networks.learning import TrainingStep
    from impasto.optimise.base import Step


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Shows each run, if it can, as a bar on a terminal, or in about `lines` lines elsewhere."""

    def __init__(self, *, quiet: bool, lines: int = 10) -> None:
        self.quiet = quiet
        self.lines = lines
        self.title = ""
        self.remaining = Remaining()
        self.number = -1  # that was shown last
        self.bar: Any = None

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            with self._quiet_if_it_fails():
                self.bar.refresh()
                self.bar.close()
        self.bar = None

    def update(self, title: str, step: Step) -> None:
        """Show a step of the run called `title`."""
        height, width = step.image.shape[-2:]
        told = f"loss {step.loss:.4g}"
        self._show(title, step.step, step.planned, step.done, told, f", {width} x {height}")

    def trained(self, title: str, step: TrainingStep) -> None:
        """Show a step of the training called `title`; the bar counts percents."""
        losses = step.validation or step.losses
        told = f"step {step.step}"
        for name in ("content", "style"):
            if value := getattr(losses, name, 0.0):
                told += f", {name} {value:.3f}"
        if step.round:
            told += f", estimate {step.round.estimate:.3f}"
        told += " on held-out photos" if step.validation else ""
        self._show(title, int(100 * step.done), 100, step.done, told, unit="percent")

    def counted(self, title: str, number: int, planned: int, told: str) -> None:
        """Show how many pictures of several are finished."""
        self._show(title, number, planned, number / max(1, planned), told, unit="picture")

    def _show(
        self,
        title: str,
        number: int,
        planned: int,
        done: float,
        told: str,
        more: str = "",
        unit: str = "step",
    ) -> None:
        if title != self.title:
            self.__exit__()
            self.title, self.remaining = title, Remaining()
            self.number = -1
        seconds = self.remaining.seconds(done)
        left = "" if seconds is None else f", about {_duration(seconds)} left"
        if self.quiet:
            return
        with self._quiet_if_it_fails():
            if self.bar is None and sys.stderr is not None and sys.stderr.isatty():
                self.bar = self._new_bar(planned, unit)
            if self.bar is not None:
                self.bar.set_postfix_str(f"{told}{more}{left}", refresh=False)
                self.bar.update(number - self.bar.n)
            elif number != self.number and number % max(1, planned // self.lines) == 0:
                console.say(f"{title}: {unit} {number}/{planned}, {told}{left}")
            self.number = number

    def _new_bar(self, planned: int, unit: str) -> Any:
        from tqdm import tqdm

        # tqdm puts a comma before a postfix itself.
        return tqdm(
            total=planned,
            desc=self.title,
            leave=False,
            bar_format=f"{{desc}} |{{bar}}| {unit} {{n_fmt}}/{{total_fmt}}{{postfix}}",
            # A terminal may be resized; without known columns tqdm would show nothing.
            **({"dynamic_ncols": True} if _columns() else {"ncols": 80, "nrows": 24}),
        )

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


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} minutes"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0
