"""Is a text the right answer? Words are looked up in both languages' lexicons, so any synonym will do."""

from collections import Counter

from ..goals import AnswerGoal
from ..wording.reading import Group, groups, tokens
from .verdict import Verdict, right, wrong


def check_answer(text: str, goal: AnswerGoal) -> Verdict:
    """Judge an answer. It may be a word or a sentence, but must name the one right value and no other of its kind."""
    if goal.kind == "caption":
        return _check_caption(text, goal)
    said = set(tokens(text, goal.kind))
    if said == {goal.value}:
        return right(f"it says {goal.value}")
    return wrong(f"it says {' and '.join(sorted(said)) or 'nothing of the kind'}, not {goal.value}")


def _check_caption(text: str, goal: AnswerGoal) -> Verdict:
    found, wanted = Counter(groups(text)), Counter(goal.value)  # type: ignore[call-overload]
    if found == wanted:
        return right("it names everything")
    missing, extra = wanted - found, found - wanted
    return wrong(f"it lacks {_list(missing)}" if missing else f"it adds {_list(extra)}")


def _list(found: Counter[Group]) -> str:
    return ", ".join(" ".join(map(str, group)) for group in found)
