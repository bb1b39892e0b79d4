"""Is a text the right answer? Words are looked up in both languages' lexicons, so any synonym will do."""

import re
from collections import Counter
from functools import lru_cache

from ..goals import AnswerGoal
from ..wording.lexicon import LEXICONS
from .verdict import Verdict, right, wrong

Token = tuple[str, str]  # vocabulary, name


def check_answer(text: str, goal: AnswerGoal) -> Verdict:
    """Judge an answer. It may be a word or a sentence, but must name the one right value and no other of its kind."""
    if goal.kind == "caption":
        return _check_caption(text, goal)
    named = {name for kind, name in tokens(text, goal.kind) if kind == goal.kind}
    if named == {goal.value}:
        return right(f"it says {goal.value}")
    return wrong(f"it says {' and '.join(sorted(named)) or 'nothing of the kind'}, not {goal.value}")


def _check_caption(text: str, goal: AnswerGoal) -> Verdict:
    found, wanted = Counter(groups(text)), Counter(goal.value)  # type: ignore[call-overload]
    if found == wanted:
        return right("it names everything")
    missing, extra = wanted - found, found - wanted
    return wrong(f"it lacks {_list(missing)}" if missing else f"it adds {_list(extra)}")


def _list(found: Counter[tuple[int, str, str]]) -> str:
    return ", ".join(" ".join(map(str, group)) for group in found)


def groups(text: str) -> list[tuple[int, str, str]]:
    """The (count, colour, shape) groups a description names; colour "" where it names none."""
    found, count, colour = [], 1, ""
    for kind, name in tokens(text):
        if kind == "number":
            count = int(name)
        elif kind == "colour":
            colour = name
        elif kind == "shape":
            found.append((count, colour, name))
            count, colour = 1, ""
    return found


def tokens(text: str, kind: str | None = None) -> list[Token]:
    """The known words of a text in order, the longest match first; of one vocabulary if `kind` names it."""
    pattern, meaning = _reader(kind)
    return [meaning[match[0].lower()] for match in pattern.finditer(text)]


@lru_cache(maxsize=16)
def _reader(only: str | None) -> tuple[re.Pattern[str], dict[str, Token]]:
    """A pattern of all words of one vocabulary, or of those that describe things, and what each word means."""
    meaning: dict[str, Token] = {}
    for lexicon in LEXICONS.values():
        for kind, names in lexicon.items():
            if kind == only or (only is None and kind in ("colour", "shape", "size", "number")):
                meaning.update(
                    {form: (kind, name) for name, words in names.items() for w in words for form in _forms(w)}
                )
    words = sorted(meaning, key=len, reverse=True)
    latin = [re.escape(word) for word in words if word.isascii()]
    other = [re.escape(word) for word in words if not word.isascii()]
    return re.compile(rf"\b(?:{'|'.join(latin)})\b|{'|'.join(other)}", re.IGNORECASE | re.ASCII), meaning


def _forms(word: str) -> list[str]:
    """A word and its plural."""
    return [word, word + "s", word + "es"] if word.isascii() and word.isalpha() else [word, word + "s"]
