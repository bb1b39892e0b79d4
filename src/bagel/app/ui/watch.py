"""From events to what the page shows meanwhile: a bar with the time left, previews, the text so far."""

from __future__ import annotations

import base64
import html
import io
import time
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from bagel.app.ui.host import Done, Stopped, Waiting
from bagel.app.ui.texts import say, seconds
from bagel.errors import BagelError
from bagel.infer.image import ImageStep
from bagel.infer.text import TextPiece


@dataclass(frozen=True)
class Preview:
    """How a picture looks at the moment."""

    image: Image.Image


@dataclass
class Watch:
    """Takes the events of one task. thoughts, texts: written so far, by request."""

    language: str
    began: float = field(default_factory=time.perf_counter)
    thoughts: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    previews: dict[int, Image.Image] = field(default_factory=dict)
    done: Done | None = None
    _step: tuple[int, int] | None = None
    _first_step: tuple[float, int] = (0.0, 0)
    _pieces: int = 0
    _now: str = "reading"
    _ahead: int = 0
    _fresh: bool = False

    def take(self, index: int, event: Any) -> None:
        if isinstance(event, Waiting):
            self._ahead = event.ahead
        elif isinstance(event, TextPiece):
            texts = self.thoughts if event.thought else self.texts
            texts[index] = texts.get(index, "") + event.text
            self._pieces = self._pieces + 1 if self._step is None else 1
            self._step, self._now = None, "thinking" if event.thought else "writing"
        elif isinstance(event, ImageStep):
            if self._step is None or event.update < self._step[0]:
                self._first_step = time.perf_counter(), event.update
            self._step, self._now = (event.update, event.updates), "drawing"
        elif isinstance(event, Preview):
            self.previews[index], self._fresh = event.image, True
        elif isinstance(event, Done):
            self.done = event

    def status(self) -> str:
        """The line and the bar, as HTML."""
        passed = seconds(time.perf_counter() - self.began, self.language)
        if self._ahead and self._now == "reading":
            return _box(say("waiting", self.language, ahead=self._ahead), passed)
        if self._step is None:
            name = say(self._now, self.language, n=self._pieces) if self._pieces else say("reading", self.language)
            return _box(name, passed)
        update, updates = self._step
        line = say("drawing", self.language, n=update, all=updates)
        left = self._left(update, updates)
        if left is not None:
            passed += " · " + say("left", self.language, time=seconds(left, self.language))
        return _box(line, passed, update / updates)

    def pictures(self) -> str | None:
        """The previews as HTML; None where they are the same as the last time."""
        if not self._fresh:
            return None
        self._fresh = False
        return _pictures([self.previews[i] for i in sorted(self.previews)])

    def _left(self, update: int, updates: int) -> float | None:
        began, first = self._first_step
        if update - first < 2:
            return None
        return (time.perf_counter() - began) / (update - first) * (updates - update)

    def ended(self, seeds: list[int | None]) -> str:
        """The last line: how it ended."""
        assert self.done is not None
        if self.done.error is not None:
            return error_box(self.done.error, self.language)
        line = say("done", self.language, time=seconds(time.perf_counter() - self.began, self.language))
        shown = [say("done.seed", self.language, seed=seed) for seed in seeds if seed is not None]
        return _box(line, ", ".join(shown), kind="done")


def error_box(error: BaseException, language: str) -> str:
    """An error as a sentence."""
    if isinstance(error, Stopped):
        return _box(say("stopped", language), kind="note")
    if isinstance(error, BagelError):
        text = str(error)
        return _box(text[:1].upper() + text[1:], kind="error")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return _box(say("memory", language), kind="error")
    return _box(say("broken", language, kind=type(error).__name__), kind="error")


def note_box(text: str, part: float | None = None) -> str:
    return _box(text, part=part, kind="note")


def _box(line: str, more: str = "", part: float | None = None, kind: str = "run") -> str:
    bar = "" if part is None else f'<div class="bar"><i style="width:{100 * part:.1f}%"></i></div>'
    role = "alert" if kind == "error" else "status"
    return (
        f'<div class="box {kind}" role="{role}"><span>{html.escape(line)}</span>'
        f"<small>{html.escape(more)}</small>{bar}</div>"
    )


def _pictures(images: list[Image.Image]) -> str:
    if not images:
        return ""
    side = 512 if len(images) == 1 else 320
    shown = "".join(f'<img alt="" src="{_data_url(image, side)}">' for image in images)
    return f'<div class="previews n{min(len(images), 2)}">{shown}</div>'


def _data_url(image: Image.Image, side: int) -> str:
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
