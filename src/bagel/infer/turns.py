"""Turns of a conversation as jobs, to be run one by one (`session`) or beside others (`scheduler`).

Each goes on from a conversation on a fork of it, which it returns: the conversation that is handed in stays as it
was, whatever becomes of the turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from bagel.infer import jobs
from bagel.infer.conversation import Conversation, Input
from bagel.infer.engine import Job
from bagel.infer.result import Result
from bagel.options import ImageOptions, TextOptions
from bagel.tokens import THINK_PROMPT


def read(before: Conversation, items: Sequence[Input], *, latents: bool = True) -> Job:
    """Text and opened pictures of a user, in order. latents: see `Session.read`."""
    after = before.fork()
    yield from after.read_inputs(items, latents=latents)
    return after


def read_own(before: Conversation, item: Input) -> Job:
    """A text or picture that the model made in an earlier turn."""
    after = before.fork()
    if isinstance(item, Image.Image):
        yield from after.read_image(item)
    else:
        yield from after.read_text(item, is_input=False)
    return after


def draw(before: Conversation, options: ImageOptions, result: Result, *, keep: bool = True) -> Job:
    """The next picture, into `result`; by a thought first where asked, which is not kept. keep: read it back."""
    trial = before.fork()
    if options.think:
        yield from trial.read_text(THINK_PROMPT["image"], is_input=False)
    yield from jobs.draw_next(trial, options, result)
    del trial  # gives its place back
    return (yield from read_own(before, result.images[-1])) if keep else before


def say(before: Conversation, options: TextOptions, result: Result, *, keep: bool = True) -> Job:
    """The next answer, into `result`. keep: read it back."""
    trial = before.fork()
    if options.think:
        yield from trial.read_text(THINK_PROMPT["text"], is_input=False)
    yield from jobs.answer_next(trial, options, result)
    del trial
    return (yield from read_own(before, result.text)) if keep and result.text else before


def go_on(before: Conversation, plan: jobs.Plan, image: ImageOptions, text: TextOptions, result: Result) -> Job:
    """Text and pictures in turn, all kept, into `result`."""
    after = before.fork()
    yield from jobs.interleave_next(after, plan, image, text, result)
    return after
