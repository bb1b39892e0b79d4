"""The server's outside when the model runs in replicas: each request goes to one, and its answer comes back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from bagel.app.replicas.merged import merged
from bagel.app.replicas.replica import FACTS, TAKEN
from bagel.app.server.metrics import Visits
from bagel.app.server.problems import ApiError, ClientGoneError, answer
from bagel.app.server.settings import Settings

log = logging.getLogger("bagel.serve")
SESSION = b"x-session-id"
ATTEMPTS = 2
"""Replicas that a request is given to, where one is lost before anything of its answer has been sent."""
TAKE_SECONDS = 20.0
"""A request that no replica has taken after this long is given back."""
_MARGIN = 10.0
"""Seconds beyond its time-out after which a replica that stays silent is waited for no longer."""
_OWN = (b"authorization", b"x-request-id")
_ANSWERED_HERE = {"/health", "/metrics"}


class Front:
    """An ASGI application; `Guard` stands before it. handle: of the deployment of `Replica`."""

    def __init__(self, handle: Any, settings: Settings) -> None:
        self.settings, self.meter = settings, Visits()
        self.stopping: ApiError | None = None
        self._replicas, self._answers = handle, handle.options(stream=True, method_name="answer")
        self._work: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._notes: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] in _ANSWERED_HERE and scope["method"] in ("GET", "HEAD"):
            response = await (self._health() if scope["path"] == "/health" else self._metrics())
            await response(scope, receive, send)
        else:
            await self._hand_over(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    # --- one request ---------------------------------------------------------------------------------------

    async def _hand_over(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        reply = _Reply(send)
        try:
            await self._race(self._answer(scope, body, reply), receive, reply)
        except ApiError as error:
            if not reply.open_stream:
                raise
            self.meter.count_error(error.status)
            await reply.end_with(error)

    async def _race(self, work: Coroutine[Any, Any, None], receive: Receive, reply: _Reply) -> None:
        """Until the work is done, the client leaves, or it takes too long."""
        task, gone = asyncio.create_task(work), asyncio.create_task(_left(receive))
        self._work.add(task)
        try:
            limit = self.settings.timeout + _MARGIN
            await asyncio.wait({task, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if reply.ended:  # after the last of an answer the client counts as gone; what follows is for the log
                await asyncio.wait({task}, timeout=_MARGIN)
            if task.cancelled():
                raise self.stopping or _lost()
            if task.done():
                task.result()
            elif gone.done() and not reply.ended:
                raise ClientGoneError
            elif not reply.ended:
                text = "the request took too long; ask for less, or try again later."
                raise ApiError(503, text, "timeout", retry_after=10)
        finally:
            self._work.discard(task)
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _answer(self, scope: Scope, body: bytes, reply: _Reply) -> None:
        """Asks again where a replica is lost before anything was sent. Raises ApiError."""
        for left in reversed(range(ATTEMPTS)):
            if self.stopping:
                raise self.stopping
            try:
                return await self._ask(scope, body, reply)
            except (RayError, RayServeException) as error:
                log.warning("request %s: %s", scope["state"]["request_id"], type(error).__name__)
                if isinstance(error, RayTaskError):  # an error in the replica itself, which lives
                    raise
                if reply.began or not left:
                    raise _lost() from None
                reply.forget()
        raise AssertionError("every attempt returns or raises")

    async def _ask(self, scope: Scope, body: bytes, reply: _Reply) -> None:
        session = dict(scope["headers"]).get(SESSION, b"").decode("latin-1")
        handle = self._answers.options(session_id=session) if session else self._answers
        messages = handle.remote(_plain(scope), body)
        try:
            await reply.take(await _first(messages), scope["state"]["facts"])
            async for ready in messages:
                await reply.take(ready, scope["state"]["facts"])
        except BaseException:
            messages.cancel()
            raise

    # --- all replicas --------------------------------------------------------------------------------------

    async def _states(self) -> list[dict[str, Any]]:
        """Of the replicas that answer."""
        try:
            found = await self._replicas.broadcast("state").results_async(timeout_s=5, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError):
            return []
        return [state for state in found if not isinstance(state, BaseException)]

    async def _health(self) -> Response:
        if self.stopping:
            raise self.stopping
        states = await self._states()
        if not states:
            raise ApiError(503, "no replica answers; try again in a moment.", "no_replica", retry_after=5)
        jobs = sum(state["jobs"] for state in states)
        return answer({"status": "ok", "model": self.settings.name, "jobs": jobs, "replicas": len(states)})

    async def _metrics(self) -> Response:
        texts = {state["replica"]: state["metrics"] for state in await self._states()}
        return Response(merged(self.meter.text().decode(), texts), media_type="text/plain; version=0.0.4")

    # --- the end -------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Takes no new requests, has the replicas give back those that wait. Safe in a signal handler."""
        if self.stopping is None:
            text = "the server is stopping; try again in a moment."
            self.stopping = ApiError(503, text, "shutting_down", retry_after=5)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        task = asyncio.ensure_future(self._drain_replicas())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _drain_replicas(self) -> None:
        try:
            await self._replicas.broadcast("drain").results_async(timeout_s=5, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError) as error:
            log.warning("the replicas were not told to stop: %s", type(error).__name__)

    def fail_all(self) -> None:
        """Ends all requests with the reason for stopping."""
        for task in self._work:
            task.cancel()


