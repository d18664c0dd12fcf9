"""The server: pictures in one pass, and jobs that outlive a request, over HTTP.

`build` makes the app, `listen` serves any app until a signal comes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import html
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import psutil
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from impasto import __version__, catalog
from impasto.apps.guard import App, Guard, Message, Receive, Scope, Send
from impasto.errors import ImpastoError
from impasto.jobs.batcher import Batcher
from impasto.jobs.one_pass import Painted, Repaint
from impasto.jobs.orders import COMMANDS, SAMPLE, Order
from impasto.jobs.queue import Full, Jobs
from impasto.jobs.store import Gone, Job, Unknown
from impasto.jobs.workers import Defect
from impasto.networks import files as network_files
from impasto.pictures.samples import sample_names
from impasto.settings import ServeSettings, parse_memory

DRAIN = 30.0
"""Seconds that running work gets to end after SIGTERM."""

_LOOK = 0.2  # seconds between two looks at a job
_ALIVE = 15.0  # seconds after which an event stream says that it is still there
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_FORM = "multipart/form-data"

Format = Literal["png", "jpg", "webp"]


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ApplyRequest(_Strict):
    """A photo to repaint in one pass."""

    photo: str = Field(description="the file of a picture, in base64")
    style: dict[str, float] = Field(description="styles of the network, each with its share")
    network: str = "samples"
    size: int | Literal["full"] = 512
    strength: float = 1.0
    keep_colors: bool | Literal["luminance", "histogram"] | None = None
    format: Format = "png"


class Repainted(BaseModel):
    """A repainted photo."""

    picture: str = Field(description="the file of the picture, in base64")
    size: list[int] = Field(description="width and height in pixels")
    seconds: float


class Weighted(_Strict):
    """A painting, and how much it counts."""

    picture: str = Field(description="the file of a picture, in base64, or sample:NAME")
    weight: float = 1.0


class Region(_Strict):
    """A painting for the part of the photo where the mask is white."""

    mask: str = Field(description="the file of a picture, in base64")
    painting: str = Field(description="the file of a picture, in base64, or sample:NAME")


class JobRequest(_Strict):
    """A job: a command of impasto, its settings and pictures."""

    command: str = Field(description=f"one of: {', '.join(COMMANDS)}")
    settings: dict[str, Any] = Field({}, description="as in Python: size, strength, steps, ...")
    photos: list[str] = Field([], description="files in base64, or sample:NAME")
    paintings: list[Weighted] = []
    regions: list[Region] = []
    style: dict[str, float] = Field({}, description="for apply and imagine: names and shares")
    vary: dict[str, list[Any]] = Field({}, description="for compare: settings and their values")
    film: bool = False
    network: str = "samples"


class Result(BaseModel):
    """Facts about a job's picture."""

    model_config = ConfigDict(extra="allow")

    stopped: str = Field(
        description="budget or flat (finished), interrupted (cancelled) or time (at the limit)"
    )
    size: list[int] | None = None
    steps: int | None = None
    seconds: float | None = None
    loss: float | None = None


class JobView(BaseModel):
    """A job as it is at the moment."""

    id: str
    command: str
    state: Literal["waiting", "running", "done", "failed", "cancelled", "gone"]
    place: int | None = Field(description="how many jobs are before it, while it waits")
    step: int
    planned: int
    done: float = Field(description="the share of the work that is done")
    seconds_left: float | None
    size: list[int] | None
    message: str
    notices: list[str]
    created: float
    started: float | None
    ended: float | None
    result: Result | None
    links: dict[str, str]


