"""What all routes share: the model, its worker, and the way from jobs to an answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bagel.app.server.metrics import Meter
from bagel.app.server.problems import ApiError, ClientGoneError, answer, api_error_of
from bagel.app.server.settings import Settings
from bagel.app.worker import Handle, Worker, places_for
from bagel.infer.engine import Finished, Job
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.infer.scheduler import Limits

log = logging.getLogger("bagel.serve")
Chunks = AsyncIterator[tuple[str | None, Any]]
"""(name of the event or None, its data) of a stream."""


class Service:
    """One loaded model behind the routes."""

    def __init__(self, bagel: Bagel, settings: Settings) -> None:
        self.bagel, self.settings = bagel, settings
        limits = Limits(
            active=settings.active,
            queue=settings.queue,
            text_passes=settings.text_passes,
            places=places_for(bagel),
            beside=True,
        )
        self.worker = Worker(bagel.runtime.engine, limits)
        self.meter = Meter(self.worker)

    def check_model(self, name: str | None) -> str:
        """Raises ApiError for another model than the one that is loaded."""
        if name in (None, "", self.settings.name):
            return self.settings.name
        text = f"there is no model {str(name)[:100]!r} here; use {self.settings.name!r}."
        raise ApiError(404, text, "model_not_found", param="model")

    def begin(self, request: Request, jobs: Sequence[Job], weight: int, wants: tuple[type, ...] = ()) -> Handle:
        address = request.client.host if request.client else None
        owner = getattr(request.state, "owner", address)
        handle = self.worker.submit(jobs, owner=owner, weight=weight, wants=wants)
        request.state.handles.append(handle)  # closed at the latest when the request ends
        return handle

    async def events(self, request: Request, handle: Handle) -> AsyncIterator[tuple[int, Any]]:
        """The events of a request's jobs; they end when the client leaves or waits too long. Raises ApiError or
        ClientGoneError."""
        late = ApiError(503, "the request took too long; ask for less, or try again later.", "timeout", retry_after=10)
        timer = asyncio.get_running_loop().call_later(self.settings.timeout, handle.interrupt, late)
        gone = asyncio.create_task(_left(request))
        gone.add_done_callback(lambda task: handle.interrupt(ClientGoneError()))
        try:
            async with contextlib.aclosing(handle.events()) as events:
                async for index, event in events:
                    if isinstance(event, Finished):
                        self._note(request, event.result)
                    yield index, event
        except ClientGoneError:
            raise
        except Exception as error:
            raise _told(error) from None
        finally:
            timer.cancel()
            gone.cancel()

    async def results(self, request: Request, handle: Handle) -> list[Result]:
        """Of all jobs, in order."""
        found: dict[int, Result] = {}
        async with contextlib.aclosing(self.events(request, handle)) as events:  # type: ignore[type-var]
            async for index, event in events:
                if isinstance(event, Finished):
                    found[index] = event.result
        return [found[index] for index in range(handle.count)]

    def _note(self, request: Request, result: Result) -> None:
        facts = request.state.facts
        facts["tokens"] = facts.get("tokens", 0) + result.stats.tokens
        facts["pictures"] = facts.get("pictures", 0) + len(result.images)
        self.meter.add_result(result)

    def stream(self, chunks: Chunks) -> Response:
        """Server-sent events; an error on the way is the last of them."""
        return StreamingResponse(
            _lines(chunks, self.meter.count_error),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )


def _told(error: Exception) -> ApiError:
    problem = api_error_of(error)
    if problem.status == 500:
        log.error("a job failed", exc_info=error)
    return problem


async def _left(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _lines(chunks: Chunks, count: Callable[[int], None]) -> AsyncIterator[str]:
    async with contextlib.aclosing(chunks):  # type: ignore[type-var]
        try:
            async for name, data in chunks:
                yield (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"
            yield "data: [DONE]\n\n"
        except ClientGoneError:
            return
        except Exception as error:
            problem = api_error_of(error)
            count(problem.status)
            yield f"data: {json.dumps(problem.body)}\n\n"


async def encoded(image: Image.Image, kind: str = "png", quality: int | None = None) -> str:
    """A picture's file as base64."""

    def write() -> str:
        file = io.BytesIO()
        more = {} if kind == "png" else {"quality": 90 if quality is None else quality}
        image.save(file, kind.upper(), **more)
        return base64.b64encode(file.getvalue()).decode()

    return await asyncio.to_thread(write)


def check_count(name: str, value: int | None, most: int) -> None:
    """Raises ApiError for more than this server makes."""
    if value is not None and value > most:
        raise ApiError(400, f"{name} is {value}; at most {most} here.", "invalid_value", param=name)


__all__ = ["Service", "answer", "check_count", "encoded"]
