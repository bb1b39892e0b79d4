"""From a table of templates to sentences.

A template may hold alternatives, "[Draw|Paint] {thing}[, please|].", nested at will; slots are filled with phrases.
One that ends in "!" is a command, "remove {thing}!", and is said in a frame: "Could you remove the star?"

Each key of a table has templates for training and some that are reserved for the held-out split. So have the frames:
some are reserved, and of the others each key does without a few in training. New wording is therefore a reserved
template, or a known command in a frame in which it was never said.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from ..splits import Combo, heldout
from . import chinese, english
from .lexicon import Language
from .phrases import RANKS, Chinese, English, Kind

Table = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
TABLES: dict[Language, Table] = {"en": english.TEMPLATES, "zh": chinese.TEMPLATES}
PLAIN: dict[Language, str] = {"en": english.PLAIN, "zh": chinese.PLAIN}
FRAMES: dict[Language, tuple[tuple[str, ...], tuple[str, ...]]] = {"en": english.FRAMES, "zh": chinese.FRAMES}
PLAINLY = 0.7  # share of commands without a frame; each costs tokens
REFRAMED = 0.3  # share of new wordings that are known commands in a new frame
_CHOICE = re.compile(r"\[([^\[\]]*)\]")

_SENTENCE = re.compile(r"^[a-z]|(?<=[.!?] )[a-z]")


def expand(template: str, rng: Random) -> str:
    """Choose among the alternatives, innermost first."""
    while "[" in template:
        template = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
    return template


def is_command(template: str) -> bool:
    """Is it said in a frame?"""
    return template.endswith("!")


def in_frame(command: str, frame: str) -> str:
    """A command template as the sentence template it becomes."""
    return frame.replace("{do}", command[:-1])


@lru_cache(maxsize=512)
def frames(language: Language, key: str, new: bool) -> tuple[str, ...]:
    """The frames, without the plain one, in which training says commands of a key; or those in which it does not."""
    shared, reserved = FRAMES[language]
    here = tuple(frame for i, frame in enumerate(shared) if heldout(("frame", language, key, i)) == new)
    return here + reserved if new else here


class Words:
    """The wording of one sample: one language, and held-out templates or not. Remembers which templates it used.
    `framed` False says commands plainly."""

    def __init__(self, rng: Random, language: Language, new: bool, framed: bool = True) -> None:
        self.rng, self.language, self.new, self.framed = rng, language, new, framed
        self.nouns: English | Chinese = English(rng) if language == "en" else Chinese(rng)
        self.used: set[Combo] = set()
        self.said: dict[str, int] = {}  # which template a key was last said with

    def plainly(self) -> "Words":
        """The same without frames; what it uses is remembered here too."""
        words = Words(self.rng, self.language, self.new, framed=False)
        words.used, words.said = self.used, self.said
        return words

    def say(self, key: str, **slots: str) -> str:
        """A sentence for `key`."""
        train, reserved = TABLES[self.language][key]
        fresh = self.new and bool(reserved)
        commands = [template for template in train if is_command(template)] if fresh and self.framed else []
        reframed = bool(commands) and self.rng.random() < REFRAMED
        template = self.rng.choice(commands if reframed else reserved if fresh else train)
        frame = self._frame(key, reframed) if is_command(template) else ""
        number = (reserved if fresh and not reframed else train).index(template)
        self.said[key] = number
        self.used.add(("wording", self.language, key, number, frame, "new" if fresh else "train"))
        text = expand(in_frame(template, frame) if frame else template, self.rng).format(**slots)
        return _SENTENCE.sub(lambda match: match[0].upper(), text)

    def _frame(self, key: str, new: bool) -> str:
        if not new and (not self.framed or self.rng.random() < PLAINLY):
            return PLAIN[self.language]
        return self.rng.choice(frames(self.language, key, new))

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