def view(job: Job) -> JobView:
    """What is told of a job."""
    own = f"/v1/jobs/{job.id}"
    links = {"self": own, "events": f"{own}/events"}
    if job.state == "running":
        links["preview"] = f"{own}/preview"
    if job.has_result:
        links["result"] = f"{own}/result"
        if "film" in job.result:
            links["film"] = f"{own}/film"
    facts = {n: v for n, v in job.result.items() if n not in ("result", "film")}
    return JobView(
        id=job.id,
        command=job.order.command,
        state=job.state,
        place=job.place,
        step=job.step,
        planned=job.planned,
        done=job.done,
        seconds_left=job.left,
        size=list(job.size) if job.size else None,
        message=job.message,
        notices=list(job.notices),
        created=job.created,
        started=job.started,
        ended=job.ended,
        result=Result(**facts) if job.has_result else None,
        links=links,
    )


class Door:
    """What the routes share: jobs, batches, and what is counted of them."""

    def __init__(self, jobs: Jobs, batcher: Batcher) -> None:
        self.jobs, self.batcher = jobs, batcher
        self.is_draining = False
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "impasto_request_seconds",
            "Time from a request's last byte to its answer, by route and status",
            ["route", "status"],
            registry=self.registry,
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
        )
        self.batches = Histogram(
            "impasto_batch_pictures",
            "Pictures painted together in one pass",
            registry=self.registry,
            buckets=(1, 2, 3, 4, 6, 8, 12, 16),
        )
        self.batch_seconds = Histogram(
            "impasto_batch_seconds",
            "Time that a batch took",
            registry=self.registry,
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        self.refusals = Counter(
            "impasto_refusals_total",
            "Requests that were refused, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.registry.register(_State(self))
        batcher.observe = self._observe

    def _observe(self, pictures: int, seconds: float) -> None:
        self.batches.observe(pictures)
        self.batch_seconds.observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self.refusals.labels(reason).inc()

    def drain(self) -> None:
        """Take on nothing new, and let what runs end or be kept."""
        self.is_draining = True
        self.batcher.drain()
        self.jobs.drain()

    def close(self) -> None:
        """End all workers; jobs that have not ended begin again at the next start."""
        self.batcher.close(DRAIN)
        self.jobs.close(DRAIN)


class _State(Collector):
    """The state of the door at the moment, as metrics."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def collect(self) -> Iterator[Metric]:
        jobs, batcher = self.door.jobs, self.door.batcher
        waiting = GaugeMetricFamily("impasto_waiting", "What waits, by queue", labels=["queue"])
        running = GaugeMetricFamily("impasto_running", "What runs, by queue", labels=["queue"])
        deaths = GaugeMetricFamily(
            "impasto_worker_deaths", "Workers that died and were replaced", labels=["queue"]
        )
        memory = GaugeMetricFamily(
            "impasto_memory_bytes", "Resident memory, by process", labels=["process"]
        )
        for name, queue in (("jobs", jobs), ("apply", batcher)):
            waiting.add_metric([name], queue.waiting)
            running.add_metric([name], queue.running)
            deaths.add_metric([name], queue.deaths)
            for number, worker in enumerate(queue.workers):
                if size := _resident(getattr(worker, "pid", None)):
                    memory.add_metric([f"{name}-{number}"], size)
        memory.add_metric(["server"], psutil.Process().memory_info().rss)
        ended = GaugeMetricFamily(
            "impasto_jobs_ended", "Jobs that ended since the start", labels=["state"]
        )
        for state, count in jobs.ended.items():
            ended.add_metric([state], count)
        devices = GaugeMetricFamily(
            "impasto_workers", "Workers, by device and queue", labels=["device", "queue"]
        )
        devices.add_metric([batcher.limits.device, "apply"], len(batcher.workers))
        devices.add_metric([jobs.limits.device, "jobs"], jobs.limits.painters)
        yield from (waiting, running, deaths, memory, ended, devices)


def _resident(pid: int | None) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    return 0


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
    app.add_middleware(_Timed, door=door)
    _handle_errors(app, door)
    _add_one_pass(app, door)
    _add_jobs(app, door)
    _add_facts(app, door)
    return guarded(app, door, settings, token)


def guarded(app: App, door: Door, settings: ServeSettings, token: str | None) -> Guard:
    """An app with a `Guard` before it."""
    return Guard(
        app,
        upload=parse_memory(settings.upload),
        most=2 * settings.queue + 64,
        token=token,
        refused=door.refused,
    )


def _handle_errors(app: FastAPI, door: Door) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, _told(error.errors()))

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


class _Timed:
    """An ASGI app around another one, which notes how long answers take."""

    def __init__(self, app: App, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self.app(scope, receive, noted)
        if scope["type"] == "http":
            name = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - began
            self.door.requests.labels(name, str(status)).observe(seconds)


def _problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    told = sentence.encode("utf-8", "replace").decode()  # half a character may have come in
    return JSONResponse({"detail": told}, status, headers=dict(headers or {}))


def _told(errors: Any) -> str:
    """One sentence about what pydantic found first."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the request"
    return f"{where} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}; see /docs"


def _body(model: type[BaseModel], form: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that may be a form or JSON."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}, _FORM: {"schema": form}},
        }
    }


_FILE = {"type": "string", "format": "binary"}
_NAME_SHARE = {
    "type": "string",
    "minLength": 1,
    "description": "NAME, or NAME:SHARE; several mix",
}
_APPLY_FORM = {
    "type": "object",
    "required": ["photo", "style"],
    "properties": {
        "photo": _FILE,
        "style": {"type": "array", "items": _NAME_SHARE, "minItems": 1},
        "network": {"type": "string"},
        "size": {"type": "string", "description": "pixels of the longer side, or full"},
        "strength": {"type": "number"},
        "keep_colors": {"type": "string", "enum": ["luminance", "histogram"]},
        "format": {"type": "string", "enum": list(_TYPES)},
    },
    "additionalProperties": False,
}
_JOB_FORM = {
    "type": "object",
    "required": ["command"],
    "properties": {
        "command": {"type": "string", "enum": list(COMMANDS)},
        "settings": {"type": "string", "description": "a JSON object: size, strength, steps, ..."},
        "photo": {"type": "array", "items": _FILE},
        "painting": {"type": "array", "items": _FILE},
        "sample": {"type": "array", "items": _NAME_SHARE, "description": "paintings by name"},
        "weight": {"type": "array", "items": {"type": "number"}},
        "mask": {"type": "array", "items": _FILE},
        "region": {"type": "array", "items": _FILE, "description": "a painting for each mask"},
        "style": {"type": "array", "items": _NAME_SHARE, "description": "for apply and imagine"},
        "vary": {"type": "string", "description": "a JSON object, for compare"},
        "film": {"type": "boolean"},
        "network": {"type": "string"},
    },
    "additionalProperties": False,
}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The picture; for a request in JSON, with the picture in base64.",
        "model": Repainted,
        "content": {kind: {} for kind in _TYPES.values()},
    }
}


