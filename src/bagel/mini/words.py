"""The tokenizer of `mini`: a byte-level BPE learnt from the world's own wording, English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tokenizers import AddedToken, models, pre_tokenizers, trainers

from bagel import world
from bagel.tokens import SPECIAL, THINK_PROMPT, Tokenizer, byte_level


def wording(count: int, seed: int = 0) -> Iterator[str]:
    """Every text of so many training exercises of each task, and now and then the system prompts."""
    for number in range(count):
        for task, categories in world.TASKS.items():
            category = list(categories)[number % len(categories)]
            for part in world.make(task, category, seed, number).parts:
                if isinstance(part, world.Thought):
                    yield part.tagged
                elif isinstance(part, world.Text | world.Said | world.TargetAnswer):
                    yield part.text
        if number % 20 == 0:
            yield from THINK_PROMPT.values()


def train_tokenizer(texts: Iterator[str], size: int) -> Tokenizer:
    """A vocabulary of `size` in all: 256 bytes, merges, and the four special tokens last."""
    backend = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_cut(texts), trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return Tokenizer(backend)


_CHINESE = re.compile(r"[\u4e00-\u9fff]+")


def _cut(texts: Iterator[str]) -> Iterator[str]:
    """Chinese runs in pieces of two signs: phrases that are one token would be learnt by heart, not read."""
    for text in texts:
        yield _CHINESE.sub(lambda run: " ".join(re.findall(".{1,2}", run[0])), text)
