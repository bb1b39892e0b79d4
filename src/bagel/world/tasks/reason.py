"""Intelligent editing, first half: what to change must be found out from the picture (colours and kinds).

Every draft carries a thought that says how; the task "reason" leaves it out, the task "think" keeps it.
"""

from collections import Counter
from collections.abc import Iterable

from ..goals import SceneGoal, scene_goal
from ..palette import COLOURS
from ..sample import Part, Picture, TargetPicture, Text, Thought
from ..scene import RELATIONS, Scene
from ..splits import Combo
from .kit import Draft, Kit


def reasoned(
    before: Scene, text: str, thought: str, after: Scene, stated: Iterable[Combo], goal: SceneGoal | None = None
) -> Draft:
    """Picture, instruction, thought, new picture; the goal is the new picture itself if not given."""
    parts: list[Part] = [Picture(before), Text(text), Thought(thought), TargetPicture(after)]
    return Draft(parts, [goal or scene_goal(after)], set(stated))


def tally(kit: Kit, scene: Scene, *indexes: int) -> str:
    """The things at these places (all without any) in words, "two red circles and a star"."""
    chosen = [scene.things[i] for i in indexes] if indexes else scene.things
    return kit.words.join([kit.words.some(n, *look) for look, n in Counter(thing.look for thing in chosen).items()])


def transfer(kit: Kit) -> Draft | None:
    """Give the only triangle the colour of the largest circle."""
    a, b = kit.pick(kit.looks(1)), kit.pick(kit.looks(1))
    if a[0] == b[0]:
        return None
    colours = [look[1] for look in kit.looks(3, colours=True)]
    looks = [a] + [(b[0], colour) for colour in colours[: kit.rng.randint(2, 3)]]
    radii = [kit.radius("medium"), *kit.rng.sample([kit.radius(size) for size in ("small", "medium", "large")], 3)]
    scene = kit.scene(looks, radii=radii[: len(looks)])
    if scene is None:
        return None
    rank = kit.pick(("largest", "smallest"))
    others = sorted(scene.things[1:], key=lambda thing: thing.r)
    source = others[-1 if rank == "largest" else 0]
    if source.colour == a[1]:
        return None
    after = scene.put(0, scene.things[0].but(colour=source.colour))
    words = kit.words
    named, giver = words.the(a[0], rank="only"), words.the(source.shape, rank=rank)
    text = words.say("transfer", thing=named, source=giver)
    why = words.say("transfer-why", thing=words.the(a[0]), source=giver, colour=words.word("colour", source.colour))
    stated = {("look", a[0], source.colour), ("edit", "transfer", a[0], rank, source.shape)}
    return reasoned(scene, text, why, after, stated)


def side(kit: Kit) -> Draft | None:
    """Remove everything left of the green square."""
    scene = kit.scene(kit.looks(kit.rng.randint(3, 5)), "small", "medium")
    if scene is None:
        return None
    how = kit.pick(RELATIONS)
    pivot = scene.things[0]
    axis = 0 if how in ("left", "right") else 1
    offsets = [(thing.x - pivot.x, thing.y - pivot.y)[axis] for thing in scene.things]
    gone = [i for i, d in enumerate(offsets) if i and (d < 0) == (how in ("left", "above"))]
    if not gone or len(gone) == len(offsets) - 1 or min(abs(d) for d in offsets[1:]) < 10:
        return None
    after, words = scene.without(*gone), kit.words
    relation, named = words.word("relation", how), words.the(*pivot.look)
    text = words.say("side", thing=named, relation=relation)
    why = words.say("side-why", thing=named, relation=relation, things=tally(kit, scene, *gone))
    return reasoned(scene, text, why, after, {("look", *pivot.look), ("edit", "side", how, *pivot.look)})


def _odd_one(kit: Kit) -> tuple[Scene, str, str, str] | None:
    """Things of one look but for the last, which differs in colour or shape; and the words for the common kind, the
    odd one, and what the odd one would have to be."""
    look, other = kit.look(), kit.look()
    if (look[0] == other[0]) == (look[1] == other[1]):
        return None
    scene = kit.scene([look] * kit.rng.randint(3, 5) + [other], kit.pick(("small", "medium")))
    if scene is None:
        return None
    attribute, k = ("colour", 1) if look[0] == other[0] else ("shape", 0)
    common = kit.words.many(*look)
    new = kit.words.word("colour", look[1]) if attribute == "colour" else kit.words.a(look[k])
    return scene, common, kit.words.the(*other), new