def _add_one_pass(app: FastAPI, door: Door) -> None:
    @app.post(
        "/v1/apply",
        summary="Repaint a photo in one pass",
        description="Waits for the picture: some tenths of a second.",
        responses={**_PICTURES, **_PROBLEMS},
        openapi_extra=_body(ApplyRequest, _APPLY_FORM),
    )
    async def apply(request: Request) -> Response:
        is_form = _is_form(request)
        asked, data = await (_apply_form(request) if is_form else _apply_json(request))
        known = door.jobs.networks
        if asked.network not in known:
            raise ImpastoError(
                f"there is no network {asked.network!r}; there are: {', '.join(known)}"
            )
        settings = {"size": asked.size, "strength": asked.strength}
        settings["keep_colors"] = asked.keep_colors  # type: ignore[assignment]
        own = Repaint(data, known[asked.network], asked.style, settings, asked.format)
        picture, facts = await _painted(request, door, own)
        if is_form:
            return Response(picture, media_type=_TYPES[asked.format])
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


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        return True
    if kind == "application/json":
        return False
    raise HTTPException(400, f"the body is of type {kind!r}; send {_FORM} or application/json")


async def _json(request: Request, model: type[Any]) -> Any:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise ImpastoError(_told(error.errors())) from None


async def _apply_json(request: Request) -> tuple[ApplyRequest, bytes]:
    asked: ApplyRequest = await _json(request, ApplyRequest)
    return asked, _decoded("photo", asked.photo)


