"""From a table of templates to sentences.

A template may hold alternatives, "[Draw|Paint] {thing}[, please|].", nested at will; slots are filled with phrases.
Each key of a table has templates for training and some that are reserved for the held-out split.
"""

import re
from collections.abc import Sequence
from random import Random

from ..splits import Combo
from .chinese import TEMPLATES as CHINESE_TEMPLATES
from .english import TEMPLATES as ENGLISH_TEMPLATES
from .lexicon import Language
from .phrases import RANKS, Chinese, English, Kind

Table = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
TABLES: dict[Language, Table] = {"en": ENGLISH_TEMPLATES, "zh": CHINESE_TEMPLATES}
_CHOICE = re.compile(r"\[([^\[\]]*)\]")

_SENTENCE = re.compile(r"^[a-z]|(?<=[.!?] )[a-z]")


def expand(template: str, rng: Random) -> str:
    """Choose among the alternatives, innermost first."""
    while "[" in template:
        template = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
    return template


class Words:
    """The wording of one sample: one language, and held-out templates or not. Remembers which templates it used."""

    def __init__(self, rng: Random, language: Language, new: bool) -> None:
        self.rng, self.language, self.new = rng, language, new
        self.nouns: English | Chinese = English(rng) if language == "en" else Chinese(rng)
        self.used: set[Combo] = set()

    def say(self, key: str, **slots: str) -> str:
        """A sentence for `key`."""
        train, new = TABLES[self.language][key]
        fresh = self.new and bool(new)
        pool = new if fresh else train
        number = self.rng.randrange(len(pool))
        self.used.add(("wording", self.language, key, number, "new" if fresh else "train"))
        text = expand(pool[number], self.rng).format(**slots)
        return _SENTENCE.sub(lambda match: match[0].upper(), text)

    def lower(self, key: str, **slots: str) -> str:
        """The same as part of a sentence."""
        text = self.say(key, **slots)
        return text[0].lower() + text[1:]

    def join(self, phrases: Sequence[str]) -> str:
        """A list in words."""
        return self.nouns.join(phrases)

    def a(self, shape: str, colour: str | None = None, size: str | None = None) -> str:
        """ "a small red circle" """
        return self.nouns.a(Kind(shape, colour, size))

    def the(self, shape: str, colour: str | None = None, rank: str | None = None) -> str:
        """ "the red circle", "the largest circle" """
        return self.nouns.the(Kind(shape, colour, rank=rank))

    def some(self, n: int, *look: str | None) -> str:
        """ "three red circles" """
        return self.nouns.some(n, Kind(*look))

    def many(self, *look: str | None) -> str:
        """ "red circles" """
        return self.nouns.many(Kind(*look))

    def word(self, kind: str, name: str) -> str:
        """A word of the lexicon."""
        return self.nouns.word(kind, name)

    def plain(self, kind: str, name: str) -> str:
        """The usual word of the lexicon, as an answer gives it."""
        return self.nouns.plain(kind, name)

    def rank(self, name: str) -> str:
        """ "largest" """
        return RANKS[name][0 if self.language == "en" else 1]

    def number(self, n: int) -> str:
        """ "three" """
        return self.nouns.number(n)

    def place(self, name: str) -> str:
        """ "the top left corner" """
        return self.nouns.place(name)
