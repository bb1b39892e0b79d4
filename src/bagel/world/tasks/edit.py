"""Basic editing: one named change, everything else as it was.

`remove`, `recolour` and `background` also take the scene to change, so that edits can follow one another.
"""

from collections.abc import Iterable

from ..goals import SceneGoal, scene_goal, widen
from ..layout import PLACES, clear, free_spot, occupied
from ..palette import BACKGROUNDS, COLOURS
from ..sample import Picture, TargetPicture, Text
from ..scene import RELATIONS, Scene, Thing, stands
from ..shapes import SIZES
from ..splits import Combo, relation
from .kit import Draft, Kit, Tasks

SLACK = 10.0  # pixels by which a replaced or resized thing's centre may shift


def _draft(before: Scene, text: str, after: Scene, goal: SceneGoal, stated: Iterable[Combo]) -> Draft:
    return Draft([Picture(before), Text(text), TargetPicture(after)], [goal], set(stated))


def _start(kit: Kit, most: int = 4) -> Scene | None:
    """One to `most` things of different looks."""
    return kit.scene(kit.looks(kit.rng.randint(1, most)), "small", "medium", "medium", "large")


def _name(kit: Kit, thing: Thing, scene: Scene) -> str:
    """The thing by its look, or by its shape or its colour alone where that is enough; ("the red circle")."""
    words = kit.words
    if sum(other.shape == thing.shape for other in scene.things) == 1 and kit.chance(0.4):
        return words.the(thing.shape)
    if sum(other.colour == thing.colour for other in scene.things) == 1 and kit.chance(0.15):
        return words.lower("coloured", colour=words.word("colour", thing.colour))
    return words.the(*thing.look)


def _near(thing: Thing) -> tuple[float, float, float, float]:
    return thing.x - SLACK, thing.y - SLACK, thing.x + SLACK, thing.y + SLACK


def add(kit: Kit) -> Draft | None:
    """A new thing in one of nine places, or beside a thing."""
    scene = _start(kit, 3)
    if scene is None:
        return None
    return _add_beside(kit, scene) if kit.chance(0.4) else _add_at(kit, scene)


def _add_at(kit: Kit, scene: Scene) -> Draft | None:
    look, r, place = kit.look(), kit.radius("small", "medium"), kit.pick(list(PLACES))
    spot = free_spot(kit.rng, r, occupied(scene.things), PLACES[place], 8)
    if spot is None:
        return None
    after = scene.plus(Thing(*look, *spot, r))
    text = kit.words.say("add", thing=kit.words.a(*look), place=kit.words.place(place))
    goal = scene_goal(after, {len(scene.things): {"r": None, "box": widen(PLACES[place])}})
    return _draft(scene, text, after, goal, {("look", *look), ("edit", "add", look[0], place)})


def _add_beside(kit: Kit, scene: Scene) -> Draft | None:
    look, r, how = kit.look(), kit.radius("small", "medium"), kit.pick(RELATIONS)
    near = kit.rng.randrange(len(scene.things))
    other = scene.things[near]
    if other.look == look:
        return None
    after = kit.add(scene, look, r)
    if after is None or not stands((after.things[-1].x, after.things[-1].y), how, (other.x, other.y), gap=16):
        return None
    words = kit.words
    text = words.say(
        "add-beside", thing=words.a(*look), other=words.the(*other.look), relation=words.word("relation", how)
    )
    new = len(scene.things)
    goal = scene_goal(after, {new: {"r": None, "box": None}}, [(new, how, near)])
    return _draft(scene, text, after, goal, {("look", *look), relation(look[0], how, other.shape)})