def odd(kit: Kit) -> Draft | None:
    """Remove the odd one out."""
    found = _odd_one(kit)
    if found is None:
        return None
    scene, common, thing, _ = found
    why = kit.words.say("odd-why", things=common, thing=thing)
    last = len(scene.things) - 1
    stated: set[Combo] = {("edit", "odd", *scene.things[0].look, *scene.things[-1].look)}
    return reasoned(scene, kit.words.say("odd"), why, scene.without(last), stated)


def match(kit: Kit) -> Draft | None:
    """Make the odd one like the others."""
    found = _odd_one(kit)
    if found is None:
        return None
    scene, common, thing, new = found
    last, (shape, colour) = len(scene.things) - 1, scene.things[0].look
    after = scene.put(last, scene.things[-1].but(shape=shape, colour=colour))
    why = kit.words.say("match-why", things=common, thing=thing, new=new)
    stated: set[Combo] = {("edit", "match", *scene.things[0].look, *scene.things[-1].look)}
    return reasoned(scene, kit.words.say("match"), why, after, stated)


def share(kit: Kit) -> Draft | None:
    """Paint everything that has the colour of the star blue."""
    looks = kit.looks(kit.rng.randint(3, 5), shapes=True)
    common, colour = looks[0][1], kit.pick(list(COLOURS))
    for i in range(1, kit.rng.randint(2, 3)):
        looks[i] = (looks[i][0], common)
    scene = kit.scene(looks, "small", "medium")
    if scene is None or colour == common:
        return None
    same = [i for i, thing in enumerate(scene.things) if thing.colour == common]
    after = scene
    for i in same:
        after = after.put(i, scene.things[i].but(colour=colour))
    words = kit.words
    named, new = words.the(looks[0][0]), words.word("colour", colour)
    text = words.say("share", thing=named, colour=new)
    why = words.say("share-why", thing=named, old=words.word("colour", common), things=tally(kit, scene, *same),
                    number=words.number(len(same)), colour=new)  # fmt: skip
    return reasoned(scene, text, why, after, {("edit", "share", looks[0][0], common, colour)})


def most(kit: Kit) -> Draft | None:
    """Remove the kind of shape that occurs most often."""
    shapes = [look[0] for look in kit.looks(3, shapes=True)][: kit.rng.randint(2, 3)]
    n = kit.rng.randint(2, 4)
    counts = [n] + [kit.rng.randint(1, n - 1) for _ in shapes[1:]]
    looks = [kit.look(shape) for shape, m in zip(shapes, counts, strict=True) for _ in range(m)]
    scene = kit.scene(looks, "small", "medium")
    if scene is None:
        return None
    after, words = scene.without(*range(n)), kit.words
    things = words.join([words.some(m, shape) for shape, m in zip(shapes, counts, strict=True)])
    why = words.say("most-why", things=things, most=words.many(shapes[0]))
    return reasoned(scene, words.say("most"), why, after, {("edit", "most", n, *shapes)})


def swap(kit: Kit) -> Draft | None:
    """Swap the colours of two things."""
    looks = kit.looks(kit.rng.randint(2, 4), shapes=True)
    scene = kit.scene(looks)
    a, b = looks[:2]
    if scene is None or a[1] == b[1]:
        return None
    after = scene.put(0, scene.things[0].but(colour=b[1])).put(1, scene.things[1].but(colour=a[1]))
    words = kit.words
    first, second = words.the(a[0]), words.the(b[0])
    tints = words.word("colour", a[1]), words.word("colour", b[1])
    why = words.say("swap-why", a=first, b=second, first=tints[0], second=tints[1])
    stated = {("look", a[0], b[1]), ("look", b[0], a[1]), ("edit", "swap", *sorted((a[0], b[0])))}
    return reasoned(scene, words.say("swap", a=first, b=second), why, after, stated)
