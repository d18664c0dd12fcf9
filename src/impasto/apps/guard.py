"""What stands before every page and every answer: bytes, tokens, hosts, and how many at once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from impasto.errors import ImpastoError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/readyz")
"""What answers without a token: it says nothing but that the server is there."""

_PATIENCE = 30.0  # seconds
_DISCARDED = 2**28  # bytes; then the connection is closed


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, token: str | None) -> None:
    """Raise an `ImpastoError` if other machines could use the server without a token."""
    if not token and not is_loopback(host):
        raise ImpastoError(
            f"{host} can be reached from other machines; give a --token that they must know, or "
            "listen on 127.0.0.1"
        )


class TooLarge(HTTPException):
    """A request sent more bytes than it may."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"a request may have {most / 2**20:g} MiB; send smaller pictures")


class Guard:
    """An ASGI app around another one, which lets no request do harm.

    upload: the most bytes of a request. most: how many requests with a body are worked on at once.
    token: what requests have to bring, as a Bearer token or as a password (which a browser asks
    for); without one, requests have to name this machine as their host, so that no page of another
    site can reach the server through the browser of someone here. refused: called with the reason
    of each refusal.
    """

    def __init__(
        self,
        app: App,
        *,
        upload: int,
        most: int,
        token: str | None = None,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.app, self.upload, self.most, self.token = app, upload, most, token
        self.refused = refused
        self.bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the app answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan" or self._is_welcome(scope):
                await self.app(scope, receive, send)
            return
        if not self._is_welcome(scope):
            await self._refuse_entry(scope, send)
            return
        if scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        if self.bodies >= self.most:
            self.refused("busy")
            sentence = f"{self.bodies} requests are being worked on; try again in 5 seconds"
            await _answer(send, 503, sentence, {"retry-after": "5"})
            return
        self.bodies += 1
        try:
            await self._limited(scope, receive, send)
        finally:
            self.bodies -= 1

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, as long as no more bytes come than may."""
        told = _headers(scope).get("content-length", "")
        is_begun, is_whole, count = False, False, 0

        async def counted() -> Message:
            nonlocal count, is_whole
            message = await (receive() if is_whole else _in_time(receive))
            is_whole = not message.get("more_body")
            count += len(message.get("body", b""))
            if count > self.upload:
                self.refused("bytes")
                if message.get("more_body"):
                    await _discard(receive)
                raise TooLarge(self.upload)
            return message

        async def begun(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            if told.isdigit() and int(told) > self.upload:
                self.refused("bytes")
                await _discard(receive)
                raise TooLarge(self.upload)
            await self.app(scope, counted, begun)
        except HTTPException as error:  # while nobody listened: the app answers its own
            if not is_begun:
                await _answer(send, error.status_code, error.detail, {"connection": "close"})

    def _is_welcome(self, scope: Scope) -> bool:
        if scope["path"] in OPEN:
            return True
        headers = _headers(scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if origin and origin.partition("://")[2] != host:  # a browser knows the token by heart
            return False
        if self.token:
            return _knows(headers.get("authorization", ""), self.token)
        return is_loopback(_host_of(host))

    async def _refuse_entry(self, scope: Scope, send: Send) -> None:
        self.refused("entry")
        if self.token:
            sentence = "this server asks for a token, and answers to its own pages only; send it "
            sentence += "as Authorization: Bearer TOKEN"
            extra = {"www-authenticate": 'Basic realm="impasto, the token is the password"'}
            await _answer(send, 401, sentence, extra)
        else:
            host = _headers(scope).get("host", "")
            sentence = f"this server answers to localhost only, and not to {host[:80]!r} or pages "
            await _answer(send, 403, sentence + "of another site; start it with a --token", {})


async def _in_time(receive: Receive) -> Message:
    """The next part of a request; a client that stops sending must not keep others out."""
    try:
        return await asyncio.wait_for(receive(), _PATIENCE)
    except TimeoutError:
        sentence = f"no more of the request came for {_PATIENCE:g} seconds; send it again"
        raise HTTPException(408, sentence) from None


async def _discard(receive: Receive) -> None:
    """Read the rest of a request: a client that is still sending may never see an answer."""
    left = _DISCARDED
    while left > 0:
        message = await _in_time(receive)
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _host_of(header: str) -> str:
    """The name in a Host header, without its port; empty if there is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _knows(authorization: str, token: str) -> bool:
    kind, _, given = authorization.partition(" ")
    data = given.encode("latin-1")  # as it came
    if kind.lower() == "basic":
        try:
            data = base64.b64decode(data, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(data, token.encode())


async def _answer(send: Send, status: int, sentence: str, headers: dict[str, str]) -> None:
    body = json.dumps({"detail": sentence}).encode()
    told = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
