"""Pictures and answers from the model as it is, through the same code that serves it. Every rank makes all of
them, in step, since a sharded model answers only when all ranks ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

from bagel.errors import InputError
from bagel.images import open_image
from bagel.infer.conversation import Runtime
from bagel.infer.pipeline import Bagel
from bagel.options import PRESETS, ImageOptions, TextOptions, settle
from bagel.options import make as options
from bagel.train.config import SamplesPart
from bagel.train.parallel import for_sampling
from bagel.train.setup import Setup


class Shown(NamedTuple):
    """A sample: what it is called, what was asked and answered, and the PIL picture if one was drawn."""

    name: str
    text: str
    image: Any = None


def check(asked: SamplesPart) -> None:
    """What can be told before training, so that no mistake ends a run hours after its start. Raises InputError."""
    try:
        settle(options(ImageOptions, None, asked.image_options), "draw", PRESETS)
        settle(options(TextOptions, None, asked.text_options), "chat", PRESETS)
        for path in (*asked.edit, *asked.ask):
            open_image(path)
    except InputError as error:
        raise InputError(f"samples: {error}") from None


def make(setup: Setup) -> Iterator[Shown]:
    """From the running mean of the weights where there is one."""
    asked = setup.config.samples
    pictures, texts = {"seed": 0, **asked.image_options}, {"seed": 0, **asked.text_options}
    mean = setup.ema.in_place() if setup.ema else nullcontext()
    with mean, for_sampling(setup.checkpoint.model):
        bagel = Bagel(Runtime.of(setup.checkpoint))
        for number, prompt in enumerate(asked.draw):
            yield Shown(f"draw-{number}", prompt, bagel.draw(prompt, **pictures).image)
        for number, (path, instruction) in enumerate(asked.edit.items()):
            yield Shown(f"edit-{number}", instruction, bagel.edit(path, instruction, **pictures).image)
        for number, (path, question) in enumerate(asked.ask.items()):
            yield Shown(f"ask-{number}", f"{question}\n{bagel.chat([path, question], **texts).text}")
        if asked.world:
            from bagel.eval.probe import probe

            table, sheet = probe(bagel, asked.world, asked.image_options)
            yield Shown("world", table, sheet)
        for number, question in enumerate(asked.chat):
            yield Shown(f"chat-{number}", f"{question}\n{bagel.chat([question], **texts).text}")