class _Reply:
    """The answer on its way to the client. began: something of it has been sent; ended: all of it has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self.began = self.ended = False

    async def take(self, messages: list[Message], facts: dict[str, Any]) -> None:
        for message in messages:
            if message["type"] == TAKEN:
                facts["replica"] = message["replica"]
            elif message["type"] == FACTS:
                facts.update(message["facts"])
            elif message["type"] == "http.response.start":
                self._head = _told_by(message, facts["replica"])
            else:
                await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if not self.began:
            assert self._head is not None
            self.began = True
            await self._send(self._head)
        self.ended = not message.get("more_body", False)
        await self._send(message)

    def forget(self) -> None:
        """What was not sent yet."""
        self._head = None

    @property
    def open_stream(self) -> bool:
        """Events are being sent, and more were to come."""
        head = dict(self._head["headers"]) if self._head else {}
        return self.began and not self.ended and head.get(b"content-type", b"").startswith(b"text/event-stream")

    async def end_with(self, error: ApiError) -> None:
        await self._pass_on({"type": "http.response.body", "body": f"data: {json.dumps(error.body)}\n\n".encode()})


def _told_by(start: Message, replica: str) -> Message:
    headers = [(name, value) for name, value in start["headers"] if name not in (b"x-request-id", b"connection")]
    return {**start, "headers": [*headers, (b"x-replica", replica.encode())]}


def _plain(scope: Scope) -> dict[str, Any]:
    """What a replica needs to know of a request; keys stay here."""
    state = scope["state"]
    headers = [(name, value) for name, value in scope["headers"] if name not in _OWN]
    kept = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "client", "server")
    return {
        **{name: scope[name] for name in kept if name in scope},
        "root_path": "",
        "headers": [*headers, (b"x-request-id", state["request_id"].encode())],
        "state": {"owner": state["owner"]} if "owner" in state else {},
    }


async def _first(messages: Any) -> list[Message]:
    """The message that a replica has taken the request. Raises ApiError where none does."""
    try:
        found: list[Message] = await asyncio.wait_for(anext(messages), TAKE_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        raise ApiError(
            503, "no replica is free to take the request; try again later.", "no_replica", retry_after=5
        ) from None
    return found


def _lost() -> ApiError:
    text = "the replica that worked on this request was lost; send the request again."
    return ApiError(503, text, "replica_lost", retry_after=1)


async def _left(receive: Receive) -> None:
    """Returns when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
