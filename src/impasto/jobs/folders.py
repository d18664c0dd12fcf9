"""Folders of thousands: every photo is repainted once, whatever is killed in between.

The output folder is the record of what is done: a picture that is there is finished, because files
appear whole. Beside the pictures lies `report.jsonl`, a line for each photo that was looked at.
"""

from __future__ import annotations

import glob
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impasto.errors import ImpastoError, notice, told_of
from impasto.jobs.batcher import MOST, Batcher, worker_count
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.orders import Order, Shares, check_picture
from impasto.jobs.queue import Jobs
from impasto.pictures import files, images

REPORT, BEGUN = "report.jsonl", "batch.json"
"""The names of the files beside the pictures: what happened, and what was asked for."""

HIDDEN = ".impasto-batch"
"""The folder, in the output folder, of paintings that are not finished."""

_GLOB = "*?["
_LIST = ".txt"


@dataclass(frozen=True)
class Task:
    """A photo, where its picture goes, and what it is called in the report."""

    photo: Path
    target: Path
    name: str


@dataclass(frozen=True)
class Outcome:
    """What became of a photo: its picture, or the sentence that says why there is none."""

    task: Task
    size: Sequence[int] = ()
    seconds: float = 0.0
    error: str = ""
    notices: Sequence[str] = field(default=())

    @property
    def line(self) -> dict[str, Any]:
        """The line of the report."""
        told: dict[str, Any] = {"photo": str(self.task.photo)}
        if self.error:
            return told | {"state": "failed", "error": self.error}
        told |= {"state": "done", "output": str(self.task.target), "size": list(self.size)}
        told["seconds"] = round(self.seconds, 3)
        return told | ({"notices": list(self.notices)} if self.notices else {})


def listed(sources: Iterable[str], out: Path) -> Iterator[tuple[Path, Path]]:
    """All photos, each with its place below the output folder (without its own extension).

    A source is a photo; a folder, with all folders in it; a pattern such as `photos/**/*.jpg`; or a
    `.txt` file with a path on each line. The output folder is left out.

    Raises:
        ImpastoError: there is no such file, or a source has no photos in it.
    """
    for source in sources:
        found = list(_photos_of(source, out))
        if not found:
            raise ImpastoError(f"{source} has no photos in it; give another folder or pattern")
        yield from found


def _photos_of(source: str, out: Path) -> Iterator[tuple[Path, Path]]:
    path = Path(source)
    if os.path.isdir(path):  # noqa: PTH112 # Path.is_dir raises
        inside = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        for photo in sorted(p for p in inside if p.suffix.lower() in images.READABLE):
            if not photo.resolve().is_relative_to(out.resolve()):
                yield photo, photo.relative_to(path).with_suffix("")
        return
    if any(sign in source for sign in _GLOB) and not files.is_file(path):
        for name in sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 # takes any path
            photo = Path(name)
            if photo.suffix.lower() in images.READABLE and files.is_file(photo):
                yield photo, Path(photo.stem)
        return
    if path.suffix.lower() == _LIST:
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ImpastoError(f"the list {path} cannot be read ({error}); check it") from None
        for line in filter(None, map(str.strip, lines)):
            photo = path.parent / line
            yield photo, Path(photo.stem)
        return
    if not files.is_file(path):
        raise ImpastoError(f"there is no file {path}; check the path")
    yield path, Path(path.stem)


def planned(photos: Iterable[tuple[Path, Path]], out: Path, ending: str) -> list[Task]:
    """The tasks of photos, each with a target of its own below `out`; `ending` as in `-x.png`."""
    tasks: dict[Path, Task] = {}
    for photo, place in photos:
        target = out / place.with_name(f"{place.name}{ending}")
        number = 2
        while target in tasks and tasks[target].photo != photo:
            target = out / place.with_name(f"{place.name}-{number}{ending}")
            number += 1
        tasks[target] = Task(photo, target, str(photo))
    return list(tasks.values())


class Report:
    """The report in an output folder, and what the batch was begun with.

    asked: what every picture is made with, as values that JSON can hold.

    Raises:
        ImpastoError: the folder cannot be used, or has pictures that were made in another way.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any], *, force: bool) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            known = _read(out / BEGUN)
            if known is not None and known != json.loads(json.dumps(asked)) and not force:
                differs = ", ".join(n for n in {**known, **asked} if known.get(n) != asked.get(n))
                raise ImpastoError(
                    f"{out} belongs to a batch that differs in: {differs}; choose another folder, "
                    "or --force to paint all anew"
                )
            files.write_whole(json.dumps(asked, indent=1).encode(), out / BEGUN, force=True)
            self.path = out / REPORT
            self._file = self.path.open("a", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise ImpastoError(
                f"the folder {out} cannot be used ({error.strerror}); choose another"
            ) from None

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line at once."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Way(ABC):
    """A way to paint many photos. `submit` begins one, `finished` gives those that are over."""

    @property
    @abstractmethod
    def room(self) -> bool:
        """Whether another photo may be submitted."""

    @property
    @abstractmethod
    def busy(self) -> int:
        """How many photos are not over."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Begin a photo; an `ImpastoError` if it cannot be painted."""

    @abstractmethod
    def finished(self) -> list[Outcome]:
        """Those that are over, each once; waits a little if there are none."""

    @abstractmethod
    def close(self) -> None:
        """End the workers; what is not over goes on another time."""


