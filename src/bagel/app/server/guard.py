"""What stands before all routes: ids, keys, limits on what is sent, the log, and the last catch for errors."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bagel.app.server.metrics import Visits
from bagel.app.server.problems import ApiError, ClientGoneError, api_error_of
from bagel.app.server.settings import Settings

log = logging.getLogger("bagel.serve")
ROUTES = frozenset(
    {"/v1/models", "/v1/chat/completions", "/v1/images/generations", "/v1/images/edits", "/health", "/metrics"}
)
_OPEN = frozenset({"/health"})
_GONE = 499
"""Logged for a client that left before its answer."""


class Guarded(Protocol):
    """What is behind the application: one model, or a front of several."""

    @property
    def settings(self) -> Settings: ...

    @property
    def meter(self) -> Visits: ...


S = TypeVar("S", bound=Guarded)


class Guard(Generic[S]):
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, service: S) -> None:
        self.app, self.service, self.settings = app, service, service.settings
        self.open = self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(self, scope, receive, send)
        self.open += 1
        try:
            await self._handle(visit)
        finally:
            self.open -= 1
            self.held -= visit.received
            for handle in visit.state["handles"]:
                handle.close()
            visit.report()

    async def _handle(self, visit: _Visit) -> None:
        try:
            self._check(visit)
            await self.app(visit.scope, visit.receive, visit.send)
        except (ClientDisconnect, ClientGoneError):
            visit.status = _GONE
        except Exception as error:
            problem = api_error_of(error)
            if problem.status == 500:
                log.error("request %s failed", visit.id, exc_info=error)
            if not visit.began:
                await problem.response()(visit.scope, visit.receive, visit.send)

    def _check(self, visit: _Visit) -> None:
        """Raises ApiError before anything is read."""
        if self.open > self.settings.connections:
            raise ApiError(503, "too many connections; try again later.", "overloaded", retry_after=2)
        if self.settings.keys and visit.scope["path"] not in _OPEN:
            visit.state["owner"] = self._owner(visit.headers.get(b"authorization", b""))
        try:
            length = int(visit.headers.get(b"content-length", b"0"))
        except ValueError:
            raise ApiError(400, "the content length is no number.", "invalid_request") from None
        if length > self.settings.body:
            raise self.too_large()

    def _owner(self, header: bytes) -> str:
        """Whose key it is, as a short hash. Raises ApiError."""
        kind, _, key = header.partition(b" ")
        matches = [hmac.compare_digest(key.strip(), known.encode()) for known in self.settings.keys]
        if kind.lower() != b"bearer" or not any(matches):
            raise ApiError(401, "the API key is missing or wrong; send Authorization: Bearer KEY.", "invalid_api_key")
        return hashlib.sha256(key.strip()).hexdigest()[:8]

    def too_large(self) -> ApiError:
        return ApiError(413, f"the request has more than {self.settings.body:,} bytes; send less.", "request_too_large")

    def hold(self, size: int) -> None:
        """Counts bytes of bodies that are being handled. Raises ApiError where there are too many."""
        self.held += size
        if self.held > self.settings.bodies:
            raise ApiError(503, "too much is being sent at once; try again later.", "overloaded", retry_after=2)


class _Visit:
    """One request on its way through."""

    def __init__(self, guard: Guard[Any], scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self._receive, self._send = guard, receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        wished = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = wished if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", wished) else uuid.uuid4().hex
        self.state: dict[str, Any] = {"facts": {}, **scope.get("state", {}), "request_id": self.id, "handles": []}
        self.scope: Scope = {**scope, "state": self.state}
        self.came = time.perf_counter()
        self.received, self.whole, self.began, self.status = 0, False, False, 500

    async def receive(self) -> Message:
        """Raises ApiError for a body that is too large or too slow."""
        if self.whole:
            return await self._receive()
        left = self.guard.settings.body_timeout - (time.perf_counter() - self.came)
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except (TimeoutError, asyncio.TimeoutError):
            text = f"the body did not arrive within {self.guard.settings.body_timeout:g} seconds; send it again."
            raise ApiError(400, text, "body_timeout") from None
        size = len(message.get("body", b""))
        self.received += size
        self.guard.hold(size)
        if self.received > self.guard.settings.body:
            raise self.guard.too_large()
        self.whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began, self.status = True, message["status"]
            more = [(b"x-request-id", self.id.encode())]
            if not self.whole and ({b"content-length", b"transfer-encoding"} & set(self.headers)):
                more.append((b"connection", b"close"))  # nobody will read the rest of the body
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await self._send(message)

    def report(self) -> None:
        """One line of JSON and the counters."""
        seconds, path = time.perf_counter() - self.came, self.scope["path"]
        route = path if path in ROUTES else "other"
        self.guard.service.meter.count_request(route, self.status, seconds)
        facts = {
            "event": "request",
            "request_id": self.id,
            "method": self.scope["method"],
            "path": path[:200],
            "status": self.status,
            "seconds": round(seconds, 4),
            "bytes": self.received,
            **({"key": self.state["owner"]} if "owner" in self.state else {}),
            **self.state["facts"],
        }
        log.info("%s", json.dumps(facts))
