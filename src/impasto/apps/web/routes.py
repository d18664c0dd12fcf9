"""What the page asks for beside Gradio: pictures that are sent, repainted, and painted by jobs."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response

from impasto.apps.web.guard import Guard
from impasto.apps.web.photos import Forgotten, Photos
from impasto.errors import ImpastoError
from impasto.jobs.batcher import Batcher
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.queue import Full, Jobs
from impasto.jobs.store import Gone, Job, Unknown
from impasto.jobs.workers import Defect
from impasto.pictures import images
from impasto.pictures.samples import sample, sample_names
from impasto.settings import FULL, ServeSettings, amount, parse_memory

NETWORK = "samples"
STYLES = tuple(sample_names()["paintings"])
THUMB = 192
"""The longer side of a photo in each of the styles, in pixels."""

_HERE = Path(__file__).parent
_KEPT_THUMBS = 64  # photos whose thumbnails are kept
_FOREVER = {"Cache-Control": "private, max-age=86400, immutable"}
_NEVER = {"Cache-Control": "no-store"}
_FORMATS = {"png": "image/png", "jpg": "image/jpeg"}
_STATUS: Mapping[type[ImpastoError], HTTPStatus] = {
    Full: HTTPStatus.SERVICE_UNAVAILABLE,
    Unknown: HTTPStatus.NOT_FOUND,
    Forgotten: HTTPStatus.NOT_FOUND,
    Gone: HTTPStatus.GONE,
    Defect: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def app(jobs: Jobs, batcher: Batcher, photos: Photos, settings: ServeSettings) -> FastAPI:
    """The routes; Gradio's page is to be mounted beside them."""
    made = FastAPI(title="impasto", docs_url=None, redoc_url=None, openapi_url=None)
    made.add_middleware(Guard)
    made.add_exception_handler(ImpastoError, _refused)
    _add_photos(made, batcher, photos, parse_memory(settings.upload))
    _add_pictures(made, jobs)

    @made.get("/web/{name}")
    def own(name: str) -> Response:
        if name not in ("page.js", "page.css"):
            raise Unknown("there is no such file")
        return FileResponse(_HERE / name, headers={"Cache-Control": "no-cache"})

    @made.get("/paintings/{name}.jpg")
    def painting(name: str) -> Response:
        return Response(_painting(name), media_type="image/jpeg", headers=_FOREVER)

    @made.get("/favicon.ico")
    def icon() -> Response:
        return Response(_painting("great_wave"), media_type="image/jpeg", headers=_FOREVER)

    return made


def _add_photos(made: FastAPI, batcher: Batcher, photos: Photos, most: int) -> None:
    thumbs = _Thumbs(batcher, photos)

    @made.post("/photos")
    async def send(request: Request) -> dict[str, str]:
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > most:
                raise ImpastoError(f"this file is larger than {amount(most)}; choose a smaller one")
        name = Path(unquote(request.headers.get("x-name", ""))).name[:80] or "this file"
        return {"id": await run_in_threadpool(photos.add, bytes(data), name)}

    @made.get("/photos/{id}/preview.jpg")
    def preview(id: str) -> Response:  # noqa: A002
        return Response(photos.preview(id), media_type="image/jpeg", headers=_FOREVER)

    @made.get("/photos/{id}/as/{style}.jpg")
    async def thumb(id: str, style: str) -> Response:  # noqa: A002
        futures = await run_in_threadpool(thumbs.of, id)
        if style not in futures:
            raise Unknown("there is no such style")
        data, _ = await asyncio.shield(asyncio.wrap_future(futures[style]))
        return Response(data, media_type="image/jpeg", headers=_FOREVER)

    @made.get("/photos/{id}/painted.{kind}")
    async def painted(
        id: str,  # noqa: A002
        kind: str,
        style: Annotated[list[str], Query()],
        size: str = "512",
        strength: float = 1.0,
        colors: str = "",
    ) -> Response:
        if kind not in _FORMATS:
            raise Unknown("there is no such format")
        data = await run_in_threadpool(photos.data, id)
        shares = dict(_shared(each) for each in style)
        chosen: dict[str, Any] = {"strength": strength, "size": _size(size)}
        chosen |= {"keep_colors": colors} if colors else {}
        future = batcher.submit(Repaint(data, NETWORK, shares, chosen, kind))
        result, _ = await asyncio.wrap_future(future)
        return Response(result, media_type=_FORMATS[kind], headers=_FOREVER)