def paint_all(
    tasks: Sequence[Task], way: Way, report: Report, tell: Callable[[Outcome], None]
) -> Iterator[Outcome]:
    """Paint photos, in about their order; gives what became of each, once its file is there.

    Stop iterating to end it: what is finished is kept.
    """
    waiting = iter(tasks)
    is_left = True
    while is_left or way.busy:
        while is_left and way.room:
            task = next(waiting, None)
            if task is None:
                is_left = False
                break
            try:
                way.submit(task)
            except Exception as error:
                yield _noted(Outcome(task, error=told_of(task.name, error)), report, tell)
        if way.busy:
            for outcome in way.finished():
                yield _noted(outcome, report, tell)


def _noted(outcome: Outcome, report: Report, tell: Callable[[Outcome], None]) -> Outcome:
    report.add(outcome.line)
    tell(outcome)
    return outcome


class OnePass(Way):
    """Paints in one pass: many photos are on their way at once."""

    def __init__(
        self,
        batcher: Batcher,
        network: str,
        style: Mapping[str, float],
        settings: Mapping[str, Any],
        format: str,  # noqa: A002
    ) -> None:
        self.batcher, self.network, self.style = batcher, network, style
        self.settings, self.format = settings, format
        self.most = 2 * MOST * worker_count(batcher.limits)
        self._under_way: dict[Future[Painted], Task] = {}

    @property
    def room(self) -> bool:
        return len(self._under_way) < self.most

    @property
    def busy(self) -> int:
        return len(self._under_way)

    def submit(self, task: Task) -> None:
        name, data = files.read_whole(task.photo)
        asked = Repaint(data, self.network, self.style, self.settings, self.format, name)
        self._under_way[self.batcher.submit(asked)] = task

    def finished(self) -> list[Outcome]:
        done, _ = wait(self._under_way, timeout=0.5, return_when=FIRST_COMPLETED)
        return [self._saved(self._under_way.pop(future), future) for future in done]

    def _saved(self, task: Task, future: Future[Painted]) -> Outcome:
        try:
            data, facts = future.result()
            task.target.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(data, task.target, force=True)
        except Exception as error:
            return Outcome(task, error=told_of(task.name, error))
        return Outcome(task, facts["size"], facts["seconds"])

    def close(self) -> None:
        for future in self._under_way:
            future.cancel()
        self.batcher.close(0)


class ByPainting(Way):
    """Paints by optimisation: each photo is a job, which goes on where an earlier run was killed.

    paintings: the bytes of each, with its share. format: of the pictures.
    """

    def __init__(
        self,
        jobs: Jobs,
        paintings: Sequence[tuple[bytes, float]],
        settings: Mapping[str, Any],
        format: str,  # noqa: A002
        tasks: Sequence[Task],
    ) -> None:
        self.jobs, self.settings, self.format = jobs, settings, format
        self.given = {f"painting-{n}": data for n, (data, _) in enumerate(paintings, 1)}
        shares = [share for _, share in paintings]
        self.paintings: Shares = tuple(zip(self.given, shares, strict=True))
        self._under_way: dict[str, tuple[Task, float]] = {}
        self._kept = self._of_earlier({str(task.target): task for task in tasks})

    def _of_earlier(self, tasks: Mapping[str, Task]) -> dict[Path, str]:
        """The jobs of an earlier run by their targets; those of no photo in this one are ended."""
        kept: dict[Path, str] = {}
        for state in ("running", "waiting", "done"):
            for job in self.jobs.store.all(state):
                own = self._order(job.order.label)
                if job.order.label in tasks and job.order.text == own.text:
                    kept[tasks[job.order.label].target] = job.id
                else:
                    self.jobs.remove(job.id)
        return kept

    def _order(self, label: str) -> Order:
        return Order("stylize", self.settings, ("photo",), self.paintings, label=label)

    @property
    def room(self) -> bool:
        return len(self._under_way) <= self.jobs.limits.painters

    @property
    def busy(self) -> int:
        return len(self._under_way)

    def submit(self, task: Task) -> None:
        id_ = self._kept.pop(task.target, None)
        if id_ is None:
            _, data = files.read_whole(task.photo)
            check_picture(data, task.name, self.jobs.limits)
            order = self._order(str(task.target))
            id_ = self.jobs.submit(order, {**self.given, "photo": data}).id
        self._under_way[id_] = task, time.monotonic()

    def finished(self) -> list[Outcome]:
        over = []
        for id_, (task, began) in list(self._under_way.items()):
            job = self.jobs.get(id_)
            if job.is_over:
                del self._under_way[id_]
                over.append(self._saved(task, id_, began))
        if not over:
            time.sleep(0.1)
        return over

    def _saved(self, task: Task, id_: str, began: float) -> Outcome:
        job = self.jobs.get(id_)
        if job.state != "done":
            message = job.message or "it was cancelled"
            self.jobs.remove(id_)
            return Outcome(task, error=f"{task.name} is not painted: {message}")
        try:
            path = self.jobs.result(id_)
            task.target.parent.mkdir(parents=True, exist_ok=True)
            if self.format == "png":
                files.write_whole(path.read_bytes(), task.target, force=True)
            else:
                picture = images.read(path)
                image = picture.image.copy()
                if picture.alpha:
                    image.putalpha(picture.alpha)
                images.write(image, task.target, force=True)
        except Exception as error:
            return Outcome(task, error=told_of(task.name, error))
        seconds = job.result.get("seconds") or time.monotonic() - began
        self.jobs.remove(id_)
        if job.message:
            notice(f"{task.name}: {job.message}")
        return Outcome(task, job.result["size"], seconds, notices=job.notices)

    def close(self) -> None:
        self.jobs.close()
