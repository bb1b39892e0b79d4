"""What every tab needs: the model's host, the history, the words, the language's switch, and how a task is run
and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from bagel.app.ui.examples import Pair, examples, wording
from bagel.app.ui.history import History
from bagel.app.ui.host import Host, Work
from bagel.app.ui.watch import Watch
from bagel.app.ui.words import Words
from bagel.errors import InputError
from bagel.images import open_image
from bagel.model.config import ModelConfig

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
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

    def owner(self, request: gr.Request, tab: str) -> str:
        return f"{request.session_hash}/{tab}/"

    def watch(self, work: Work, language: str, owner: str) -> Iterator[Watch]:
        """Runs a task; gives the watch whenever something came, at last with `done` set."""
        watch = Watch(language)
        events = self.host.run(work, owner)
        try:
            for batch in events:
                for index, event in batch:
                    watch.take(index, event)
                yield watch
        finally:
            events.close()  # type: ignore[attr-defined]

    def go_there(self, event: Any) -> None:
        """After an event that filled `goal`, the browser turns to that tab."""
        event.then(None, self.goal, None, js=TURN, **QUIET)

    def canceller(self, tab: str) -> Callable[[gr.Request], None]:
        def cancel(request: gr.Request) -> None:
            self.host.stop(self.owner(request, tab))

        return cancel

    def example_buttons(self, job: str) -> list[tuple[Any, Pair]]:
        with gr.Row(elem_classes="examples"):
            self.words(gr.HTML, wording={"value": "examples"}, elem_classes="name", padding=False)
            return [(self._example_button(pair), pair) for pair in examples(job, self.config)]

    def _example_button(self, pair: Pair) -> Any:
        return self.words(gr.Button, wording={"value": lambda language: wording(pair, language)}, size="sm")


def paths_in(gallery: Any) -> list[str]:
    """The files of a gallery's pictures."""
    return [item[0] if isinstance(item, (tuple, list)) else item for item in gallery or []]


def opened(gallery: Any) -> list[Image.Image]:
    """A gallery's pictures. Raises InputError, without the folder that an upload lies in."""
    return [_opened(path) for path in paths_in(gallery)]


def _opened(path: str) -> Image.Image:
    try:
        return open_image(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), Path(path).name)) from None
