"""What every tab needs: the model's host, the history, the words, the language's switch, and how a task is run
and shown."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from bagel.app.ui.history import History
from bagel.app.ui.host import Host, Work
from bagel.app.ui.panel import QUIET
from bagel.app.ui.watch import Watch
from bagel.app.ui.words import Words
from bagel.errors import InputError
from bagel.images import fitted, open_image
from bagel.model.config import ModelConfig

TURN = """goal => { if (goal) document.querySelector(`[role=tablist] [data-tab-id="${goal}"]`)?.click(); }"""


@dataclass
class Desk:
    host: Host
    config: ModelConfig
    history: History
    words: Words
    language: Any
    model: str
    goal: Any
    """A hidden box: the tab to go to."""

    async def watch(self, work: Work, language: str, owner: str, count: int = 1) -> AsyncGenerator[Watch, None]:
        """Runs a task of so many jobs; gives the watch whenever something came, at last with `done` set."""
        watch = Watch(language, count)
        async with contextlib.aclosing(self.host.run(work, owner)) as events:
            async for batch in events:
                for index, event in batch:
                    watch.take(index, event)
                yield watch

    def go_there(self, event: Any) -> None:
        """After an event that filled `goal`, the browser turns to that tab."""
        event.then(None, self.goal, None, js=TURN, **QUIET)

    def canceller(self, tab: str) -> Callable[[gr.Request], None]:
        def cancel(request: gr.Request) -> None:
            self.host.stop(owner_of(request, tab))

        return cancel

    def opened(self, gallery: Any) -> list[Image.Image]:
        """A gallery's pictures as the model will see them. Raises InputError, without the folder that an upload
        lies in."""
        return [fitted(_opened(path), self.config.images.vae) for path in paths_in(gallery)]


def owner_of(request: gr.Request, tab: str) -> str:
    return f"{visitor_of(request)}/{tab}/"


def visitor_of(request: gr.Request) -> str:
    return str(request.session_hash)


def paths_in(gallery: Any) -> list[str]:
    """The files of a gallery's pictures."""
    return [item[0] if isinstance(item, (tuple, list)) else item for item in gallery or []]


def _opened(path: str) -> Image.Image:
    try:
        return open_image(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), Path(path).name)) from None
