"""One copy of the model in a process of Ray Serve: the same application as `bagel serve`, called without a socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

import torch
from ray import serve

from bagel.app.replicas.setup import loaded
from bagel.app.server.routes import build
from bagel.app.server.settings import Settings

TAKEN, FACTS = "bagel.taken", "bagel.facts"
"""Types of two messages beside those of ASGI: the first, with the replica's name, and the last, for the log."""

Message = MutableMapping[str, Any]


class Replica:
    """model: arguments of `Bagel.load`; threads: CPU threads of the model. Keys are checked by the front."""

    def __init__(self, model: Mapping[str, Any], settings: Settings, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        app = build(loaded(model), replace(settings, keys=()))
        self.app, self.service = app, app.service
        self.name = serve.get_replica_context().replica_id.unique_id
        self.service.worker.start()

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[list[Message]]:
        """ASGI messages of the answer, as many at a time as are ready. Ending it early ends the jobs."""
        yield [{"type": TAKEN, "replica": self.name}]
        facts: dict[str, Any] = {}
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        whole: list[Message] = [{"type": "http.request", "body": body}]

        async def receive() -> Message:
            return whole.pop() if whole else await asyncio.Future()

        scope = {**scope, "state": {**scope["state"], "facts": facts}}
        call = asyncio.ensure_future(self.app(scope, receive, messages.put))
        call.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            while (ready := await _ready(messages))[-1] is not None:
                yield [message for message in ready if message is not None]
            await call
            rest: list[Message] = [message for message in ready if message is not None]
            yield [*rest, {"type": FACTS, "facts": facts}]
        finally:
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await call

    async def state(self) -> dict[str, Any]:
        """What the front tells about this replica."""
        text = self.service.meter.text().decode()
        return {"replica": self.name, "jobs": self.service.worker.open, "metrics": text}

    async def drain(self) -> None:
        """Gives waiting jobs back, takes no new ones."""
        self.service.worker.drain()

    def check_health(self) -> None:
        """Ray replaces a replica where this raises."""
        if not self.service.worker.alive:
            raise RuntimeError("the model's thread has ended")

    def __del__(self) -> None:
        if hasattr(self, "service"):
            self.service.worker.stop()


async def _ready(messages: asyncio.Queue[Message | None]) -> list[Message | None]:
    """All that wait, at least one."""
    found = [await messages.get()]
    while not messages.empty():
        found.append(messages.get_nowait())
    return found
