"""The server: pictures in one pass, and jobs that outlive a request, over HTTP.

`build` makes the app; `impasto.apps.door.listen` serves it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from impasto import __version__, catalog
from impasto.apps.door import Door, Timed, guarded
from impasto.apps.guard import App
from impasto.apps.serve import docs
from impasto.apps.serve.messages import (
    APPLY_FORM,
    JOB_FORM,
    TYPES,
    ApplyRequest,
    JobRequest,
    JobView,
    Problem,
    Repainted,
    asked_of,
    body,
    is_form,
    order_of,
    told,
    view,
)
from impasto.errors import ImpastoError
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.orders import COMMANDS
from impasto.jobs.queue import Full
from impasto.jobs.store import Gone, Job, Unknown
from impasto.jobs.workers import Defect
from impasto.networks import files as network_files
from impasto.pictures.samples import sample_names
from impasto.settings import ServeSettings

_LOOK = 0.2  # seconds between two looks at a job
_ALIVE = 15.0  # seconds after which an event stream says that it is still there


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is neither a form nor JSON."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    403: {"model": Problem, "description": "Without a token, only this machine is answered."},
    413: {"model": Problem, "description": "The request has too many bytes."},
    422: {"model": Problem, "description": "A picture or a setting is wrong; the text says how."},
    500: {"model": Problem, "description": "A defect of impasto, or a picture that ends workers."},
    503: {"model": Problem, "description": "The queue is full; Retry-After says when to come."},
}
_ONE: dict[int | str, dict[str, Any]] = {
    401: _PROBLEMS[401],
    403: _PROBLEMS[403],
    404: {"model": Problem, "description": "There is no such job, or it has no such file."},
    410: {"model": Problem, "description": "The job was here and was removed."},
}


def build(door: Door, settings: ServeSettings, token: str | None = None) -> App:
    """The server's app, with everything that stands before it."""
    app = FastAPI(
        title="impasto",
        version=__version__,
        description="Repaints photographs in the manner of paintings.",
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
    )
    app.state.door = door
    app.add_middleware(Timed, door=door)
    _handle_errors(app, door)
    _add_one_pass(app, door)
    _add_jobs(app, door)
    _add_facts(app, door)
    return guarded(app, door, settings, token)


def _handle_errors(app: FastAPI, door: Door) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, told(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(ImpastoError)
    async def wrong(_: Request, error: ImpastoError) -> Response:
        if isinstance(error, Full):
            door.refused("full")
            return _problem(503, str(error), {"Retry-After": str(error.retry_after)})
        if isinstance(error, Gone):
            return _problem(410, str(error))
        if isinstance(error, Unknown):
            return _problem(404, str(error))
        if isinstance(error, Defect):
            return _problem(500, str(error))
        door.refused("wrong")
        return _problem(422, str(error))


def _problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    told = sentence.encode("utf-8", "replace").decode()  # half a character may have come in
    return JSONResponse({"detail": told}, status, headers=dict(headers or {}))


_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture; for a request in JSON, with the picture in base64.",
        "model": Repainted,
        "content": {kind: {} for kind in TYPES.values()},
    }
}


def _add_one_pass(app: FastAPI, door: Door) -> None:
    @app.post(
        "/v1/apply",
        summary="Repaint a photo in one pass",
        description="Waits for the picture: some tenths of a second.",
        responses={**_PICTURES, **_PROBLEMS},
        openapi_extra=body(ApplyRequest, APPLY_FORM),
    )
    async def apply(request: Request) -> Response:
        asked, data = await asked_of(request)
        known = door.jobs.networks
        if asked.network not in known:
            raise ImpastoError(
                f"there is no network {asked.network!r}; there are: {', '.join(known)}"
            )
        settings = {"size": asked.size, "strength": asked.strength}
        settings["keep_colors"] = asked.keep_colors  # type: ignore[assignment]
        own = Repaint(data, known[asked.network], asked.style, settings, asked.format)
        picture, facts = await _painted(request, door, own)
        if is_form(request):
            return Response(picture, media_type=TYPES[asked.format])
        text = base64.b64encode(picture).decode()
        told = Repainted(picture=text, size=facts["size"], seconds=facts["seconds"])
        return JSONResponse(told.model_dump())


