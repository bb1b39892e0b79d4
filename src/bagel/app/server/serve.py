"""Runs the server until it is told to stop, and lets it stop without losing an answer."""

from __future__ import annotations

import json
import logging
import sys
import time
from types import FrameType
from typing import Any, Protocol

import torch
import uvicorn

from bagel.app.server.guard import Guard
from bagel.app.server.routes import build
from bagel.app.server.settings import Settings
from bagel.infer.pipeline import Bagel


class Stoppable(Protocol):
    """Who works on the requests."""

    def drain(self) -> None: ...

    def fail_all(self) -> None: ...


class Server(uvicorn.Server):
    """At the first signal it takes no new requests, gives the waiting ones back with 503, and lets those under
    way end; what has not ended after the grace is given back too. The second signal stops at once."""

    def __init__(self, config: uvicorn.Config, worker: Stoppable, grace: float) -> None:
        super().__init__(config)
        self.worker, self.grace = worker, grace
        self._stops_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.worker.drain()
        self._stops_at = time.monotonic() + self.grace
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        import asyncio

        self.worker.drain()
        left = max(min(self._stops_at - time.monotonic(), self.grace), 0)
        timer = asyncio.get_running_loop().call_later(left, self.worker.fail_all)
        try:
            await super().shutdown(sockets)  # type: ignore[arg-type]
        finally:
            timer.cancel()


def make_server(bagel: Bagel, settings: Settings, host: str = "127.0.0.1", port: int = 8000) -> Server:
    app = build(bagel, settings)
    return server_of(app, app.service.worker, settings, host, port)


def server_of(app: Guard[Any], worker: Stoppable, settings: Settings, host: str, port: int) -> Server:
    config = uvicorn.Config(
        app,
        host,
        port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.grace) + 5,
    )
    return Server(config, worker, settings.grace)


def serve(
    bagel: Bagel, settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, threads: int | None = None
) -> None:
    """Serves until SIGINT or SIGTERM. threads: CPU threads of the model."""
    if threads is not None:
        torch.set_num_threads(threads)
    log_to_stderr()
    make_server(bagel, settings, host, port).run()


def log_to_stderr() -> None:
    """One JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("bagel.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {"time": round(record.created, 3), "level": record.levelname.lower()}
        message = record.getMessage()
        try:
            said = json.loads(message)
        except ValueError:
            said = None
        facts.update(said if isinstance(said, dict) else {"event": message})
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return json.dumps(facts)
