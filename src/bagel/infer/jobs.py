"""Requests as jobs: draw or edit, answer, interleave. Each returns a Result and yields its events."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bagel.errors import InputError
from bagel.infer.conversation import Conversation, Input, Runtime
from bagel.infer.demand import demand_of
from bagel.infer.engine import Job
from bagel.infer.result import ImageDone, Result, TextDone
from bagel.memory.room import Claim
from bagel.options import ImageOptions, TextOptions, need


def seed_of(options: ImageOptions | TextOptions) -> int:
    """The request's seed; one that was not given is drawn from the system, never from a global generator."""
    return secrets.randbelow(2**31) if options.seed is None else options.seed


def draw(runtime: Runtime, inputs: Sequence[Input], options: ImageOptions) -> Job:
    """A picture by all that the inputs say, with a thought before it where asked."""
    result = Result(seed=seed_of(options))
    return (yield from _begun(runtime, inputs, result, lambda talk: draw_next(talk, options, result), image=options))


def _begun(
    runtime: Runtime,
    inputs: Sequence[Input],
    result: Result,
    go_on: Callable[[Conversation], Job],
    *,
    image: ImageOptions | None = None,
    text: TextOptions | None = None,
) -> Job:
    """Reads the inputs, once there is room for all that is asked, and goes on from there; -> `result`."""
    claim = Claim(runtime.room, demand_of(runtime.checkpoint, inputs, image, text))
    yield claim
    with claim.held():
        conversation, kind = Conversation(runtime), "image" if image else "text"
        think = kind if (image or need(text)).think else None
        with result.stats.phase("read"):
            start = image is None  # an answer follows for sure, so its start token is read along
            yield from conversation.read_inputs(inputs, latents=image is not None, think=think, start=start)
        yield from go_on(conversation)
    return result


def draw_next(conversation: Conversation, options: ImageOptions, result: Result) -> Job:
    """A thought, if asked for, and the picture, into `result`."""
    assert result.seed is not None
    if options.think:
        thought: TextDone = yield from conversation.write(options, result.seed, result.stats, thought=True)
        result.text, result.token_ids = thought.text, thought.token_ids
        yield thought
        yield from conversation.read_thought(thought.text)
    picture: ImageDone = yield from conversation.draw(options, result.seed, result.stats)
    result.images.append(picture.image)
    result.latent = picture.latent
    yield picture


def answer(runtime: Runtime, inputs: Sequence[Input], options: TextOptions) -> Job:
    """Text by all that the inputs say. With `think` the thought is part of the text, as the model writes it."""
    result = Result(seed=seed_of(options))
    return (yield from _begun(runtime, inputs, result, lambda talk: answer_next(talk, options, result), text=options))


def answer_next(conversation: Conversation, options: TextOptions, result: Result) -> Job:
    assert result.seed is not None
    done: TextDone = yield from conversation.write(options, result.seed, result.stats, thought=False)
    result.text, result.token_ids = done.text, done.token_ids
    yield done


@dataclass(frozen=True)
class Plan:
    """What comes out of an interleaved request. `parts`: "text" and "image" in the order wanted; None lets the
    model decide after each part, until it ends or a limit is reached."""

    parts: Sequence[str] | None = None
    max_images: int = 8
    max_parts: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.max_images, int) or self.max_images < 0:
            raise InputError(f"max_images is {self.max_images!r}; it must be a whole number, 0 or more.")
        if self.parts is not None and not isinstance(self.parts, (list, tuple)):
            raise InputError(f'the output parts are {self.parts!r}; give a list of "text" and "image".')
        for part in self.parts or ():
            if part not in ("text", "image"):
                raise InputError(f'output part {part!r} is unknown; use "text" or "image".')


def interleave(runtime: Runtime, inputs: Sequence[Input], plan: Plan, image: ImageOptions, text: TextOptions) -> Job:
    """Text and pictures in turn; each is read back before the next, a picture as clean latents and ViT
    features, just as if a user had sent it."""
    result = Result(seed=seed_of(image), text="")

    def go_on(conversation: Conversation) -> Job:
        return interleave_next(conversation, plan, image, text, result)

    return (yield from _begun(runtime, inputs, result, go_on, image=image, text=text))


def interleave_next(
    conversation: Conversation, plan: Plan, image: ImageOptions, text: TextOptions, result: Result
) -> Job:
    assert result.seed is not None
    for number in range(len(plan.parts) if plan.parts is not None else plan.max_parts):
        kind = plan.parts[number] if plan.parts is not None else next_kind(conversation)
        if kind == "text":
            done: TextDone = yield from conversation.write(text, result.seed + number, result.stats, thought=False)
            result.text = f"{result.text}\n{done.text}" if result.text else done.text
            result.token_ids = [*(result.token_ids or []), *done.token_ids]
            yield done
            yield from conversation.read_text(done.text, is_input=False)
        elif kind == "image" and len(result.images) < plan.max_images:
            seed = result.seed + len(result.images)
            picture: ImageDone = yield from conversation.draw(image, seed, result.stats)
            result.images.append(picture.image)
            result.latent = picture.latent
            yield picture
            yield from conversation.read_image(picture.image)
        else:
            return


@torch.inference_mode()
def next_kind(conversation: Conversation) -> str:
    """What the model wants next: "image", "text" or "end". The token that closes a part is trained to name
    what follows (paper, section 3.3; `special_token_label` upstream), so its likeliest successor among the
    three markers decides."""
    checkpoint = conversation.runtime.checkpoint
    if conversation.last is None:
        return "text"
    tokenizer = checkpoint.tokenizer
    kinds = {tokenizer.start_of_image: "image", tokenizer.bos: "text", tokenizer.eos: "end"}
    scores = conversation.runtime.engine.logits(conversation.last)[0, list(kinds)]
    return list(kinds.values())[int(scores.argmax())]
