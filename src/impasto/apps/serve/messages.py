"""What is sent to the server and what it answers: JSON and forms, and what both mean."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from impasto.errors import ImpastoError
from impasto.jobs.orders import COMMANDS, SAMPLE, Order
from impasto.jobs.store import Job

FORM = "multipart/form-data"
TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
"""The formats of pictures that are asked for, and what HTTP calls them."""

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


def told(errors: Any) -> str:
    """One sentence about what pydantic found first."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the request"
    return f"{where} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}; see /docs"


def body(model: type[BaseModel], form: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of a body that may be a form or JSON."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}, FORM: {"schema": form}},
        }
    }


_FILE = {"type": "string", "format": "binary"}
_NAME_SHARE = {
    "type": "string",
    "minLength": 1,
    "description": "NAME, or NAME:SHARE; several mix",
}
APPLY_FORM = {
    "type": "object",
    "required": ["photo", "style"],
    "properties": {
        "photo": _FILE,
        "style": {"type": "array", "items": _NAME_SHARE, "minItems": 1},
        "network": {"type": "string"},
        "size": {"type": "string", "description": "pixels of the longer side, or full"},
        "strength": {"type": "number"},
        "keep_colors": {"type": "string", "enum": ["luminance", "histogram"]},
        "format": {"type": "string", "enum": list(TYPES)},
    },
    "additionalProperties": False,
}
JOB_FORM = {
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


def is_form(request: Request) -> bool:
    """Whether a request is a form, and no JSON; a 400 if it is neither."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return True
    if kind == "application/json":
        return False
    raise HTTPException(400, f"the body is of type {kind!r}; send {FORM} or application/json")


async def _json(request: Request, model: type[Any]) -> Any:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise ImpastoError(told(error.errors())) from None


async def _apply_json(request: Request) -> tuple[ApplyRequest, bytes]:
    asked: ApplyRequest = await _json(request, ApplyRequest)
    return asked, _decoded("photo", asked.photo)


async def _apply_form(request: Request) -> tuple[ApplyRequest, bytes]:
    form = await _form(request, APPLY_FORM)
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
        raise ImpastoError(told(error.errors())) from None


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
    form = await _form(request, JOB_FORM)
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


async def asked_of(request: Request) -> tuple[ApplyRequest, bytes]:
    """What a request wants repainted, and the bytes of the photo."""
    return await (_apply_form if is_form(request) else _apply_json)(request)


async def order_of(request: Request) -> tuple[Order, dict[str, bytes]]:
    """The order of a request, and the bytes of the pictures that came with it, by name."""
    return await (_job_form if is_form(request) else _job_json)(request)
