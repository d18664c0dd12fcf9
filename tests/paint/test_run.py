"""A run is an iterator: whoever iterates may stop after any step, in any thread."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import (
    Artwork,
    Evaluation,
    Objective,
    Painting,
    Settings,
    Step,
    Stylizer,
    resume,
    sample,
    stylize,
)
from impasto.errors import LOGGER
from impasto.paint import checkpoints, reconstruct, texture

PHOTO, PAINTING = sample("kingfisher"), sample("cafe_terrace_at_night")
SETTINGS: dict[str, Any] = {"size": 64, "levels": 2, "steps": 10}


@pytest.fixture(scope="module")
def whole() -> Artwork:
    return stylize(PHOTO, PAINTING, **SETTINGS)


def test_to_iterate_is_to_paint(whole: Artwork) -> None:
    painting = Stylizer(PAINTING, **SETTINGS).start(PHOTO)
    steps = list(painting)
    assert [step.step for step in steps] == list(range(11))
    assert steps[-1].done == 1
    assert {(step.planned, step.size) for step in steps} == {(10, (64, 36))}
    made = painting.artwork
    assert made.stopped == "budget"
    assert made.losses == whole.losses
    assert made.image.tobytes() == whole.image.tobytes()
    assert list(painting) == []


@pytest.mark.parametrize("after", [0, 4, 7])
def test_whoever_stops_has_a_picture_and_a_checkpoint(
    after: int, whole: Artwork, checkpoint: Path
) -> None:
    stylizer = Stylizer(PAINTING, **SETTINGS)
    with stylizer.start(PHOTO, checkpoint=checkpoint, checkpoint_every=1000) as painting:
        for step in painting:
            if step.step == after:
                break
    made = painting.artwork
    assert made.stopped == "interrupted"
    assert made.steps == after
    assert made.image.size == whole.image.size
    assert len(checkpoints.read(checkpoint).progress.losses) == after + 1
    resumed = resume(checkpoint)
    assert resumed.steps == 10
    assert resumed.losses[-1] == pytest.approx(whole.losses[-1], rel=0.02)


def test_stopped_from_another_thread_between_steps() -> None:
    painting = Stylizer(PAINTING, **SETTINGS).start(PHOTO)
    third, stopped = threading.Event(), threading.Event()
    seen: list[int] = []

    def paint() -> None:
        for step in painting:
            seen.append(step.step)
            if step.step == 3:
                third.set()
                stopped.wait(60)

    worker = threading.Thread(target=paint)
    worker.start()
    assert third.wait(60)
    painting.stop()
    stopped.set()
    worker.join(60)
    assert seen == [0, 1, 2, 3]
    assert painting.artwork.stopped == "interrupted"


def test_stopped_from_another_thread_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that is being made is the last."""
    painting = Stylizer(PAINTING, **SETTINGS).start(PHOTO)
    steps = list(itertools.islice(painting, 4))
    evaluate = Objective.__call__

    def meanwhile(self: Objective, image: torch.Tensor) -> Evaluation:
        other = threading.Thread(target=painting.stop)
        other.start()
        other.join()
        return evaluate(self, image)

    monkeypatch.setattr(Objective, "__call__", meanwhile)
    steps += list(painting)
    assert [step.step for step in steps] == [0, 1, 2, 3, 4]
    assert painting.artwork.losses == [step.loss for step in steps]


def test_one_stylizer_for_two_paintings_at_once() -> None:
    """Begun together and painted in turns, they are what they are alone; and so is what is told."""
    stylizer = Stylizer(PAINTING, size="full", steps=4, levels=1)
    photos = [Image.open(PHOTO).resize(size) for size in ((64, 36), (96, 54))]
    alone = [stylize(photo, PAINTING, size="full", steps=4, levels=1) for photo in photos]
    paintings = [stylizer.start(photo) for photo in photos]
    for _ in zip(*paintings, strict=False):
        pass
    for painting, one in zip(paintings, alone, strict=True):
        list(painting)
        assert painting.artwork.image.tobytes() == one.image.tobytes()
        assert painting.artwork.record == one.record


