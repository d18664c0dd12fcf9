"""Stands before all requests: only what the page needs is reachable, and only from the page."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST = 2**20
"""The most bytes of a message to Gradio; it holds the values of controls, and no pictures."""

# Of Gradio, what its page asks for: no uploads, files, proxies, streams, monitoring or API pages.
_OPEN = re.compile(
    r"/(|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\d+)?"
    r"|(assets|static|svelte|web|paintings|photos|pictures)/.*|photos"
    r"|gradio_api/(queue/(join|data)|heartbeat/\w+|startup-events|app_id|info|reset|cancel)/?)"
)

_HEADERS = {
    # Gradio's components make functions from templates, so that eval has to be allowed.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that it is refused."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        guarded = _with_headers(send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not _OPEN.fullmatch(scope["path"]):
            await _refuse(guarded, 404, "There is nothing here.")
        elif scope["method"] == "POST" and headers.get(b"sec-fetch-site", b"") in _ELSEWHERE:
            await _refuse(guarded, 403, "Only the page itself may ask for this.")
        elif scope["method"] == "POST" and scope["path"].startswith("/gradio_api/"):
            body = await _body(receive)
            if body is None:
                await _refuse(guarded, 413, "This message is too long.")
            elif _names_files(body):
                await _refuse(guarded, 400, "Files are sent by the page, and not named here.")
            else:
                await self.app(scope, _again(body, receive), guarded)
        else:
            await self.app(scope, receive, guarded)


_ELSEWHERE = (b"cross-site", b"same-site")
_OF_FILES = {"path", "url", "meta", "orig_name", "_type"}  # the fields of Gradio's files


async def _body(receive: Receive) -> bytes | None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST:
            return None
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return replay


def _names_files(body: bytes) -> bool:
    """Whether a message has a file in it, which Gradio would fetch from wherever it says."""
    try:
        parts = [json.loads(body or b"null")]
    except (ValueError, RecursionError):
        return True
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if not part.keys().isdisjoint(_OF_FILES):
                return True
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return False


def _with_headers(send: Send) -> Send:
    added = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": sentence}).encode()})
