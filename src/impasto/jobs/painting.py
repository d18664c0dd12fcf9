"""What a worker does for a job: it carries out an order in a folder, and tells how far it is."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto import __version__, catalog
from impasto.errors import ImpastoError
from impasto.jobs.orders import COMMANDS, SAMPLE, Order, arguments
from impasto.jobs.remaining import Remaining
from impasto.jobs.workers import Tell
from impasto.pictures import files, images
from impasto.pictures.samples import sample
from impasto.settings import WorkSettings

RESULT, FILM, CHECKPOINT, OUTCOME = "result.png", "film.mp4", "painting.checkpoint", "outcome.json"
"""The names of what a worker leaves in the folder of a job."""

KEPT = (RESULT, FILM, OUTCOME)

PREVIEW = 640
"""The longer side of a preview, in pixels."""

_TOLD_EVERY = 0.4  # seconds between two events
_WATCHED_EVERY = 0.3  # seconds between two looks at what is wished
_SAVED_EVERY = 10.0  # seconds between two checkpoints


@dataclass(frozen=True)
class Progress:
    """How far a job is: of `planned` steps, and the share of the work that is done, 0..1.

    left: about how many seconds are left; None if nobody knows yet. size: (width, height) being
    painted. preview: the picture so far, as a JPEG.
    """

    step: int
    planned: int
    done: float
    left: float | None = None
    size: tuple[int, int] | None = None
    title: str = ""
    preview: bytes | None = None


def work(order_text: str, folder: str, limits: WorkSettings, tell: Tell) -> dict[str, Any]:
    """Carry out an order with the files in `folder`, and leave the result there.

    Returns what happened: `stopped` ("budget", "flat", "interrupted" by a cancel, "time" at the
    limit, or "later" if it was asked to go on another time), and facts about the result. If an
    earlier worker got to the end, its outcome is returned; where one left a checkpoint, it goes on.

    Raises:
        ImpastoError: the order cannot be carried out; the text says why.
    """
    place = Path(folder)
    with contextlib.suppress(OSError, ValueError):
        known: dict[str, Any] = json.loads((place / OUTCOME).read_text())
        return known
    order = Order.read(order_text)
    told = _WORK[order.command](_Job(order, place, limits, tell))
    if told["stopped"] != "later":
        files.write_whole(json.dumps(told).encode(), place / OUTCOME, force=True)
        (place / CHECKPOINT).unlink(missing_ok=True)
    return told


def work_elsewhere(
    order_text: str, given: Mapping[str, bytes], limits: WorkSettings, tell: Tell
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """As `work`, on a machine that does not see the folder: files come and go as bytes."""
    with tempfile.TemporaryDirectory(prefix="impasto-") as folder:
        for name, data in given.items():
            (Path(folder) / name).write_bytes(data)
        told = work(order_text, folder, limits, tell)
        names = (CHECKPOINT,) if told["stopped"] == "later" else KEPT
        made = {n: path.read_bytes() for n in names if (path := Path(folder) / n).exists()}
        return told, made


class _Job:
    """An order at work."""

    def __init__(self, order: Order, folder: Path, limits: WorkSettings, tell: Tell) -> None:
        self.order, self.folder, self.limits, self.tell = order, folder, limits, tell
        self.choices = arguments(order)
        self.began: float | None = None  # to paint
        self.told = 0.0  # when
        self.remaining = Remaining()
        self.ending = ""
        self._telling = threading.Lock()

    @property
    def machine(self) -> dict[str, Any]:
        """The settings that are not the order's to choose."""
        chosen: dict[str, Any] = {"device": self.limits.device}
        return chosen | ({"memory": self.limits.memory} if self.limits.memory else {})

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, as keyword arguments of the command in Python."""
        return {**self.choices, **self.machine}

    def path(self, name: str) -> Path:
        """The file of a picture that the order names."""
        if name.startswith(SAMPLE):
            return sample(name.removeprefix(SAMPLE))
        return self.folder / name

    @property
    def photos(self) -> list[Path]:
        return [self.path(name) for name in self.order.photos]

    @property
    def paintings(self) -> list[tuple[Path, float]]:
        return [(self.path(name), share) for name, share in self.order.paintings]

    @property
    def regions(self) -> list[tuple[Path, Path]]:
        return [(self.path(mask), self.path(painting)) for mask, painting in self.order.regions]

    def should_end(self, step: Any, title: str = "") -> bool:
        """Tell of a step; whether to end now, which `ending` then has the reason of."""
        now = time.monotonic()
        self.began = self.began or now
        event = None
        if now - self.told >= _TOLD_EVERY:
            self.told = now
            left = self.remaining.seconds(step.done)
            size = tuple(reversed(step.image.shape[-2:]))
            preview = _preview(step)
            event = Progress(step.step, step.planned, step.done, left, size, title, preview)
        return self._ends(event)

    def _ends(self, event: Progress | None = None) -> bool:
        with self._telling:
            self.ending = self.ending or self.tell(event)
        late = self.began is not None and time.monotonic() - self.began > self.limits.seconds
        self.ending = self.ending or ("time" if late else "")
        return bool(self.ending)

    @contextlib.contextmanager
    def watched(self, painting: Any) -> Iterator[None]:
        """Stop a painting that should end, even while it makes no steps."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_WATCHED_EVERY):
                if self._ends():
                    painting.stop()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _preview(step: Any) -> bytes:
    image = images.composed(images.to_image(step.image))
    whole = step.size or image.size
    size = images.fitted_size(whole, min(PREVIEW, max(whole)))
    buffer = io.BytesIO()
    images.resize(image, size).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