def test_what_is_raised_on_the_way_leaves_the_picture(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    painting = Stylizer(PAINTING, **SETTINGS).start(
        PHOTO, checkpoint=checkpoint, checkpoint_every=1000
    )
    steps = list(itertools.islice(painting, 4))

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("impasto.losses.objective.Objective.__call__", fail)
    with pytest.raises(KeyboardInterrupt):
        next(painting)
    monkeypatch.undo()
    assert painting.artwork.losses == [step.loss for step in steps]
    assert len(checkpoints.read(checkpoint).progress.losses) == 4
    assert resume(checkpoint).steps == 10


def both(photo: str, painting: str, **settings: Any) -> Artwork:
    return stylize(sample(photo), sample(painting), **settings)


RUNS: list[tuple[str, str, dict[str, Any]]] = [
    ("kingfisher", "great_wave", {"size": 64, "steps": 6, "optimizer": "adam"}),
    ("owl", "night_cafe", {"size": 48, "steps": 8, "style_loss": "wasserstein", "seed": 3}),
]


@pytest.mark.parametrize("threads", [1, 2])
def test_two_at_once_in_two_threads_are_as_one_after_the_other(threads: int) -> None:
    """With different settings; and nothing of the program around is changed by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = [both(photo, painting, **how) for photo, painting, how in RUNS]
        together: dict[int, Artwork] = {}
        counts: list[int] = []

        def paint(number: int) -> None:
            torch.set_num_threads(threads)
            photo, painting, how = RUNS[number]
            together[number] = both(photo, painting, **how)
            counts.append(torch.get_num_threads())

        handlers = signal.getsignal(signal.SIGINT), LOGGER.handlers[:], warnings.showwarning
        workers = [threading.Thread(target=paint, args=(number,)) for number in range(len(RUNS))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert counts == [threads, threads]
        assert torch.get_num_threads() == threads
        assert handlers == (
            signal.getsignal(signal.SIGINT),
            LOGGER.handlers[:],
            warnings.showwarning,
        )
    finally:
        torch.set_num_threads(before)
    for number, one in enumerate(alone):
        assert together[number].image.tobytes() == one.image.tobytes()
        assert together[number].losses == one.losses


def test_notices_of_one_thread_are_not_told_by_the_other() -> None:
    """Each run tells of its own; whoever listens knows the thread from the record."""
    told: list[tuple[str, str]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append((record.threadName or "", record.getMessage()))

    def paint(longer: int) -> None:
        small = Image.new("RGB", (longer, longer // 2), "teal")
        stylize(small, small, size=2 * longer, steps=0, levels=1, style_layers=["relu1_1"])

    listener = Listener()
    before, LOGGER.handlers[:] = LOGGER.handlers[:], [listener]
    try:
        workers = [
            threading.Thread(target=paint, args=(longer,), name=str(longer)) for longer in (32, 40)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        LOGGER.handlers[:] = before
    assert sorted(name for name, _ in told) == ["32", "40"]
    assert all(f"has only {name} x" in sentence for name, sentence in told)


def painted_elsewhere(folder: str) -> None:
    stylize(PHOTO, PAINTING, size=48, steps=3).save(Path(folder) / "there.png")


def test_in_a_spawned_process(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=painted_elsewhere, args=(str(tmp_path),)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0
    torch_threads = torch.get_num_threads()
    here = stylize(PHOTO, PAINTING, size=48, steps=3)
    with Image.open(tmp_path / "there.png") as there:
        difference = np.abs(np.asarray(there, int) - np.asarray(here.image, int))
    assert difference.max() <= (0 if torch_threads == 1 else 2)


def test_the_others_are_iterators_too() -> None:
    for painting in (
        reconstruct.start(PHOTO, size=32, steps=2, layers=["relu1_1"]),
        texture.start(PAINTING, size=(32, 32), steps=2, painting_size=64),
    ):
        assert isinstance(painting, Painting)
        assert [step.step for step in painting] == [0, 1, 2]
        assert painting.artwork.stopped == "budget"


def test_settings_can_be_handed_over_as_a_whole(whole: Artwork) -> None:
    settings = Settings(**SETTINGS | {"steps": 99})
    made = stylize(PHOTO, PAINTING, settings=settings, steps=10)
    assert made.image.tobytes() == whole.image.tobytes()


def test_a_painting_that_nobody_finishes_goes_away(checkpoint: Path) -> None:
    """Let go of, it writes its checkpoint and holds nothing."""
    painting = Stylizer(PAINTING, **SETTINGS).start(
        PHOTO, checkpoint=checkpoint, checkpoint_every=1000
    )
    steps: list[Step] = list(itertools.islice(painting, 3))
    del painting
    assert len(checkpoints.read(checkpoint).progress.losses) == 3
    assert [step.state() for step in steps] == [{}, {}, {}]
