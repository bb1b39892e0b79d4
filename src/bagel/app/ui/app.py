"""Starts the page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagel.errors import InputError
from bagel.infer.pipeline import Bagel
from bagel.model.config import ModelConfig

if TYPE_CHECKING:
    from bagel.app.ui.history import History
    from bagel.app.ui.page import Page

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_UPLOAD = "64mb"
FILE = re.compile(r"/file[=/](.*)", re.DOTALL)
"""Gradio's address of a file."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'"
)
"""Has the browser fetch nothing from elsewhere, whatever Gradio's template asks for."""


@dataclass(frozen=True)
class Place:
    """Where the page listens, and where its pictures go."""

    host: str = "127.0.0.1"
    port: int = 7860
    out: Path = Path("out")

    @property
    def is_private(self) -> bool:
        """Whether only this machine can open the page."""
        return self.host in LOOPBACK


def serve(
    model: str,
    config: ModelConfig,
    load: Callable[[Callable[[int, int], None]], Bagel],
    place: Place,
    *,
    wait: bool = True,
) -> Page:
    """Opens the page at once and loads the model behind it; with `wait` until Ctrl-C.

    Raises InputError where Gradio is missing or the port is taken."""
    _import_gradio()
    from bagel.app.ui.examples import is_little
    from bagel.app.ui.history import History
    from bagel.app.ui.host import Host
    from bagel.app.ui.page import Page
    from bagel.app.ui.style import CSS, HEAD, LITTLE, theme

    host, history = Host(load), History(place.out, shared=place.is_private)
    name = Path(model).name or model
    page = Page(host, config, history, name)
    page.blocks.queue(default_concurrency_limit=None)
    try:
        page.blocks.launch(
            server_name=place.host,
            server_port=place.port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            allowed_paths=[str(history.folder)],
            theme=theme(),
            css=CSS + LITTLE if is_little(config) else CSS,
            head=HEAD,
            app_kwargs={"middleware": _middleware(history), "docs_url": None, "redoc_url": None},
        )
    except OSError:
        raise InputError(f"port {place.port} of {place.host} is taken; choose another with --port.") from None
    host.start()
    if wait:
        print(f"http://{place.host}:{place.port}", flush=True)
        try:
            page.blocks.block_thread()
        finally:
            page.close()
    return page


def _import_gradio() -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError("the page needs Gradio; install it: pip install 'bagel-mot[ui]'.") from None


def _middleware(history: History) -> list[Any]:
    from starlette.middleware import Middleware

    return [Middleware(_Policy, history=history)]


class _Policy:
    """Adds the policy to every answer; events still stream. Of the history's folder nothing is served but its
    pictures, whatever else lies there."""

    def __init__(self, app: Any, history: History) -> None:
        self.app, self.history = app, history

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = FILE.search(scope["path"]) if scope["type"] == "http" else None
        if asked and not self.history.may_serve(asked[1]):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)
