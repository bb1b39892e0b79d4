"""What a task of the page has the model do: pictures, answers, and turns of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from bagel.app.previews import Pace, with_previews
from bagel.app.ui.host import Order, Work
from bagel.app.worker import weight_of
from bagel.infer import jobs, turns
from bagel.infer.conversation import Conversation, Input, Runtime
from bagel.infer.demand import demand_of
from bagel.infer.engine import Job
from bagel.infer.inputs import Text, check_size
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.memory.room import Claim
from bagel.options import ImageOptions, TextOptions, settle

MOST_PICTURES = 4
"""Of one reply, where the model decides what comes."""


def pictures(images: Sequence[Image.Image], prompt: str, options: ImageOptions, count: int, preview: bool) -> Work:
    """Draws, or edits where there are pictures; -> a Result for each of `count`, with seeds one apart. options:
    settled."""
    inputs: list[Input] = [*images, Text(prompt)]
    first = jobs.seed_of(options)

    def work(bagel: Bagel, pace: Callable[[], Pace]) -> Order:
        each = [jobs.draw(bagel.runtime, inputs, replace(options, seed=first + number)) for number in range(count)]
        return Order(_shown(bagel.runtime, each, pace, preview), weight_of(inputs, options))

    return work


def answer(images: Sequence[Image.Image], question: str, options: TextOptions) -> Work:
    """-> a Result. options: settled."""
    inputs: list[Input] = [*images, Text(question)]
    return lambda bagel, pace: Order([jobs.answer(bagel.runtime, inputs, options)], weight_of(inputs, text=options))


def _shown(runtime: Runtime, each: Sequence[Job], pace: Callable[[], Pace], preview: bool) -> list[Job]:
    return [with_previews(runtime, job, pace()) for job in each] if preview else list(each)


@dataclass(frozen=True)
class Said:
    """Something of a conversation. own: the model's, not the user's."""

    item: Input
    own: bool = False


@dataclass(frozen=True)
class Turn:
    """What a user sends, and what is to come back: "text", "image" or "both"."""

    parts: Sequence[Input]
    reply: str
    image: ImageOptions
    text: TextOptions
    preview: bool = True


def turn(conversation: Conversation | None, past: Sequence[Said], asked: Turn) -> Work:
    """Goes on from a conversation, which itself stays as it is; -> (the conversation after the turn, Result).
    past: what was said so far, to be read again where the conversation is None."""

    def work(bagel: Bagel, pace: Callable[[], Pace]) -> Order:
        job = _turn(bagel, conversation, past, asked)
        again = [] if conversation else [said.item for said in past]
        held = conversation.cond.length if conversation else 0
        weight = weight_of([*again, *asked.parts], asked.image, asked.text, held=held)
        return Order(_shown(bagel.runtime, [job], pace, asked.preview), weight)

    return work


def _turn(bagel: Bagel, conversation: Conversation | None, past: Sequence[Said], asked: Turn) -> Job:
    runtime, presets = bagel.runtime, bagel.config.presets
    again = [] if conversation else past
    size = conversation.size if conversation else None
    items = [*(said.item for said in again), *asked.parts]
    sees = size is not None or any(isinstance(item, Image.Image) for item in items)
    # As large as the last picture; the first takes the size asked for.
    image = replace(asked.image, height=None, width=None) if sees else asked.image
    image = check_size(settle(image, "edit" if sees else "draw", presets), bagel.config)
    text = settle(asked.text, "chat", presets)
    drawn, written = (None if asked.reply == "text" else image), (None if asked.reply == "image" else text)
    held = conversation.cond.length if conversation else 0
    claim = Claim(runtime.room, demand_of(runtime.checkpoint, items, drawn, written, held=held, size=size))
    yield claim
    with claim.held():
        result = Result(seed=jobs.seed_of(image if drawn else text))
        with result.stats.phase("read"):
            before: Any = conversation or Conversation(runtime)
            for said in again:
                reading = turns.read_own(before, said.item) if said.own else turns.read(before, [said.item])
                before = yield from reading
            before = yield from turns.read(before, asked.parts)
        after = yield from _reply(before, asked.reply, image, text, result)
    return after, result


def _reply(before: Conversation, reply: str, image: ImageOptions, text: TextOptions, result: Result) -> Job:
    if reply == "text":
        return (yield from turns.say(before, text, result))
    if reply == "image":
        return (yield from turns.draw(before, image, result))
    result.text = ""
    return (yield from turns.go_on(before, jobs.Plan(max_images=MOST_PICTURES), image, text, result))
