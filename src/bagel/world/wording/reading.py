"""Words read back from a text in either language: the known words, the things described, the combinations named."""

import re
from functools import lru_cache
from itertools import combinations

from ..splits import Combo, binding, pair
from .lexicon import LEXICONS

Token = tuple[str, str]  # vocabulary, name
Group = tuple[int, str, str]  # count, colour or "", shape
DESCRIBING = ("colour", "shape", "size", "number")
GAP = 2  # characters between words that describe one thing: a space, a measure word, 的


def tokens(text: str, kind: str) -> list[str]:
    """The names of one vocabulary that a text mentions, in order; the longest match counts."""
    pattern, meaning = _reader((kind,))
    return [meaning[match[0].lower()][1] for match in pattern.finditer(text)]


def groups(text: str) -> list[Group]:
    """The (count, colour, shape) groups a text describes. Only words that stand together describe one thing."""
    pattern, meaning = _reader(DESCRIBING)
    found: list[Group] = []
    count, colour, end = 1, "", 0
    for match in pattern.finditer(text):
        kind, name = meaning[match[0].lower()]
        if match.start() - end > GAP:
            count, colour = 1, ""
        end = match.end()
        if kind == "number":
            count = int(name)
        elif kind == "colour":
            colour = name
        elif kind == "shape":
            found.append((count, colour, name))
            count, colour = 1, ""
    return found


def named(text: str) -> set[Combo]:
    """The combinations that a text names: looks, counts, and what is named together with what."""
    found = groups(text)
    looks = sorted({(shape, colour) for _, colour, shape in found if colour})
    shapes = sorted({shape for _, _, shape in found})
    combos: set[Combo] = {("look", *look) for look in looks}
    combos |= {("count", n, shape) for n, _, shape in found if n > 1}
    combos |= {pair(a, b) for a, b in combinations(shapes, 2)}
    return combos | {binding(a, b) for a, b in combinations(looks, 2)}


@lru_cache(maxsize=16)
def _reader(kinds: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, Token]]:
    """A pattern of all words of some vocabularies, and what each word means."""
    meaning: dict[str, Token] = {}
    for lexicon in LEXICONS.values():
        for kind in kinds:
            for name, words in lexicon[kind].items():
                meaning.update({form: (kind, name) for word in words for form in _forms(word)})
    longest_first = sorted(meaning, key=len, reverse=True)
    latin = [re.escape(word) for word in longest_first if word.isascii()]
    other = [re.escape(word) for word in longest_first if not word.isascii()]
    return re.compile(rf"\b(?:{'|'.join(latin)})\b|{'|'.join(other)}", re.IGNORECASE | re.ASCII), meaning


def _forms(word: str) -> list[str]:
    """A word and its plurals."""
    return [word, word + "s", word + "es"] if word.isascii() and word.isalpha() else [word, word + "s"]
