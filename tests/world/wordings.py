"""Everything that the wording tables can say, with slots unfilled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from bagel.world.wording.grammar import PLAIN, TABLES, frames, in_frame, is_command
from bagel.world.wording.lexicon import Language


def said(language: Language, key: str, new: bool) -> list[str]:
    """The sentences of a key, alternatives chosen: those of training, or those that only the held-out split has."""
    train, reserved = TABLES[language][key]
    usual, unused = (PLAIN[language], *frames(language, key, False)), frames(language, key, True)
    texts = [text for template in (reserved if new else train) for text in _framed(template, usual)]
    if new and reserved:
        texts += [in_frame(template, frame) for template in filter(is_command, train) for frame in unused]
    return [sentence for text in texts for sentence in choices(text)]


def _framed(template: str, usual: tuple[str, ...]) -> list[str]:
    return [in_frame(template, frame) for frame in usual] if is_command(template) else [template]


def choices(template: str) -> Iterator[str]:
    """Every choice among the alternatives; these templates do not nest them."""
    parts = [part.split("|") for part in re.split(r"[\[\]]", template)]
    return ("".join(chosen) for chosen in product(*parts))


def fixed(template: str) -> list[str]:
    """A template's own text: what stands between slots and punctuation."""
    return [run for run in re.split(r"\{\w+\}|[\[\]|,.:;!?。，：\s]+", template.lower()) if run]