async def _apply_form(request: Request) -> tuple[ApplyRequest, bytes]:
    form = await _form(request, _APPLY_FORM)
    (data,) = await _uploaded(form, "photo", 1, 1)
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    style = {"style": _shares(form.getlist("style"))}
    if texts.get("size", "full") != "full":
        texts["size"] = _number("size", texts["size"], int)
    return _valid(ApplyRequest, {**texts, **style, "photo": ""}), data


async def _form(request: Request, schema: dict[str, Any]) -> FormData:
    try:
        form = await request.form(max_files=64, max_fields=256)
    except HTTPException:
        raise
    except Exception as error:  # python-multipart raises several kinds for broken forms
        raise HTTPException(400, f"the form is broken ({error}); send it again") from None
    for name in form:
        if name not in schema["properties"]:
            known = ", ".join(schema["properties"])
            raise ImpastoError(f"there is no field {name[:80]!r}; there are: {known}")
    return form


def _valid(model: type[Any], values: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ImpastoError(_told(error.errors())) from None


async def _uploaded(form: FormData, name: str, least: int = 0, most: int = 16) -> list[bytes]:
    parts = form.getlist(name)
    if any(isinstance(part, str) for part in parts):
        raise ImpastoError(f"{name} is a text; send a file, as in: curl -F {name}=@picture.jpg")
    if not least <= len(parts) <= most:
        raise ImpastoError(f"{len(parts)} files came as {name}; send {least} to {most}")
    return [await part.read() for part in parts if isinstance(part, UploadFile)]


def _shares(texts: list[Any]) -> dict[str, float]:
    """Names with shares from texts such as great_wave or great_wave:2."""
    found: dict[str, float] = {}
    for text in texts:
        if not isinstance(text, str):
            raise ImpastoError("a style is a file; send its name as a text")
        name, colon, share = text.partition(":")
        found[name] = found.get(name, 0.0) + (_number(name, share, float) if colon else 1.0)
    return found


def _number(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ImpastoError(f"{name[:80]} is {text[:80]!r}; give a number") from None


def _decoded(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImpastoError(f"{name} is no base64; encode the file's bytes") from None


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
        openapi_extra=_body(JobRequest, _JOB_FORM),
    )
    async def submit(request: Request) -> Response:
        order, given = await (_job_form if _is_form(request) else _job_json)(request)
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


async def _job_json(request: Request) -> tuple[Order, dict[str, bytes]]:
    asked: JobRequest = await _json(request, JobRequest)
    given: dict[str, bytes] = {}

    def name(role: str, text: str) -> str:
        if text.startswith(SAMPLE):
            return text
        called = f"{role}-{len(given) + 1}"
        given[called] = _decoded(role, text)
        return called

    photos = tuple(name("photo", text) for text in asked.photos)
    paintings = tuple((name("painting", each.picture), each.weight) for each in asked.paintings)
    regions = tuple((name("mask", r.mask), name("painting", r.painting)) for r in asked.regions)
    return _order(asked, photos, paintings, regions), given


async def _job_form(request: Request) -> tuple[Order, dict[str, bytes]]:
    form = await _form(request, _JOB_FORM)
    given: dict[str, bytes] = {}
    names: dict[str, list[str]] = {}
    for role in ("photo", "painting", "mask", "region"):
        names[role] = []
        for number, data in enumerate(await _uploaded(form, role), 1):
            names[role].append(f"{role}-{number}")
            given[names[role][-1]] = data
    samples = _shares(form.getlist("sample"))
    weights = [_number("weight", str(text), float) for text in form.getlist("weight")]
    if len(weights) not in (0, len(names["painting"])):
        raise ImpastoError("give one weight for each painting, in their order, or none")
    if len(names["mask"]) != len(names["region"]):
        raise ImpastoError("give one region (a painting) for each mask, in their order")
    paintings = [*zip(names["painting"], weights or [1.0] * 99, strict=False)]
    paintings += [(f"{SAMPLE}{name}", share) for name, share in samples.items()]
    texts = {name: form[name] for name in ("command", "film", "network") if name in form}
    parsed = {name: _object(name, form[name]) for name in ("settings", "vary") if name in form}
    style = _shares(form.getlist("style"))
    asked = _valid(JobRequest, {**texts, **parsed, "style": style})
    regions = tuple(zip(names["mask"], names["region"], strict=True))
    return _order(asked, tuple(names["photo"]), tuple(paintings), regions), given


def _object(name: str, text: Any) -> Any:
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        if isinstance(value := json.loads(text), dict):
            return value
    raise ImpastoError(f'{name} is no JSON object; send one such as {{"size": 512}}')


def _order(asked: JobRequest, photos: Any, paintings: Any, regions: Any) -> Order:
    return Order(
        asked.command,
        asked.settings,
        photos,
        paintings,
        regions,
        tuple(asked.style.items()),
        asked.vary,
        asked.film,
        asked.network,
    )


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
    async def docs() -> Response:
        return HTMLResponse(_docs(app.openapi()))


def _docs(openapi: dict[str, Any]) -> str:
    """A page that says what every route takes and answers; it loads nothing."""
    parts = []
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            told = html.escape(about.get("description", ""))
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(about.get('summary', ''))}. {told}</p>")
            for kind, body in about.get("requestBody", {}).get("content", {}).items():
                rows = "".join(
                    f"<tr><td><code>{html.escape(name)}</code></td>"
                    f"<td>{html.escape(str(field.get('description', field.get('type', ''))))}</td>"
                    f"</tr>"
                    for name, field in body["schema"]["properties"].items()
                )
                parts.append(f"<h3>{kind}</h3><table>{rows}</table>")
            answers = "; ".join(
                f"{code}: {html.escape(str(answer.get('description', '')))}"
                for code, answer in about["responses"].items()
            )
            parts.append(f"<p><b>Answers</b> {answers}</p>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}"
        "pre,code{font-family:ui-monospace,monospace}pre{overflow:auto;background:#f4f4f4;"
        "padding:1rem}"
    )
    example = (
        "curl -F photo=@photo.jpg -F style=great_wave http://127.0.0.1:8000/v1/apply -o out.png\n"
        "curl -F command=stylize -F photo=@photo.jpg -F painting=@painting.jpg \\\n"
        "     -F 'settings={&quot;size&quot;: 800}' http://127.0.0.1:8000/v1/jobs"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>impasto: the server</title>'
        f"<style>{style}</style><h1>impasto: the server</h1><pre>{example}</pre>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>' + "".join(parts)
    )


def listen(
    app: App, settings: ServeSettings, drain: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Serve an app until SIGTERM or Ctrl-C; then `drain` is called, and running requests end.

    say: called with a line once the server listens.

    Raises:
        ImpastoError: the port is taken, or the address is not this machine's.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # clients are told
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(DRAIN),
    )
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError:
        raise ImpastoError(
            f"{settings.host}:{settings.port} cannot be listened on; give another --port or --host"
        ) from None
    host, port = listening.getsockname()[:2]
    say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
    server = _Server(config, drain)
    try:
        # uvicorn raises the signal again when it has ended.
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listening])
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """A server that drains before it ends."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self.drain = drain

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take on nothing new, then end as uvicorn does."""
        self.drain()
        super().handle_exit(sig, frame)
