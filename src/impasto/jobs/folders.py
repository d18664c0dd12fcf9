"""Folders of thousands: every photo is repainted once, whatever is killed in between.

The output folder is the record of what is done: a picture that is there is finished, because files
appear whole. Beside the pictures lies `report.jsonl`, a line for each photo that was looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import io
import itertools
import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from impasto.errors import ImpastoError, notice, told_of
from impasto.jobs.batcher import MOST, Batcher, worker_count
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.orders import Order, Shares, check_picture
from impasto.jobs.queue import Jobs
from impasto.jobs.store import State
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

    A source is a photo; a folder, with all folders in it (links to folders are not followed); a
    pattern such as `photos/**/*.jpg`; or a `.txt` file with a path on each line. What is in the
    output folder is left out.

    Raises:
        ImpastoError: there is no such file, or a source has no photos in it.
    """
    inside = out.resolve()
    for source in sources:
        found = [
            (photo, place)
            for photo, place in _photos_of(source)
            if not photo.resolve().is_relative_to(inside)
        ]
        if not found:
            raise ImpastoError(
                f"{source} has no photos in it (those in {out} do not count); give another folder "
                "or pattern"
            )
        yield from found


def _photos_of(source: str) -> Iterator[tuple[Path, Path]]:
    path = Path(source)
    if os.path.isdir(path):  # noqa: PTH112 # Path.is_dir raises
        inside = (
            Path(folder) / name
            for folder, _, names in os.walk(path, onerror=_left_out)
            for name in names
        )
        for photo in sorted(filter(_is_photo, inside)):
            yield photo, photo.relative_to(path).with_suffix("")
    elif any(sign in source for sign in _GLOB) and not files.is_file(path):
        for name in sorted(glob.glob(source, recursive=True)):  # noqa: PTH207 # takes any path
            if _is_photo(Path(name)):
                yield Path(name), Path(Path(name).stem)
    elif path.suffix.lower() == _LIST:
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ImpastoError(f"the list {path} cannot be read ({error}); check it") from None
        for line in filter(None, map(str.strip, lines)):
            yield path.parent / line, Path(Path(line).stem)
    elif files.is_file(path):
        yield path, Path(path.stem)
    else:
        raise ImpastoError(f"there is no file {path}; check the path")


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in images.READABLE and files.is_file(path)


def _left_out(error: OSError) -> None:
    notice(f"the folder {error.filename} is left out ({error.strerror})")


def planned(
    photos: Iterable[tuple[Path, Path]], out: Path, ending: str, known: Mapping[str, str]
) -> list[Task]:
    """The tasks of photos, each with a target of its own below `out`; `ending` as in `-x.png`.

    known: the targets of photos that have been painted before, which they keep.
    """
    tasks: dict[str, Task] = {}
    taken = set(known.values())
    for photo, place in photos:
        name = str(photo)
        if name in tasks:
            continue
        target = known.get(name, "")
        for number in itertools.count(1):
            if target:
                break
            more = f"-{number}" if number > 1 else ""
            free = str(out / place.with_name(f"{place.name}{more}{ending}"))
            target = "" if free in taken else free
        taken.add(target)
        tasks[name] = Task(photo, Path(target), name)
    return list(tasks.values())


class Report:
    """The report in an output folder, and what the batch was begun with.

    asked: what every picture is made with, as values that JSON can hold. force: what was painted
    before counts no more. known: where the pictures of photos went, by earlier lines.

    Raises:
        ImpastoError: the folder cannot be used, or has pictures that were made in another way.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any], *, force: bool) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            begun = _read(out / BEGUN) or {"asked": asked, "since": 0.0}
            before, asked = begun.get("asked", {}), json.loads(json.dumps(asked))
            if before != asked and not force:
                differs = ", ".join(n for n in {**before, **asked} if before.get(n) != asked.get(n))
                raise ImpastoError(
                    f"{out} belongs to a batch that differs in: {differs}; choose another folder, "
                    "or --force to paint all anew"
                )
            self.since = time.time() if force else float(begun.get("since", 0.0))
            text = json.dumps({"asked": asked, "since": self.since}, indent=1)
            files.write_whole(text.encode(), out / BEGUN, force=True)
            self.path = out / REPORT
            self.known = dict(self._targets())
            self._file = self.path.open("a", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise ImpastoError(
                f"the folder {out} cannot be used ({error.strerror}); choose another"
            ) from None

    def _targets(self) -> Iterator[tuple[str, str]]:
        with contextlib.suppress(FileNotFoundError):
            text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
            for line in text.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # one that was cut off
                    told = json.loads(line)
                    yield told["photo"], told["output"]

    def is_there(self, task: Task) -> bool:
        """Whether a picture is there that this batch has made."""
        try:
            return os.stat(task.target).st_mtime >= self.since  # noqa: PTH116 # Path.stat raises
        except (OSError, ValueError):
            return False

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


def _written(data: bytes, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(
            f"the folder {target.parent} cannot be created ({error.strerror}); make room for it"
        ) from None
    files.write_whole(data, target, force=True)


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
            _written(data, task.target)
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
        self._kept = self._of_earlier({str(task.target) for task in tasks})

    def _of_earlier(self, targets: Collection[str]) -> dict[str, str]:
        """The jobs of an earlier run by their labels; those of no photo in this one are ended."""
        kept: dict[str, str] = {}
        states: tuple[State, ...] = ("running", "waiting", "done")
        for state in states:
            for job in self.jobs.store.all(state):
                own = dataclasses.replace(self._order("", b""), label=job.order.label)
                if _target_of(job.order.label) in targets and job.order.text == own.text:
                    kept[job.order.label] = job.id
                else:
                    self.jobs.remove(job.id)
        return kept

    def _order(self, target: str, photo: bytes) -> Order:
        label = f"{hashlib.sha256(photo).hexdigest()} {target}"
        return Order("stylize", self.settings, ("photo",), self.paintings, label=label)

    @property
    def room(self) -> bool:
        return len(self._under_way) <= self.jobs.limits.painters

    @property
    def busy(self) -> int:
        return len(self._under_way)

    def submit(self, task: Task) -> None:
        _, data = files.read_whole(task.photo)
        check_picture(data, task.name, self.jobs.limits)
        order = self._order(str(task.target), data)
        id_ = self._kept.pop(order.label, None)
        if id_ is None:
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
            data = self.jobs.result(id_).read_bytes()
            if self.format != "png":
                with Image.open(io.BytesIO(data)) as image:
                    data = images.encoded(image, self.format)
            _written(data, task.target)
        except Exception as error:
            return Outcome(task, error=told_of(task.name, error))
        seconds = job.result.get("seconds") or time.monotonic() - began
        self.jobs.remove(id_)
        if job.message:
            notice(f"{task.name}: {job.message}")
        return Outcome(task, job.result["size"], seconds, notices=job.notices)

    def close(self) -> None:
        states: tuple[State, ...] = ("running", "waiting", "done")
        is_empty = not any(map(self.jobs.store.count, states))
        self.jobs.close()
        if is_empty:
            shutil.rmtree(self.jobs.store.folder, ignore_errors=True)


def _target_of(label: str) -> str:
    return label.partition(" ")[2]
