"""Understanding: a picture, a question, a short answer."""

from collections import Counter

from ..goals import AnswerGoal
from ..sample import Part, Picture, TargetAnswer, Text
from ..scene import RELATIONS, Look, Scene, Thing, stands
from ..splits import Combo, binding, pair
from ..wording.reading import named
from .kit import Draft, Kit, Tasks


def _draft(kit: Kit, scene: Scene, question: str, answer: str, goal: AnswerGoal, stated: set[Combo]) -> Draft:
    asked: list[Part] = [Picture(scene), Text(question)]
    if kit.chance(0.2):
        asked.reverse()
    return Draft([*asked, TargetAnswer(answer)], [goal], stated)


def _yes_no(kit: Kit, scene: Scene, question: str, yes: bool, stated: set[Combo]) -> Draft:
    name = "yes" if yes else "no"
    return _draft(kit, scene, question, kit.words.say(name), AnswerGoal("yes", name), stated)


def value(kit: Kit, scene: Scene, question: str, kind: str, value: str, stated: set[Combo]) -> Draft:
    answer = kit.words.say("value", value=kit.words.plain(kind, value))
    return _draft(kit, scene, question, answer, AnswerGoal(kind, value), stated)


def few(kit: Kit, most: int = 5) -> Scene | None:
    """Two to `most` things, looks may repeat."""
    base = kit.looks(kit.rng.randint(2, 3))
    return kit.scene([*base, *(kit.pick(base) for _ in range(kit.rng.randint(0, most - len(base))))])


def _unique(kit: Kit, scene: Scene, attribute: str) -> Thing | None:
    """A thing whose `attribute` no other thing shares."""
    counts = Counter(getattr(thing, attribute) for thing in scene.things)
    alone = [thing for thing in scene.things if counts[getattr(thing, attribute)] == 1]
    return kit.pick(alone) if alone else None


def _two(kit: Kit, scene: Scene) -> tuple[Thing, Thing] | None:
    """Two things that are the only ones of their shapes, where there are two."""
    counts = Counter(thing.shape for thing in scene.things)
    alone = [thing for thing in scene.things if counts[thing.shape] == 1]
    return tuple(kit.rng.sample(alone, 2)) if len(alone) > 1 else None  # type: ignore[return-value]