async def _painted(request: Request, door: Door, asked: Repaint) -> Painted:
    """The picture; if the client goes away before it is begun, it is not painted."""
    future = await run_in_threadpool(door.batcher.submit, asked)
    painted = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_left(request))
    either: set[asyncio.Future[Any]] = {painted, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not painted.done():
            future.cancel()
            raise HTTPException(503, "the client went away")
        return painted.result()
    finally:
        gone.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _known(id: str, request: Request) -> Job:  # noqa: A002
    return await run_in_threadpool(request.app.state.door.jobs.get, id)


Known = Annotated[Job, Depends(_known)]
"""The job that a path names."""


def _add_jobs(app: FastAPI, door: Door) -> None:
    jobs = door.jobs

    @app.post(
        "/v1/jobs",
        status_code=202,
        summary="Begin a job",
        description="Answers at once, with an id by which to ask for the job.",
        responses={202: {"model": JobView}, **_PROBLEMS},
        openapi_extra=body(JobRequest, JOB_FORM),
    )
    async def submit(request: Request) -> Response:
        order, given = await order_of(request)
        job = await run_in_threadpool(jobs.submit, order, given)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        return JSONResponse(view(job).model_dump(), 202, headers=headers)

    @app.get("/v1/jobs/{id}", summary="Ask for the state of a job", responses=_ONE)
    async def state(job: Known) -> JobView:
        if job.state == "gone":
            raise Gone("this job was removed; send it again")
        return view(job)

    @app.get(
        "/v1/jobs/{id}/events",
        summary="Follow a job",
        description="Server-sent events: the job as JSON at every change, with a preview (a JPEG "
        "in base64) as `preview`. The stream ends with the job.",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **_ONE},
    )
    async def events(job: Known) -> Response:
        if job.state == "gone":
            raise Gone("this job was removed; send it again")
        return StreamingResponse(_events(door, job.id), media_type="text/event-stream")

    @app.get(
        "/v1/jobs/{id}/preview",
        summary="The picture so far, of a job that runs",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **_ONE},
    )
    async def preview(job: Known) -> Response:
        if job.state == "gone":
            raise Gone("this job was removed; send it again")
        if not (data := jobs.preview(job.id)):
            raise Unknown("there is no preview yet, or no more; ask for the job's state")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    @app.get(
        "/v1/jobs/{id}/result",
        summary="The picture of a job, a PNG that carries its settings",
        response_class=FileResponse,
        responses={200: {"content": {"image/png": {}}}, **_ONE},
    )
    async def result(job: Known) -> Response:
        path = await run_in_threadpool(jobs.result, job.id)
        return FileResponse(path, media_type="image/png", filename=f"{job.order.command}.png")

    @app.get(
        "/v1/jobs/{id}/film",
        summary="The film of a job that was filmed, an MP4",
        response_class=FileResponse,
        responses={200: {"content": {"video/mp4": {}}}, **_ONE},
    )
    async def film(job: Known) -> Response:
        path = await run_in_threadpool(jobs.film, job.id)
        return FileResponse(path, media_type="video/mp4", filename=f"{job.order.command}.mp4")

    @app.delete(
        "/v1/jobs/{id}",
        summary="Cancel a job that is not over, or remove one that is",
        description="A cancelled job ends within one step and keeps the picture so far.",
        responses=_ONE,
    )
    async def delete(job: Known) -> JobView:
        if job.is_over:
            await run_in_threadpool(jobs.remove, job.id)
            return view(dataclasses.replace(job, state="gone", result={}))
        return view(await run_in_threadpool(jobs.cancel, job.id))


async def _events(door: Door, id: str) -> AsyncIterator[str]:  # noqa: A002
    """The job as JSON at every change, until it is over or the server ends."""
    told: dict[str, Any] = {}
    shown, when = b"", time.monotonic()
    while True:
        job = await run_in_threadpool(door.jobs.get, id)
        preview = door.jobs.preview(id) or b""
        plain = view(job).model_dump()
        if plain != told or preview is not shown:
            told, shown, when = plain, preview, time.monotonic()
            extra = {"preview": base64.b64encode(preview).decode()} if preview else {}
            yield f"event: {job.state}\ndata: {json.dumps({**plain, **extra})}\n\n"
        elif time.monotonic() - when > _ALIVE:
            when = time.monotonic()
            yield ": still here\n\n"
        if job.is_over or job.state == "gone" or door.is_draining:
            return
        await asyncio.sleep(_LOOK)


def _add_facts(app: FastAPI, door: Door) -> None:
    @app.get("/v1/styles", summary="What there is: networks, generators, samples, commands")
    async def styles() -> dict[str, Any]:
        networks = {
            name: [style.name for style in network_files.read(path).styles]
            for name, path in door.jobs.networks.items()
        }
        return {
            "networks": networks,
            "generators": list(catalog.GENERATORS),
            "samples": sample_names(),
            "commands": list(COMMANDS),
        }

    @app.get("/healthz", summary="Whether the server is there")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        summary="Whether it takes work: its networks are loaded, and it is not ending",
        responses={503: {"model": Problem, "description": "Not yet, or no more."}},
    )
    async def ready() -> dict[str, str]:
        if door.is_draining:
            raise HTTPException(503, "the server is ending")
        if not (door.jobs.is_alive and door.batcher.is_alive):
            raise HTTPException(503, "a queue has ended by a defect; begin the server again")
        if not door.batcher.ready:
            raise HTTPException(503, "the networks are being loaded", {"Retry-After": "2"})
        return {"status": "ready"}

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=Response)
    async def metrics() -> Response:
        text = await run_in_threadpool(generate_latest, door.registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def about() -> Response:
        return HTMLResponse(docs.page(app.openapi()))
