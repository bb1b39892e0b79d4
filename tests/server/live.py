"""A live server on 127.0.0.1 in this process, and pictures on their way to it and back."""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagel import Bagel

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from bagel.app.server.serve import Server, make_server  # noqa: E402
from bagel.app.server.settings import Settings  # noqa: E402


@dataclass
class Live:
    """A server under way."""

    url: str
    server: Server
    thread: threading.Thread

    @property
    def worker(self) -> Any:
        return self.server.worker

    def client(self, key: str = "none", **fields: Any) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, **fields)

    def post(self, path: str, **fields: Any) -> Any:
        return httpx.post(self.url + path, timeout=60, **fields)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No pass is made meanwhile, however fast the model is: what is sent stays under way."""
        scheduler, go = self.worker.scheduler, threading.Event()
        forward = scheduler._forward

        def waiting(ready: Any) -> Any:
            go.wait(30)
            return forward(ready)

        scheduler._forward = waiting
        try:
            yield
        finally:
            go.set()
            scheduler._forward = forward

    def wait_idle(self, seconds: float = 10.0) -> None:
        wait(lambda: self.worker.open == 0 and not self.worker.scheduler.busy, seconds)


def wait(ready: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(bagel: Bagel, **settings: Any) -> Iterator[Live]:
    port = free_port()
    server = make_server(bagel, Settings(name="mini", **settings), port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait(lambda: server.started, 30)
        yield Live(f"http://127.0.0.1:{port}", server, thread)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def opened(content: str) -> Image.Image:
    """base64, or a data URL, -> a picture."""
    image = Image.open(io.BytesIO(base64.b64decode(content.rpartition(",")[2])))
    image.load()
    return image


def assert_same(found: Image.Image, wanted: Image.Image) -> None:
    assert found.size == wanted.size
    assert np.abs(np.array(found).astype(int) - np.array(wanted)).max() <= 1
