"""A picture that was made: from a scene to what is saved, interrupted or not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from impasto import device as machine
from impasto.kernels import ops as compiled
from impasto.optimise.base import Callback, Step
from impasto.paint.checkpoints import Keeper
from impasto.paint.run import Painting
from impasto.pictures import images
from impasto.pictures.images import PathLike

Stopped = Literal["budget", "flat", "interrupted"]


@dataclass(frozen=True)
class Artwork:
    """A finished picture.

    image: PIL image: RGB, or RGBA where parts of the photo are transparent. losses: the loss at
    every step, the start first. parts: the terms of
    the last loss, unweighted, by name. evaluations: how many values and gradients it took.
    stopped: `"budget"` after the steps asked for, `"flat"` when the loss had stopped falling,
    `"interrupted"`. record: what `save` writes into a PNG. checkpoint: the file that the run was
    kept in, if any.
    """

    image: Image.Image
    losses: list[float]
    parts: Mapping[str, float]
    evaluations: int
    stopped: Stopped
    seconds: float
    record: Mapping[str, Any] = field(repr=False)
    checkpoint: Path | None = None

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.losses) - 1

    def save(self, path: PathLike, *, force: bool = False) -> Path:
        """Write the picture in the format of the extension; returns the path written.

        Whole or not at all; an existing file is only replaced with `force`, otherwise a free name
        is chosen (with an `ImpastoNotice`). A PNG carries `record`, see `read_record`. Once the
        picture of a run that has ended is written, its checkpoint is removed.
        """
        written = images.write(self.image, path, record=self.record, force=force)
        if self.checkpoint and self.stopped != "interrupted":
            self.checkpoint.unlink(missing_ok=True)
        return written


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came while painting; `artwork` is the picture as it was then."""

    def __init__(self, artwork: Artwork) -> None:
        super().__init__("interrupted while painting")
        self.artwork = artwork


@dataclass(frozen=True)
class Kept:
    """How a run is kept on disk: by whom, and what `resume` needs beside its progress."""

    keeper: Keeper
    record: Mapping[str, Any]


Saved = tuple[Mapping[str, Any], dict[str, Tensor]]
"""The record and tensors of a checkpoint; the tensors are taken out of it."""


def make(
    painting: Painting,
    name: str,
    record: Mapping[str, Any],
    *,
    restart: int | None = None,
    callback: Callback | None = None,
    kept: Kept | None = None,
    saved: Saved | None = None,
) -> Artwork:
    """Paint to the end, or from where it was `saved`; `name` is what errors call the picture.

    Raises:
        ImpastoError: it does not fit into memory.
        Interrupted: Ctrl-C came after the first evaluation.
    """
    size = painting.levels[-1].size
    earlier = 0.0
    if saved:
        painting.restore(saved[0]["progress"], saved[1])
        earlier = saved[0]["seconds"]
    began = time.perf_counter() - earlier

    def state() -> tuple[dict[str, Any], dict[str, Tensor]]:
        progress = {"progress": painting.record(), "seconds": time.perf_counter() - began}
        return {**(kept.record if kept else {}), **progress}, painting.tensors()

    def report(step: Step) -> None:
        if callback:
            callback(step)
        if kept:
            kept.keeper.keep(state)

    def artwork(stopped: Stopped) -> Artwork:
        step = painting.last
        assert step
        told = {
            **record,
            "levels": [list(level.size) for level in painting.levels],
            "stopped": stopped,
            "steps": step.step,
            "evaluations": step.evaluations,
            "parts": dict(step.parts),
            "losses": painting.losses,
        }
        # What is interrupted on the way is still as large as was asked for.
        image = images.resize(images.to_image(step.image), size)
        return Artwork(
            image,
            painting.losses,
            step.parts,
            step.evaluations,
            stopped,
            time.perf_counter() - began,
            told,
            kept.keeper.path if kept else None,
        )

    made: Artwork | None = None
    interrupted = False
    try:
        with machine.fitting(f"{name} at {size[0]} x {size[1]} pixels"):
            outcome = painting.paint(report, restart)
        made = artwork(outcome.reason)
    except KeyboardInterrupt:
        if painting.last is None:
            raise
        interrupted = True
        if made is None:
            # Now, while the optimiser is still there and knows what it has learned. Pressed once
            # more: the checkpoint before this one is whole, and the picture is here.
            if kept:
                with contextlib.suppress(KeyboardInterrupt):
                    kept.keeper.keep(state, now=True)
            made = artwork("interrupted")
    finally:
        with contextlib.suppress(KeyboardInterrupt):  # what is made is not lost over tidying up
            compiled.clear()
            machine.give_back()
    if interrupted:
        # Raised out here, it does not carry Ctrl-C's own traceback, and with that the optimiser.
        raise Interrupted(made)
    return made