_ENDED = {"cancel": "interrupted", "stop": "later", "time": "time"}


def _paint(job: _Job, painting: Any) -> dict[str, Any]:
    """Paint step by step, from where an earlier worker got to."""
    from impasto.pictures.films import Film

    painting.kept_at(job.folder / CHECKPOINT, _SAVED_EVERY)
    film = Film(job.folder / FILM, painting.planned, force=True) if job.order.film else None
    with painting, job.watched(painting):
        for step in painting:
            if film:
                film.add(step)
            if job.should_end(step):
                break
            del step
    stopped = _ENDED.get(job.ending, painting.stopped)
    if stopped == "later":
        return {"stopped": stopped}
    artwork = painting.artwork
    if film:
        film.write()
    record = {**artwork.record, "stopped": stopped}
    files_of = {"film": FILM} if film else {}
    return _saved(job, artwork.image, record, stopped) | {
        "steps": artwork.steps,
        "seconds": round(artwork.seconds, 3),
        "loss": artwork.losses[-1] if artwork.losses else None,
        **files_of,
    }


def _saved(job: _Job, image: Any, record: Any, stopped: str) -> dict[str, Any]:
    images.write(image, job.folder / RESULT, record=record, force=True)
    return {"stopped": stopped, "size": list(image.size), "result": RESULT}


def _stylize(job: _Job) -> dict[str, Any]:
    from impasto.paint.stylize import Stylizer

    stylizer = Stylizer(job.paintings or None, regions=job.regions, **job.settings)
    return _paint(job, stylizer.start(job.photos[0]))


def _reconstruct(job: _Job) -> dict[str, Any]:
    from impasto.paint import reconstruct

    return _paint(job, reconstruct.start(job.photos, **job.settings))


def _texture(job: _Job) -> dict[str, Any]:
    from impasto.paint import texture

    painting = job.paintings[0][0]
    return _paint(job, texture.start(painting, **job.settings))


def _atlas(job: _Job) -> dict[str, Any]:
    from impasto import api

    return _sheet(job, api.atlas, job.photos[0], job.paintings[0][0], **job.settings)


def _compare(job: _Job) -> dict[str, Any]:
    from impasto import api

    vary = {
        name: {str(value): tuple(value) if name == "size" else value for value in values}
        for name, values in job.order.vary.items()
    }
    return _sheet(
        job,
        api.compare,
        job.photos[0],
        job.paintings,
        regions=job.regions,
        vary=vary,
        **job.settings,
    )


def _sheet(job: _Job, make: Any, *given: Any, **choices: Any) -> dict[str, Any]:
    """Make a page of several runs. It has no checkpoint: a worker that dies costs all of it."""
    from impasto.api import SheetInterrupted

    def report(title: str, step: Any) -> None:
        number, _, rest = title.partition(" of ")
        count = int(rest.partition(":")[0])
        whole = dataclasses.replace(step, done=(int(number) - 1 + step.done) / count)
        if job.should_end(whole, title):
            raise KeyboardInterrupt

    try:
        sheet = make(*given, callback=report, **choices)
    except SheetInterrupted as interrupted:
        sheet = interrupted.sheet
    except KeyboardInterrupt:
        if job.ending == "stop":
            return {"stopped": "later"}
        raise ImpastoError("it was cancelled before there was a picture") from None
    stopped = _ENDED.get(job.ending, sheet.stopped)
    if stopped == "later":
        return {"stopped": stopped}
    return _saved(job, sheet.image, dict(sheet.record), stopped)


def _apply(job: _Job) -> dict[str, Any]:
    from impasto.jobs.one_pass import Repaint, painted

    data = job.photos[0].read_bytes()
    style = dict(job.order.style)
    asked = Repaint(data, job.order.network, style, job.choices, "png", job.order.photos[0])
    (made,) = painted([asked], job.limits)
    if isinstance(made, ImpastoError):
        raise made
    data, facts = made
    files.write_whole(data, job.folder / RESULT, force=True)
    return {"stopped": "budget", "result": RESULT, **facts}


def _imagine(job: _Job) -> dict[str, Any]:
    import onnxruntime

    from impasto.networks.files import located
    from impasto.networks.generator import Generator
    from impasto.settings import ImagineSettings, choose

    name = job.order.style[0][0]
    settings = choose(ImagineSettings, None, job.settings)
    generator = Generator.load(name, device=settings.device, memory=settings.memory)
    generator.check(settings.size, settings.tileable)
    image = generator(settings.size, seed=settings.seed, tileable=settings.tileable)
    made = {"size": list(settings.size), "seed": settings.seed, "tileable": settings.tileable}
    record = {
        "impasto": __version__,
        "command": "imagine",
        "network": {"name": catalog.GENERATORS[name], "sha256": files.sha256_of(located(name))},
        "styles": {name: 1.0},
        "onnxruntime": onnxruntime.__version__,
        "device": generator.device,
        "settings": made,
    }
    return _saved(job, image, record, "budget")


_WORK = {
    "stylize": _stylize,
    "reconstruct": _reconstruct,
    "texture": _texture,
    "atlas": _atlas,
    "compare": _compare,
    "apply": _apply,
    "imagine": _imagine,
}
assert _WORK.keys() == COMMANDS.keys()
