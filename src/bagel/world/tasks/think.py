"""Sequential reasoning: a written thought, then the picture; and several pictures with words between them."""

from ..goals import Goal, SceneGoal, ViewGoal, Want
from ..sample import Part, Picture, TargetPicture, Text, Thought
from ..scene import Scene
from ..splits import Combo
from ..wording.reading import named
from . import arrange, edit
from .kit import Draft, Kit, Tasks
from .navigate import actions_in_words, journey, mistakes, stated

HINTS = {
    "grass": "green", "lemon": "yellow", "blood": "red", "chocolate": "brown",
    "carrot": "orange", "aubergine": "purple", "flamingo": "pink", "ocean": "blue",
}  # fmt: skip
CORNERS = {"triangle": 3, "square": 4, "diamond": 4}


def edited(kit: Kit) -> Draft | None:
    """An intelligent edit, with its reason."""
    return arrange.CATEGORIES[kit.pick(list(arrange.CATEGORIES))](kit)


def phrase_of_sum(kit: Kit) -> tuple[int, str, str]:
    """A number from one to six: itself, in words as a sum, a difference or a count of corners, and its source."""
    words, how = kit.words, kit.pick(("plus", "minus", "corners"))
    if how == "corners":
        shape = kit.pick(list(CORNERS))
        return CORNERS[shape], words.lower("corners", shape=words.a(shape)), shape
    n = kit.rng.randint(1, 5) + (how == "plus")
    b = kit.rng.randint(1, min(4, n - 1 if how == "plus" else 6 - n))
    a = n - b if how == "plus" else n + b
    return n, words.lower(how, a=words.number(a), b=words.number(b)), f"{a} {how} {b}"


def sums(kit: Kit) -> Draft | None:
    """Draw as many stars as two plus three."""
    words = kit.words
    n, total, source = phrase_of_sum(kit)
    look = kit.look()
    text = words.say("sum", things=words.many(*look), sum=total)
    why = words.say("sum-why", sum=total, n=words.number(n), things=words.some(n, *look))
    return _drawn(kit, [Text(text)], why, n, look, {("sum", source, look[0]), ("look", *look)} | named(why))


def _drawn(kit: Kit, prompt: list[Part], why: str, n: int, look: tuple[str, str], combos: set[Combo]) -> Draft | None:
    """A thought, then `n` things of one look."""
    scene = kit.scene([look] * n, "small", "medium")
    if scene is None:
        return None
    return Draft([*prompt, Thought(why), TargetPicture(scene)], [SceneGoal((Want(*look),) * n)], combos)


def riddle(kit: Kit) -> Draft | None:
    """Draw a star in the colour of a lemon."""
    name, words = kit.pick(list(HINTS)), kit.words
    look = kit.look()[0], HINTS[name]
    hint = words.lower(name)
    text = words.say("riddle", thing=words.a(look[0]), hint=hint)
    why = words.say("riddle-why", hint=hint, colour=words.word("colour", look[1]), things=words.a(*look))
    return _drawn(kit, [Text(text)], why, 1, look, {("look", *look)})


def tally(kit: Kit) -> Draft | None:
    """Draw as many stars as there are red things in this picture."""
    other, n, look = kit.look(), kit.rng.randint(1, 5), kit.look()
    rest = [extra for extra in kit.looks(3) if extra[0] != other[0] and extra[1] != other[1]]
    scene = kit.scene([other] * n + rest, "small", "medium")
    if scene is None:
        return None
    words = kit.words
    asked = kit.pick(((other[0], None), (None, other[1])))
    text = words.say("tally", things=words.many(*look), others=words.many(*asked))
    why = words.say("tally-why", others=words.some(n, *asked), things=words.some(n, *look))
    combos: set[Combo] = {("look", *look), ("count", n, *(word for word in asked if word)), ("count", n, look[0])}
    return _drawn(kit, [Picture(scene), Text(text)], why, n, look, combos)


def steps(kit: Kit) -> Draft | None:
    """Two basic edits one after the other, with the picture after each."""
    edits = (edit.remove, edit.recolour, edit.background)
    plain = Kit(kit.rng, kit.words.plainly(), kit.split)  # the thoughts repeat it
    first = kit.pick(edits)(plain)
    middle = first.parts[2] if first else None
    if first is None or not isinstance(middle, Picture) or not isinstance(middle.state, Scene):
        return None
    second = kit.pick(edits)(plain, middle.state)
    if second is None:
        return None
    texts = [part.text for part in (first.parts[1], second.parts[1]) if isinstance(part, Text)]
    parts = [first.parts[0], Text(kit.words.say("steps", first=texts[0], second=texts[1]))]
    for text, draft in zip(texts, (first, second), strict=True):
        parts += [Thought(kit.words.say("step-why", step=text)), draft.parts[2]]
    return Draft(parts, first.goals + second.goals, first.stated | second.stated)


def walked(kit: Kit) -> Draft | None:
    """A walk of two or three actions, with the view after each."""
    made = journey(kit, kit.rng.randint(2, 3))
    if made is None:
        return None
    (stands, actions), words = made, kit.words
    parts: list[Part] = [Text(words.say("here")), Picture(stands[0])]
    parts.append(Text(words.say("walk", actions=actions_in_words(kit, actions))))
    goals: list[Goal] = []
    for before, action, after in zip(stands, actions, stands[1:], strict=False):
        parts += [Thought(words.say("walk-why", action=words.lower(action))), TargetPicture(after)]
        goals.append(ViewGoal(after, mistakes(before, action, after)))
    return Draft(parts, goals, stated(stands[0], actions))


CATEGORIES: Tasks = {
    "edit": edited,
    "sum": sums,
    "riddle": riddle,
    "tally": tally,
    "steps": steps,
    "walk": walked,
}
