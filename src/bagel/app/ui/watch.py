"""From events to what the page shows meanwhile: a bar with the time left, previews, the text so far."""

from __future__ import annotations

import base64
import html
import io
import time
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from bagel.app.previews import Preview
from bagel.app.ui.errors_zh import in_chinese
from bagel.app.ui.host import Done, Loading, Stopped
from bagel.app.ui.texts import TellError, say, seconds
from bagel.app.worker import Queued
from bagel.errors import BagelError
from bagel.infer.image import ImageStep
from bagel.infer.result import ImageDone, TextDone
from bagel.infer.text import TextPiece


@dataclass
class Watch:
    """Takes the events of one task. thoughts, texts: what is being written, by job; parts: texts and pictures that
    are done, by job in order."""

    language: str
    count: int = 1
    """Jobs of the task."""
    began: float = field(default_factory=time.perf_counter)
    thoughts: dict[int, str] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    parts: dict[int, list[str | Image.Image]] = field(default_factory=dict)
    previews: dict[int, Image.Image] = field(default_factory=dict)
    done: Done | None = None
    _steps: dict[int, tuple[int, int]] = field(default_factory=dict)
    _drawing_since: tuple[float, float] | None = None
    _pieces: int = 0
    _now: str = "reading"
    _ahead: int = 0
    _fresh: bool = False

    def take(self, index: int, event: Any) -> None:
        if isinstance(event, Loading):
            self._now = "loading.wait"
        elif isinstance(event, Queued):
            self._now = "reading" if self._now == "loading.wait" else self._now
            self._ahead = event.ahead if index == 0 else self._ahead
        elif isinstance(event, TextPiece):
            self._write(index, event)
        elif isinstance(event, TextDone):
            if not event.thought:
                self.texts.pop(index, None)
                self.parts.setdefault(index, []).append(event.text)
        elif isinstance(event, ImageStep):
            self._draw(index, event)
        elif isinstance(event, ImageDone):
            self.parts.setdefault(index, []).append(event.image)
        elif isinstance(event, Preview):
            self.previews[index], self._fresh = event.image, True
        elif isinstance(event, Done):
            self.done = event

    def _write(self, index: int, event: TextPiece) -> None:
        texts = self.thoughts if event.thought else self.texts
        texts[index] = texts.get(index, "") + event.text
        now = "thinking" if event.thought else "writing"
        self._pieces = self._pieces + 1 if self._now == now else 1
        self._now = now

    def _draw(self, index: int, event: ImageStep) -> None:
        if event.update < self._steps.get(index, (0, 0))[0]:  # another picture
            self._steps = {} if self.count == 1 else self._steps
            self._drawing_since = None
        self._now, self._steps[index] = "drawing", (event.update, event.updates)
        self._drawing_since = self._drawing_since or (time.perf_counter(), self._part())

    def _part(self) -> float:
        """How much of all pictures is drawn, 0 to 1."""
        return sum(update / updates for update, updates in self._steps.values()) / self.count

    def said(self, index: int = 0) -> list[str | Image.Image]:
        """Texts and pictures of a job so far, the unfinished one too."""
        rest = self.texts.get(index)
        return [*self.parts.get(index, ()), *([rest] if rest else [])]

    def status(self) -> str:
        """The line and the bar, as HTML."""
        passed = seconds(time.perf_counter() - self.began, self.language)
        if self._ahead and self._now == "reading":
            return _box(say("waiting", self.language, ahead=self._ahead), passed)
        if self._now != "drawing":
            return _box(say(self._now, self.language, n=self._pieces), passed)
        update, updates = min(self._steps.values())
        line = say("drawing", self.language, n=update, all=updates)
        left = self._left()
        if left is not None:
            passed += " · " + say("left", self.language, time=seconds(left, self.language))
        return _box(line, passed, self._part())

    def pictures(self) -> str | None:
        """The previews as HTML; None where they are the same as the last time."""
        if not self._fresh:
            return None
        self._fresh = False
        return _pictures([self.previews[i] for i in sorted(self.previews)])

    def _left(self) -> float | None:
        if self._drawing_since is None:
            return None
        began, first = self._drawing_since
        passed, drawn = time.perf_counter() - began, self._part() - first
        return passed / drawn * (1 - self._part()) if drawn > 0 and passed > 0.3 else None

    def ended(self, seeds: list[int | None]) -> str:
        """The last line: how it ended."""
        assert self.done is not None
        if self.done.error is not None:
            return error_box(self.done.error, self.language)
        line = say("done", self.language, time=seconds(time.perf_counter() - self.began, self.language))
        shown = [say("done.seed", self.language, seed=seed) for seed in seeds if seed is not None]
        return _box(line, ", ".join(shown), kind="done")


def error_box(error: BaseException, language: str, key: str = "plain") -> str:
    """An error as a sentence. key: of the text that it stands in."""
    if isinstance(error, Stopped):
        return _box(say("stopped", language), kind="note")
    text = say(key, language, error=_sentence(error, language))
    return _box(text[:1].upper() + text[1:], kind="error")


def _sentence(error: BaseException, language: str) -> str:
    if isinstance(error, BagelError):
        told = language != "zh" or isinstance(error, TellError)
        return str(error) if told else in_chinese(str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return say("memory", language)
    return say("broken", language, kind=type(error).__name__)


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