def _add_pictures(made: FastAPI, jobs: Jobs) -> None:
    @made.get("/pictures/{id}")
    def state(id: str) -> Response:  # noqa: A002
        return JSONResponse(told(jobs, jobs.get(id)), headers=_NEVER)

    @made.post("/pictures/{id}/cancel")
    def cancel(id: str) -> Response:  # noqa: A002
        return JSONResponse(told(jobs, jobs.cancel(id)), headers=_NEVER)

    @made.get("/pictures/{id}/preview.jpg")
    def preview(id: str) -> Response:  # noqa: A002
        data = jobs.preview(id)
        if data is None:
            raise Unknown("there is no picture yet")
        return Response(data, media_type="image/jpeg", headers=_NEVER)

    @made.get("/pictures/{id}/picture.png")
    def picture(id: str) -> Response:  # noqa: A002
        return FileResponse(jobs.result(id), headers=_FOREVER)

    @made.get("/pictures/{id}/picture.jpg")
    def as_jpeg(id: str, size: int | None = None) -> Response:  # noqa: A002
        image = images.composed(images.read(jobs.result(id)).image)
        if size and 0 < size < max(image.size):
            image = images.resize(image, images.fitted_size(image.size, size))
        data = images.encoded(image, "jpg")
        return Response(data, media_type="image/jpeg", headers=_FOREVER)

    @made.get("/pictures/{id}/film.mp4")
    def film(id: str) -> Response:  # noqa: A002
        return FileResponse(jobs.film(id), media_type="video/mp4", headers=_FOREVER)


def told(jobs: Jobs, job: Job) -> dict[str, Any]:
    """What the page shows of a job; `words` is for everybody to read."""
    return {
        "state": job.state,
        "isOver": job.is_over or job.state == "gone",
        "words": _words(jobs, job),
        "step": job.step,
        "done": round(job.done, 4),
        "hasPreview": jobs.preview(job.id) is not None,
        "hasPicture": job.has_result,
        "hasFilm": job.has_result and "film" in job.result,
        "failed": _failure(job),
        "notices": list(job.notices),
    }


def sentence(text: str) -> str:
    """The text of an error as a sentence; one that begins with a file's name keeps it."""
    first, _, _ = text.partition(" ")
    return f"{text if '.' in first else text[:1].upper() + text[1:]}."


def _words(jobs: Jobs, job: Job) -> str:
    if job.state == "waiting":
        before = (job.place or 0) + jobs.running
        return f"Waiting for its turn: {before} before you." if before else "Starting…"
    if job.state == "running":
        if not job.planned:
            return "Looking at your pictures…"
        left = f", {_duration(job.left)} left" if job.left is not None else ""
        return f"Step {job.step} of {job.planned}{left}."
    steps = f" after {job.step} steps" if job.step else ""
    message = f" {sentence(job.message)}" if job.message else ""
    return {
        "done": f"Done{steps}.{message}",
        "cancelled": f"Stopped{steps}. The picture so far is kept."
        if job.has_result
        else "Stopped before there was a picture.",
        "failed": "This did not work.",
        "gone": "This picture was removed.",
    }[job.state]


def _failure(job: Job) -> str:
    return sentence(job.message) if job.state == "failed" else ""


def _duration(seconds: float) -> str:
    if seconds < 50:
        return f"about {max(1, round(seconds / 5) * 5 or round(seconds))} seconds"
    minutes = round(seconds / 60) or 1
    if minutes < 90:
        return f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"about {round(minutes / 60)} hours"


class _Thumbs:
    """Photos in every style, painted together; those of the last photos are kept."""

    def __init__(self, batcher: Batcher, photos: Photos) -> None:
        self.batcher, self.photos = batcher, photos
        self.kept: OrderedDict[str, dict[str, Future[Painted]]] = OrderedDict()
        self._lock = threading.Lock()  # a browser asks for all five at once

    def of(self, id: str) -> dict[str, Future[Painted]]:  # noqa: A002
        """The five of a photo, asked for at once."""
        with self._lock:
            return self._found(id)

    def _found(self, id: str) -> dict[str, Future[Painted]]:  # noqa: A002
        found = self.kept.get(id)
        if found is None or any(each.done() and each.exception() for each in found.values()):
            data = self.photos.preview(id)
            self.kept[id] = found = {
                style: self.batcher.submit(
                    Repaint(data, NETWORK, {style: 1.0}, {"size": THUMB}, "jpg")
                )
                for style in STYLES
            }
        self.kept.move_to_end(id)
        while len(self.kept) > _KEPT_THUMBS:
            self.kept.popitem(last=False)
        return found


@functools.cache
def _painting(name: str) -> bytes:
    if name not in STYLES:
        raise Unknown("there is no such painting")
    image = images.read(sample(name)).image
    return images.encoded(images.resize(image, images.fitted_size(image.size, 320)), "jpg")


def _shared(text: str) -> tuple[str, float]:
    """The style and its share in a text such as great_wave:0.5."""
    name, _, share = text.partition(":")
    try:
        return name, float(share or 1)
    except ValueError:
        raise ImpastoError(f"the share of {name} is {share!r}; give a number") from None


def _size(text: str) -> int | str:
    return int(text) if text.isdecimal() and len(text) < 9 else text or FULL


def _refused(_: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Full) else {}
    text = json.dumps({"error": sentence(str(error))})
    code = status or HTTPStatus.UNPROCESSABLE_ENTITY
    return Response(text, code, headers | _NEVER, media_type="application/json")