def remove(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """One thing less."""
    scene = scene or _start(kit, 5)
    if scene is None or not scene.things:
        return None
    i = kit.rng.randrange(len(scene.things))
    thing = scene.things[i]
    after = scene.without(i)
    text = kit.words.say("remove", thing=_name(kit, thing, scene))
    beside_it = sorted(other.shape for other in after.things)
    return _draft(scene, text, after, scene_goal(after), {("edit", "remove", thing.shape, *beside_it)})


def recolour(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """One thing in another colour."""
    scene = scene or _start(kit)
    if scene is None or not scene.things:
        return None
    i = kit.rng.randrange(len(scene.things))
    thing, colour = scene.things[i], kit.pick(list(COLOURS))
    if colour == thing.colour:
        return None
    after = scene.put(i, thing.but(colour=colour))
    text = kit.words.say("recolour", thing=_name(kit, thing, scene), colour=kit.words.word("colour", colour))
    stated = {("look", thing.shape, colour), ("edit", "recolour", thing.shape, thing.colour, colour)}
    return _draft(scene, text, after, scene_goal(after), stated)


def replace(kit: Kit) -> Draft | None:
    """One thing becomes another, in its place."""
    scene, look = _start(kit), kit.look()
    if scene is None:
        return None
    i = kit.rng.randrange(len(scene.things))
    thing = scene.things[i]
    if look[0] == thing.shape:
        return None
    after = scene.put(i, thing.but(shape=look[0], colour=look[1]))
    text = kit.words.say("replace", thing=_name(kit, thing, scene), new=kit.words.a(*look))
    goal = scene_goal(after, {i: {"r": None, "box": _near(thing)}})
    return _draft(scene, text, after, goal, {("look", *look), ("edit", "replace", thing.shape, look[0])})


def move(kit: Kit) -> Draft | None:
    """One thing goes to one of nine places, its look and size kept."""
    scene, place = _start(kit), kit.pick(list(PLACES))
    if scene is None:
        return None
    i = kit.rng.randrange(len(scene.things))
    thing = scene.things[i]
    spot = free_spot(kit.rng, thing.r, occupied(scene.without(i).things), PLACES[place], 8)
    if spot is None or max(abs(spot[0] - thing.x), abs(spot[1] - thing.y)) < 24:
        return None
    after = scene.put(i, thing.but(x=spot[0], y=spot[1]))
    text = kit.words.say("move", thing=_name(kit, thing, scene), place=kit.words.place(place))
    goal = scene_goal(after, {i: {"box": widen(PLACES[place])}})
    return _draft(scene, text, after, goal, {("edit", "move", thing.shape, place)})


def resize(kit: Kit) -> Draft | None:
    """One thing becomes small, medium-sized or large."""
    scene, size = _start(kit), kit.pick(list(SIZES))
    if scene is None:
        return None
    i = kit.rng.randrange(len(scene.things))
    thing, rest = scene.things[i], occupied(scene.without(i).things)
    r = kit.radius(size)
    low, high = r + 4, 123 - r
    x, y = min(max(thing.x, low), high), min(max(thing.y, low), high)
    if size == thing.size or not clear((x, y), r, rest) or max(abs(x - thing.x), abs(y - thing.y)) > SLACK - 3:
        return None
    after = scene.put(i, thing.but(r=r, x=x, y=y))
    text = kit.words.say("resize", thing=_name(kit, thing, scene), size=kit.words.word("size", size))
    goal = scene_goal(after, {i: {"r": None, "size": size, "box": _near(thing)}})
    return _draft(scene, text, after, goal, {("edit", "resize", thing.shape, thing.size, size)})


def background(kit: Kit, scene: Scene | None = None) -> Draft | None:
    """Another background behind the same things."""
    scene, colour = scene or _start(kit, 5), kit.pick(list(BACKGROUNDS))
    if scene is None or colour == scene.background:
        return None
    after = scene.on(colour)
    text = kit.words.say("background", colour=kit.words.word("background", colour))
    shapes = sorted(thing.shape for thing in scene.things)
    return _draft(scene, text, after, scene_goal(after), {("edit", "background", colour, *shapes)})


CATEGORIES: Tasks = {
    "add": add,
    "remove": remove,
    "recolour": recolour,
    "replace": replace,
    "move": move,
    "resize": resize,
    "background": background,
}
