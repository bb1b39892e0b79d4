"""Text to image, in GenEval's six categories."""

from ..goals import SceneGoal, Want, widen
from ..layout import PLACES, beside, spot_in
from ..sample import TargetPicture, Text
from ..scene import RELATIONS, Scene, Thing
from ..shapes import SIZES
from ..splits import Combo, binding, pair, relation
from .kit import Draft, Kit, Tasks


def _draft(kit: Kit, things: str, scene: Scene | None, goal: SceneGoal, stated: set[Combo]) -> Draft | None:
    if scene is None:
        return None
    return Draft([Text(kit.words.say("draw", things=things)), TargetPicture(scene)], [goal], stated)


def one(kit: Kit) -> Draft | None:
    """One object, with its size, its place, or the background named."""
    (shape, colour), words = kit.look(), kit.words
    scene = kit.scene([(shape, colour)], "small", "medium", "large")
    aspect = kit.pick(("size", "place", "background")) if kit.split == "heldout" or kit.chance(0.8) else ""
    if scene is None or not aspect:
        return _draft(kit, words.a(shape), scene, SceneGoal((Want(shape),)), set())
    if aspect == "size":
        size = kit.pick(list(SIZES))
        scene = kit.scene([(shape, colour)], size)
        return _draft(
            kit, words.a(shape, size=size), scene, SceneGoal((Want(shape, size=size),)), {("setting", shape, size)}
        )
    if aspect == "place":
        return _placed(kit, shape, colour)
    background = scene.background
    things = words.lower("on", things=words.a(shape), background=words.word("background", background))
    goal = SceneGoal((Want(shape),), background=background)
    return _draft(kit, things, scene, goal, {("setting", shape, "on", background)})


def _placed(kit: Kit, shape: str, colour: str) -> Draft | None:
    place = kit.pick(list(PLACES))
    r = kit.radius("small", "medium")
    spot = spot_in(kit.rng, r, PLACES[place])
    if spot is None:
        return None
    scene = Scene((Thing(shape, colour, *spot, r),), kit.background())
    things = kit.words.lower("at", thing=kit.words.a(shape), place=kit.words.place(place))
    goal = SceneGoal((Want(shape, box=widen(PLACES[place])),))
    return _draft(kit, things, scene, goal, {("setting", shape, place)})


def two(kit: Kit) -> Draft | None:
    """Two objects, their colours free."""
    looks = kit.looks(2, shapes=True)
    (a, _), (b, _) = looks
    things = kit.words.join([kit.words.a(a), kit.words.a(b)])
    return _draft(kit, things, kit.scene(looks), SceneGoal((Want(a), Want(b))), {pair(a, b)})


def counting(kit: Kit) -> Draft | None:
    """Two to six of a shape, its colour named or free."""
    n, look = kit.rng.randint(2, 6), kit.look()
    named = kit.chance(0.4)
    looks = [look] * n if named or kit.chance(0.6) else [kit.look(look[0]) for _ in range(n)]
    sizes = ("small", "medium") if n > 3 else ("small", "medium", "large")
    scene = kit.scene(looks, kit.pick(sizes))
    want = Want(*look) if named else Want(look[0])
    things = kit.words.some(n, *(look if named else look[:1]))
    stated: set[Combo] = {("count", n, look[0])}
    return _draft(kit, things, scene, SceneGoal((want,) * n), stated | ({("look", *look)} if named else set()))


def colours(kit: Kit) -> Draft | None:
    """One object in a named colour, now and then before a named background."""
    look, words = kit.look(), kit.words
    scene = kit.scene([look])
    things = words.a(*look)
    if scene is None or kit.chance(0.7):
        return _draft(kit, things, scene, SceneGoal((Want(*look),)), {("look", *look)})
    things = words.lower("on", things=things, background=words.word("background", scene.background))
    goal = SceneGoal((Want(*look),), background=scene.background)
    return _draft(kit, things, scene, goal, {("look", *look), ("setting", look[0], "on", scene.background)})


def position(kit: Kit) -> Draft | None:
    """One object beside another, their colours named or free."""
    a, b = kit.looks(2, shapes=True)
    how, named, words = kit.pick(RELATIONS), kit.chance(0.5), kit.words
    ra, rb = kit.radius("small", "medium"), kit.radius("small", "medium")
    spots = beside(kit.rng, how, ra, rb)
    scene = Scene((Thing(*a, *spots[0], ra), Thing(*b, *spots[1], rb)), kit.background())
    say = (lambda look: words.a(*look)) if named else (lambda look: words.a(look[0]))
    things = words.lower("beside", a=say(a), b=say(b), relation=words.word("relation", how))
    wants = (Want(*a), Want(*b)) if named else (Want(a[0]), Want(b[0]))
    stated: set[Combo] = {relation(a[0], how, b[0])}
    if named:
        stated |= {("look", *a), ("look", *b)}
    return _draft(kit, things, scene, SceneGoal(wants, ((0, how, 1),)), stated)


def bind(kit: Kit) -> Draft | None:
    """Two objects, each in its own colour."""
    a, b = kit.looks(2, shapes=True, colours=True)
    things = kit.words.join([kit.words.a(*a), kit.words.a(*b)])
    stated = {binding(a, b), pair(a[0], b[0]), ("look", *a), ("look", *b)}
    return _draft(kit, things, kit.scene([a, b]), SceneGoal((Want(*a), Want(*b))), stated)


CATEGORIES: Tasks = {
    "one object": one,
    "two objects": two,
    "counting": counting,
    "colours": colours,
    "position": position,
    "binding": bind,
}
