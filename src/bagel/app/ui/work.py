"""What runs on the model's thread: pictures, answers, and turns of a conversation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from bagel.app.ui.host import Emit, Work
from bagel.app.ui.watch import Preview
from bagel.infer.image import ImageStep
from bagel.infer.inputs import Text
from bagel.infer.jobs import seed_of
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.infer.session import Session
from bagel.options import ImageOptions, TextOptions

REST = 8
"""A preview costs at most one part in so many of the time."""


class Previews:
    """Passes events on, and now and then adds how the pictures look. Those of a batch are shown together."""

    def __init__(self, bagel: Bagel, emit: Emit, wanted: bool) -> None:
        self.bagel, self.emit, self.wanted = bagel, emit, wanted
        self.next = time.perf_counter()
        self._shown: tuple[int, float] = (0, 0.0)

    def __call__(self, index: int, event: Any) -> None:
        if not isinstance(event, ImageStep):
            self.emit(index, event)
            return
        self.emit(index, replace(event, latent=event.latent[:0]))
        now = time.perf_counter()
        together = self._shown == (event.update, event.t)
        if not self.wanted or event.update == event.updates or (now < self.next and not together):
            return
        self._shown = event.update, event.t
        self.emit(index, Preview(self.bagel.runtime.decode(event.latent, event.grid)))
        cost = time.perf_counter() - now
        self.next = max(self.next, time.perf_counter()) + max(cost * REST, 0.3)


def pictures(images: Sequence[Image.Image], prompt: str, options: ImageOptions, count: int, preview: bool) -> Work:
    """Draws, or edits where there are pictures; -> a Result for each of `count`, with seeds one apart."""
    first = seed_of(options)
    seeds = [first + i for i in range(count)]

    def work(bagel: Bagel, emit: Emit) -> list[Result]:
        show: Any = Previews(bagel, emit, preview)
        if images:
            return bagel.edit([list(images)] * count, [prompt] * count, options, seed=seeds, progress=show)
        return bagel.draw([prompt] * count, options, seed=seeds, progress=show)

    return work


def answer(images: Sequence[Image.Image], question: str, options: TextOptions) -> Work:
    def work(bagel: Bagel, emit: Emit) -> Result:
        return bagel.chat([*images, Text(question)], options, progress=emit)

    return work


@dataclass(frozen=True)
class Turn:
    """What a user sends, and what is to come back: "text", "image" or "both"."""

    parts: Sequence[Any]
    reply: str
    image: ImageOptions
    text: TextOptions
    preview: bool = True


def turn(session: Session | None, asked: Turn) -> Work:
    """Goes on from a session, which itself stays as it is; -> (the session after the turn, Result)."""

    def work(bagel: Bagel, emit: Emit) -> tuple[Session, Result]:
        show = Previews(bagel, emit, asked.preview)
        after = Session(bagel.runtime, session.conversation.fork() if session else None, progress=show)
        for part in asked.parts:
            show(0, part)  # a good moment to stop
            after.read(Text(part) if isinstance(part, str) else part)
        return after, _reply(after, asked)

    return work


def _reply(session: Session, asked: Turn) -> Result:
    if asked.reply == "text":
        return session.say(asked.text)
    # As large as the last picture; the first takes the size asked for.
    image = replace(asked.image, height=None, width=None) if session.conversation.size else asked.image
    if asked.reply == "image":
        return session.draw(image)
    fields = {
        name: value
        for options in (asked.text, image)
        for name, value in vars(options).items()
        if value is not None and name != "think"
    }
    return session.go_on(max_images=4, **fields)
