"""Noun phrases in both languages: "the largest red circle", "three stars", "最大的红色圆形", "三个五角星"."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .lexicon import CHINESE, ENGLISH


@dataclass(frozen=True)
class Kind:
    """A description of things; None leaves an attribute unsaid. `rank` is one of RANKS."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    rank: str | None = None


RANKS = {
    "largest": ("largest", "最大的"),
    "smallest": ("smallest", "最小的"),
    "leftmost": ("leftmost", "最左边的"),
    "rightmost": ("rightmost", "最右边的"),
    "topmost": ("topmost", "最上面的"),
    "lowest": ("lowest", "最下面的"),
    "only": ("only", "唯一的"),
}
ENGLISH_PLACES_MIDDLE = {"middle left": "left side", "middle right": "right side"}
CHINESE_PLACES = {
    "top left": "左上角", "top centre": "上方中间", "top right": "右上角",
    "middle left": "左侧中间", "centre": "正中间", "middle right": "右侧中间",
    "bottom left": "左下角", "bottom centre": "下方中间", "bottom right": "右下角",
}  # fmt: skip


class English:
    """English noun phrases."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def plain(self, kind: str, name: str) -> str:
        """The usual word; a side without its preposition, as in an answer."""
        words = ENGLISH[kind][name]
        return words[-1] if kind == "relation" and name in ("left", "right") else words[0]

    def word(self, kind: str, name: str) -> str:
        """A synonym; for a relation never the bare last word, which only an answer may be."""
        words = ENGLISH[kind][name]
        if kind == "relation" and name in ("left", "right"):
            words = words[:-1]
        return words[0] if self.rng.random() < 0.7 else self.rng.choice(words)

    def noun(self, kind: Kind, plural: bool = False) -> str:
        """The bare phrase, without article."""
        shape = self.word("shape", kind.shape) if kind.shape else "shape"
        if plural:
            shape += "es" if shape.endswith(("s", "x")) else "s"
        size = self.word("size", kind.size) if kind.size else ""
        colour = self.word("colour", kind.colour) if kind.colour else ""
        return " ".join(word for word in (kind.rank, size, colour, shape) if word)

    def a(self, kind: Kind) -> str:
        """One, not yet known."""
        noun = self.noun(kind)
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"

    def the(self, kind: Kind) -> str:
        """The one that is there."""
        return f"the {self.noun(kind)}"

    def some(self, n: int, kind: Kind) -> str:
        """So many."""
        return self.a(kind) if n == 1 else f"{self.number(n)} {self.noun(kind, plural=True)}"

    def many(self, kind: Kind) -> str:
        """The plural alone."""
        return self.noun(kind, plural=True)

    def number(self, n: int) -> str:
        """The number as a word, seldom as a digit."""
        return ENGLISH["number"][str(n)][self.rng.random() < 0.2]

    def join(self, phrases: Sequence[str]) -> str:
        """A list in words."""
        *head, last = phrases
        return f"{', '.join(head)} and {last}" if head else last

    def place(self, name: str) -> str:
        """A place of the picture, with article and preposition-ready."""
        if name == "centre":
            return self.rng.choice(("the centre", "the middle"))
        if name in ENGLISH_PLACES_MIDDLE:
            return f"the middle of the {ENGLISH_PLACES_MIDDLE[name]}"
        edge, side = name.split()
        return f"the middle of the {edge} edge" if side == "centre" else f"the {name} corner"


class Chinese:
    """Chinese noun phrases."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def plain(self, kind: str, name: str) -> str:
        """The usual word; a number with its measure word, as in an answer."""
        word = CHINESE[kind][name][0]
        return f"{word}个" if kind == "number" else word

    def word(self, kind: str, name: str) -> str:
        """A synonym; colours only in their full form."""
        words = [word for word in CHINESE[kind][name] if len(word) > 1 or kind in ("size", "number")]
        return words[0] if self.rng.random() < 0.7 else self.rng.choice(words)

    def noun(self, kind: Kind) -> str:
        """The bare phrase, without measure word."""
        shape = self.word("shape", kind.shape) if kind.shape else "图形"
        colour = self.word("colour", kind.colour) if kind.colour else ""
        size = self.word("size", kind.size) if kind.size else ""
        if len(size) > 1:
            size += "的"
        of = "的" if colour and self.rng.random() < 0.5 else ""
        rank = RANKS[kind.rank][1] if kind.rank else ""
        return f"{rank}{size}{colour}{of}{shape}"

    def a(self, kind: Kind) -> str:
        """One, not yet known."""
        return f"一个{self.noun(kind)}"

    def the(self, kind: Kind) -> str:
        """The one that is there."""
        return self.noun(kind) if kind.rank or self.rng.random() < 0.6 else f"那个{self.noun(kind)}"

    def some(self, n: int, kind: Kind) -> str:
        """So many."""
        return f"{self.number(n)}个{self.noun(kind)}"

    def many(self, kind: Kind) -> str:
        """The plural alone."""
        return self.noun(kind)

    def number(self, n: int) -> str:
        """The number as a word, seldom as a digit."""
        return str(n) if self.rng.random() < 0.2 else CHINESE["number"][str(n)][0]

    def join(self, phrases: Sequence[str]) -> str:
        """A list in words."""
        *head, last = phrases
        return f"{'、'.join(head)}和{last}" if head else last

    def place(self, name: str) -> str:
        """A place of the picture."""
        return CHINESE_PLACES[name]
