"""Writing text: the choice of the next token, the loop, and text as it comes out of byte-level tokens.

Letters: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bagel.devices import generator_for
from bagel.infer.context import Context
from bagel.infer.engine import Choice, Engine, Job, Read, Seen
from bagel.pack import TextPart
from bagel.tokens import SPECIAL, Tokenizer


@dataclass(frozen=True)
class TextPiece:
    """Some more text of an answer, or of a thought."""

    text: str
    thought: bool = False


class Sampler:
    """Greedy, or a draw from softmax(logits / temperature) by a generator of its own."""

    def __init__(self, do_sample: bool, temperature: float, seed: int, device: torch.device) -> None:
        self.temperature = temperature if do_sample else None
        self.generator = generator_for(seed, device) if do_sample else None

    def __call__(self, logits: Tensor) -> int:
        """logits [1, V] -> an id."""
        return int(logits[0].argmax() if self.temperature is None else self.draw(logits))

    def draw(self, logits: Tensor) -> Tensor:
        """logits [1, V] -> an id, int64 [1], by a race of the tokens: as `torch.multinomial`, number for number, but it
        does not wait for the device to say that the odds are odds."""
        assert self.temperature is not None
        odds = torch.softmax(logits[0].float() / self.temperature, dim=-1)
        return (odds / torch.empty_like(odds).exponential_(1, generator=self.generator)).argmax(dim=-1, keepdim=True)

    def choice(self, more: bool) -> Choice:
        return Choice(None if self.temperature is None else self.draw, more)


Begun = tuple[Context, Seen | None]
"""A context, and what came out of the start token where it has read that already."""


def write(
    engine: Engine,
    tokenizer: Tokenizer,
    begun: Begun,
    sampler: Sampler,
    max_tokens: int,
    thought: bool = False,
) -> Job:
    """Writes behind a context, which keeps what is written (pass a fork). Yields TextPieces; returns the ids
    with the start token and without the closing `<|im_end|>`: at most `max_tokens`, the start counted."""
    ids, pending = [tokenizer.bos], _Pending(tokenizer)
    context, seen = begun
    while len(ids) < max_tokens:
        if seen is None:
            choice = sampler.choice(more=len(ids) + 1 < max_tokens)
            answer: list[Seen] = yield [Read(context, TextPart(ids[-1:]), choice=choice)]
            seen = answer[0]
        chosen = seen.chosen
        if chosen is None:
            chosen = sampler(engine.logits(seen.last) if seen.logits is None else seen.logits)
        seen = None
        if chosen == tokenizer.eos:
            break
        ids.append(chosen)
        if text := pending.push(chosen):
            yield TextPiece(text, thought)
    if text := pending.rest():
        yield TextPiece(text, thought)
    return ids


class _Pending:
    """Holds tokens back while they end within a character."""

    longest = 8

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []

    def push(self, token: int) -> str:
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self.ids) < self.longest:
            return ""
        self.ids.clear()
        return text

    def rest(self) -> str:
        return self.tokenizer.decode(self.ids) if self.ids else ""


def unmarked(text: str) -> str:
    """What a model wrote without special tokens: where it may only write, one that would rather draw writes the
    marker of a picture."""
    for token in SPECIAL:
        text = text.replace(token, "")
    return text


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """What was written: everything behind the start token."""
    return tokenizer.decode(ids[1:])
