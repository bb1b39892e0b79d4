"""Conversations: several questions about one picture, an edit after a question, and questions without a picture."""

from collections import Counter
from collections.abc import Callable

from ..goals import AnswerGoal
from ..layout import PLACES, Box
from ..sample import Part, Picture, Said, TargetAnswer, Text
from ..scene import SIDE, Scene, Thing
from ..splits import Combo
from . import ask, edit
from .kit import Draft, Kit, Tasks
from .think import HINTS, phrase_of_sum

SLACK = 5.0
"""Pixels between a place of the picture and the next that belong to neither."""


def _number(kit: Kit, scene: Scene) -> Draft | None:
    """How many of a shape or of a colour."""
    kind = kit.pick(("shape", "colour"))
    wanted: str = getattr(kit.pick(scene.things), kind)
    n = sum(getattr(thing, kind) == wanted for thing in scene.things)
    things = kit.words.many(*((wanted, None) if kind == "shape" else (None, wanted)))
    question = kit.words.say("count", things=things)
    return ask.value(kit, scene, question, "number", str(n), {("count", n, wanted)})


def _ground(kit: Kit, scene: Scene) -> Draft | None:
    """The colour of the background."""
    shapes = sorted(thing.shape for thing in scene.things)
    stated: set[Combo] = {("ground", scene.background, *shapes)}
    return ask.value(kit, scene, kit.words.say("ground?"), "background", scene.background, stated)


def _place(kit: Kit, scene: Scene) -> Draft | None:
    """Where in the picture the only thing of its look is, if that is clearly one of nine places."""
    counts = Counter(thing.look for thing in scene.things)
    thing = kit.pick(scene.things)
    found = [name for name, box in PLACES.items() if is_inside(thing, box)]
    if counts[thing.look] > 1 or not found:
        return None
    question = kit.words.say("place?", thing=kit.words.the(*thing.look))
    return ask.value(kit, scene, question, "place", found[0], {("look", *thing.look)})


def is_inside(thing: Thing, box: Box) -> bool:
    """By SLACK pixels at least, but at the border of the picture."""
    x0, y0, x1, y1 = (
        side if side in (0, SIDE) else side + grow
        for side, grow in zip(box, (SLACK, SLACK, -SLACK, -SLACK), strict=True)
    )
    return x0 <= thing.x <= x1 and y0 <= thing.y <= y1


QUESTIONS: tuple[Callable[[Kit, Scene], Draft | None], ...] = (
    ask.existence, ask.colour, ask.shape, ask.where, ask.larger, _number, _ground, _place,
)  # fmt: skip


def _asked(kit: Kit, scene: Scene, count: int) -> list[Draft]:
    """Different questions about one scene, as many as it has answers to, at most `count`."""
    drafts = (question(kit, scene) for question in kit.rng.sample(QUESTIONS, len(QUESTIONS)))
    return [draft for draft in drafts if draft is not None][:count]


def _asked_of_places(kit: Kit, scene: Scene, count: int) -> list[Draft]:
    """Where single things are and how two stand to each other, at most `count` and none twice."""
    found: dict[str, Draft] = {}
    for _ in range(3 * count):
        draft = kit.pick((ask.where, ask.where, _place))(kit, scene)
        if draft is not None and len(found) < count:
            found[_words(draft)[0].text] = draft
    return list(found.values())


def _words(draft: Draft) -> tuple[Text, TargetAnswer]:
    question = next(part for part in draft.parts if isinstance(part, Text))
    return question, next(part for part in draft.parts if isinstance(part, TargetAnswer))


def _talk(scene: Scene, drafts: list[Draft]) -> list[Part]:
    """The picture, and what was asked and answered about it."""
    parts: list[Part] = [Picture(scene)]
    for question, answer in map(_words, drafts):
        parts += [question, Said(answer.text)]
    return parts


def dialogue(kit: Kit) -> Draft | None:
    """Two to five questions about one picture, or up to eight about where its things are; the last one counts. How two
    things stand is one word in an answer, and a model that is asked once a picture does not come to learn it."""
    drafts: list[Draft] = []
    if kit.chance(0.5):
        scene = kit.scene(kit.looks(kit.rng.randint(3, 4), shapes=True))
        drafts = _asked_of_places(kit, scene, kit.rng.randint(4, 8)) if scene else []
    else:
        scene = ask.few(kit)
        drafts = _asked(kit, scene, kit.rng.randint(2, 5)) if scene else []
    if scene is None or len(drafts) < 2:
        return None
    *before, last = drafts
    stated = set[Combo]().union(*(draft.stated for draft in drafts))
    return Draft([*_talk(scene, before), *_words(last)], last.goals, stated)


def no_picture(kit: Kit) -> Draft | None:
    """A sum, or the colour that a thing is known for: what is reserved is a sum, or a thing in a sentence."""
    words, stated = kit.words, set[Combo]()
    if kit.chance(0.3):
        name = kit.pick(list(HINTS))
        question, goal = words.say("hint?", hint=words.lower(name)), AnswerGoal("colour", HINTS[name])
        answer, stated = words.plain("colour", HINTS[name]), {("said", name, words.said["hint?"])}
    else:
        n, phrase, source = phrase_of_sum(kit)
        question, goal = words.say("sum?", sum=phrase), AnswerGoal("number", str(n))
        answer = words.plain("number", str(n)).removesuffix("个").replace("两", "二")  # nothing is counted here
        stated = {("said", source)}
    return Draft([Text(question), TargetAnswer(words.say("value", value=answer))], [goal], stated)


def edited(kit: Kit) -> Draft | None:
    """One or two questions about a picture, then an edit of it."""
    scene = ask.few(kit)
    drafts = _asked(kit, scene, kit.rng.randint(1, 2)) if scene else []
    made = kit.pick((edit.remove, edit.recolour, edit.background))(kit, scene) if scene else None
    if scene is None or made is None or not drafts:
        return None
    stated = set[Combo]().union(made.stated, *(draft.stated for draft in drafts))
    return Draft([*_talk(scene, drafts), *made.parts[1:]], made.goals, stated)


ANSWERS: Tasks = {"dialogue": dialogue, "no picture": no_picture}
EDITS: Tasks = {"dialogue": edited}
