"""What stands before every request: token, origin, limits of size and time, counts."""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlmattn.service.errors import ClientGone, Refused, log, refusal_of

if TYPE_CHECKING:
    from vlmattn.service.desk import Desk

OPEN = ("/healthz", "/readyz")
"""Paths that need no token: those that ask whether the service is there."""
ASK = ("/v1/ask", "/ask")
_LINGER = 2.0
_LAST_CHANCE = 0.05
"""Seconds to look for what came meanwhile, where the service was too busy to look before."""


class Guard:
    """ASGI middleware: refuses what it can before a body is read, and cuts off bodies too large or too slow."""

    def __init__(self, app: ASGIApp, *, desk: Desk) -> None:
        self.app, self.desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange, start = Exchange(scope, receive, send, self.desk), time.perf_counter()
        asks = scope["path"] in ASK and scope["method"] == "POST"
        self.desk.in_hand += asks
        try:
            self._check(Headers(scope=scope), scope, asks)
            await self.app(scope, exchange.receive, exchange.send)
        except (ClientGone, ClientDisconnect):
            self.desk.metrics.refused("client_gone")
        except Exception as error:
            if exchange.status:
                raise
            refused = self._refused(scope, error)
            await refusal(refused)(scope, exchange.receive, exchange.send)
        finally:
            self.desk.in_hand -= asks
            self.desk.metrics.answered(*_place(scope), exchange.status, time.perf_counter() - start)

    def _refused(self, scope: Scope, error: Exception) -> Refused:
        refused = refusal_of(error)
        self.desk.metrics.refused(refused.code)
        if refused.status == 500:
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
        return refused

    def _check(self, headers: Headers, scope: Scope, asks: bool) -> None:
        if scope["path"] not in OPEN:
            self._check_token(headers)
        if not asks:
            return
        origin, allowed = headers.get("origin"), self.desk.options.allow_origins
        if origin is not None and origin not in allowed and "*" not in allowed:
            raise Refused(403, "origin_not_allowed", f"pages of {origin[:200]} may not ask: see --allow-origin")
        self.desk.check_open()
        self.desk.check_room()
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.desk.options.max_body:
            raise too_much(self.desk.options.max_body)

    def _check_token(self, headers: Headers) -> None:
        token = self.desk.options.token
        if token is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        fine = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode("ascii"))
        if kind.lower() != "bearer" or not fine:
            raise Refused(
                401,
                "token_wrong",
                "the bearer token is missing or wrong: send Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )


def refusal(refused: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse(refused.to_dict(), refused.status, refused.headers)


def too_much(limit: int) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(413, "body_too_large", f"the body is over the limit of {limit:,} bytes: send a smaller picture")


def retry_after(seconds: float) -> Mapping[str, str]:
    """When to come again, in whole seconds, as a header."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def _place(scope: Scope) -> tuple[str, str]:
    # Whatever clients make up is counted as one, so that counts do not grow without end.
    known = getattr(scope.get("route"), "path", None)
    method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE") else "other"
    return str(known or "other"), method


class Exchange:
    """A request's body under limits of size and time, and its answer.

    A client that is refused while it still sends is listened to for a moment longer: closing at once would make some
    systems throw the answer away before it is read.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, desk: Desk) -> None:
        headers = Headers(scope=scope)
        self._receive, self._send, self._options = receive, send, desk.options
        self._until: float | None = None
        self._read = 0
        self._waits = headers.get("expect", "").lower() == "100-continue"
        # Whether the body is here.
        self._whole = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self.status = 0

    async def receive(self) -> Message:
        """The next part of the body.

        Raises:
            Refused: it does not come in time, or is more than the limit.
        """
        if self._whole:
            return await self._receive()
        if self._until is None:
            self._until = time.monotonic() + self._options.read_timeout
        message = await self._next(self._until - time.monotonic()) or await self._next(_LAST_CHANCE)
        if message is not None:
            self._take(message)
        if message is None or (time.monotonic() > self._until and not self._whole):
            limit = f"{self._options.read_timeout:g} s"
            raise Refused(408, "too_slow", f"the body did not arrive within {limit}: send it faster, or less")
        if self._read > self._options.max_body:
            raise too_much(self._options.max_body)
        return message

    async def _next(self, seconds: float) -> Message | None:
        try:
            return await asyncio.wait_for(self._receive(), max(seconds, 0))
        except TimeoutError:
            return None

    def _take(self, message: Message) -> None:
        self._waits = False
        self._read += len(message.get("body", b""))
        self._whole = message["type"] == "http.disconnect" or not message.get("more_body", False)

    async def send(self, message: Message) -> None:
        """A part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self._whole:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not last or self._whole or self._waits:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._linger()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        until, most = time.monotonic() + _LINGER, self._read + self._options.max_body
        while not self._whole and self._read <= most:
            message = await self._next(until - time.monotonic())
            if message is None:
                return
            self._take(message)