def existence(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """Is there such a thing? Half of the time not, though its shape or its colour is there."""
    scene = scene or few(kit)
    if scene is None:
        return None
    yes = kit.chance(0.5)
    look = kit.pick(scene.things).look if yes else _lookalike(kit, scene)
    if look is None:
        return None
    question = kit.words.say("exist", thing=kit.words.a(*look))
    return _yes_no(kit, scene, question, yes, {("look", *look)})


def _lookalike(kit: Kit, scene: Scene) -> Look | None:
    """A look that is not there but has the shape or colour of a thing that is."""
    for _ in range(20):
        look = kit.look()
        shapes, colours = {thing.shape for thing in scene.things}, {thing.colour for thing in scene.things}
        there = any(thing.look == look for thing in scene.things)
        if not there and (look[0] in shapes or look[1] in colours):
            return look
    return None


def count(kit: Kit) -> Draft | None:
    """How many of a shape, of a colour, or of both; seldom none."""
    look, n = kit.look(), kit.rng.randint(0 if kit.chance(0.5) else 1, 6)
    rest = [other for other in kit.looks(3) if other[0] != look[0] and other[1] != look[1]]
    scene = kit.scene([look] * n + rest[: kit.rng.randint(0 if n else 1, 3)], "small", "medium")
    if scene is None or not scene.things:
        return None
    asked = kit.pick(((look[0], None), (None, look[1]), look))
    question = kit.words.say("count", things=kit.words.many(*asked))
    stated: set[Combo] = {("count", n, *(word for word in asked if word))}
    if None not in asked:
        stated.add(("look", *look))
    return value(kit, scene, question, "number", str(n), stated)


def colour(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """The colour of the only thing of its shape."""
    scene = scene or few(kit)
    thing = _unique(kit, scene, "shape") if scene else None
    if scene is None or thing is None:
        return None
    question = kit.words.say("colour?", thing=kit.words.the(thing.shape))
    return value(kit, scene, question, "colour", thing.colour, {("look", *thing.look)})


def shape(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """The shape of the only thing of its colour."""
    scene = scene or few(kit)
    thing = _unique(kit, scene, "colour") if scene else None
    if scene is None or thing is None:
        return None
    named = kit.words.lower("coloured", colour=kit.words.word("colour", thing.colour))
    question = kit.words.say("shape?", thing=named)
    return value(kit, scene, question, "shape", thing.shape, {("look", *thing.look)})


def where(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """How two things stand to each other: yes or no, or on which side. How they stand is not reserved, unlike in
    drawing: where training never gives an answer for two shapes, the better a model knows its training the surer it
    answers otherwise. New is that two shapes or two looks are named together, or a look."""
    scene = scene or kit.scene(kit.looks(kit.rng.randint(2, 4), shapes=True))
    two = _two(kit, scene) if scene else None
    if scene is None or two is None:
        return None
    a, b = two
    found = [how for how in RELATIONS if stands((a.x, a.y), how, (b.x, b.y), gap=16)]
    if not found or abs(abs(a.x - b.x) - abs(a.y - b.y)) < 12:  # near the diagonal the side is open to debate
        return None
    words, how = kit.words, found[0]
    named = kit.chance(0.5)
    first, second = (words.the(*thing.look) if named else words.the(thing.shape) for thing in (a, b))
    stated = {
        pair(a.shape, b.shape),
        *((("look", *a.look), ("look", *b.look), binding(a.look, b.look)) if named else ()),
    }
    if kit.chance(0.5):
        return value(kit, scene, words.say("where", a=first, b=second), "relation", how, stated)
    asked = how if kit.chance(0.5) else kit.pick([other for other in RELATIONS if other != how])
    question = words.say("is-beside", a=first, b=second, relation=words.word("relation", asked))
    return _yes_no(kit, scene, question, asked == how, stated)


def comparison(kit: Kit) -> Draft | None:
    """Which of two kinds is more numerous, or which of two things is larger."""
    return _more(kit) if kit.chance(0.5) else _larger(kit)


def _more(kit: Kit) -> Draft | None:
    a, b = kit.looks(2, shapes=True)
    m, n = kit.rng.sample(range(1, 5), 2)
    scene = kit.scene([a] * m + [b] * n, "small", "medium")
    if scene is None:
        return None
    question = kit.words.say("more", a=kit.words.many(a[0]), b=kit.words.many(b[0]))
    return _yes_no(kit, scene, question, m > n, {("compare", a[0], b[0])})


def _larger(kit: Kit) -> Draft | None:
    looks = kit.looks(kit.rng.randint(2, 3), shapes=True)
    radii = [kit.radius("small"), kit.radius("medium"), kit.radius("large")]
    kit.rng.shuffle(radii)
    scene = kit.scene(looks, radii=radii[: len(looks)])
    return larger(kit, scene) if scene else None


def larger(kit: Kit, scene: Scene) -> Draft | None:
    """Which of two things of different size is larger."""
    two = _two(kit, scene)
    if two is None or two[0].size == two[1].size:
        return None
    (a, b), words = two, kit.words
    question = words.say("larger", a=words.the(a.shape), b=words.the(b.shape))
    return value(kit, scene, question, "shape", (a if a.r > b.r else b).shape, {("compare", a.shape, b.shape)})


def caption(kit: Kit) -> Draft | None:
    """Everything in the picture, in words."""
    looks = kit.looks(kit.rng.randint(1, 3))
    counts = {look: kit.pick((1, 1, 1, 2, 3)) for look in looks}
    scene = kit.scene([look for look in looks for _ in range(counts[look])], "small", "medium")
    if scene is None:
        return None
    words = kit.words
    things = words.join([words.some(n, *look) for look, n in counts.items()])
    answer = words.say("caption", things=things, background=words.word("background", scene.background))
    value = tuple(sorted((n, colour, shape) for (shape, colour), n in counts.items()))
    return _draft(kit, scene, words.say("caption?"), answer, AnswerGoal("caption", value), named(answer))


CATEGORIES: Tasks = {
    "existence": existence,
    "count": count,
    "colour": colour,
    "shape": shape,
    "relation": where,
    "comparison": comparison,
    "caption": caption,
}
