"""Intelligent editing, second half: what to change follows from how the things are arranged."""

from itertools import product

from ..goals import SAME_PLACE, scene_goal, widen
from ..layout import CELL, CORNERS, PLACES, line, spot_in
from ..scene import SIDE, Scene, Thing
from . import reason
from .kit import Draft, Kit, Tasks
from .reason import reasoned, tally

MIRRORED_THE_SAME = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart", "arrow")


def _free_size(thing: Thing, slack: float = SAME_PLACE + 2) -> dict[str, object]:
    """Fields of a want whose thing may be a little off, as its place was only implied."""
    return {"box": (thing.x - slack, thing.y - slack, thing.x + slack, thing.y + slack)}


def row(kit: Kit) -> Draft | None:
    """Complete the row: a pattern of two or three looks repeats."""
    period = kit.rng.randint(2, 3)
    looks = kit.looks(period, shapes=kit.chance(0.5))
    spots = line(5, kit.rng.randint(24, SIDE - 24))
    full = Scene(tuple(Thing(*looks[i % period], *spot, 10) for i, spot in enumerate(spots)), kit.background())
    before, words = full.without(4), kit.words
    things = words.join([words.a(*look) for look in looks])
    why = words.say("row-why", things=things, thing=words.a(*full.things[4].look))
    goal = scene_goal(full, {4: _free_size(full.things[4])})
    names = [word for look in looks for word in look]
    return reasoned(before, words.say("row"), why, full, {("edit", "row", *names)}, goal)


def grid(kit: Kit) -> Draft | None:
    """Complete the grid: each row has one shape, each column one colour."""
    a, b, c = kit.looks(3, shapes=True, colours=True)
    rows, columns = 3 if kit.chance(0.5) else 2, 3
    cells = list(product(range(rows), range(columns)))
    gap = kit.pick(cells)
    shapes, colours, r = (a[0], b[0], c[0]), (a[1], b[1], c[1]), kit.radius("small", "medium")
    drop = SIDE / 2 - CELL * (rows - 1) / 2
    things = {
        (j, i): Thing(shapes[j], colours[i], round(CELL * (i + 0.5)), round(drop + CELL * j), r) for j, i in cells
    }
    rest = [things[cell] for cell in cells if cell != gap]
    full = Scene((*rest, things[gap]), kit.background())
    words, (shape, colour) = kit.words, things[gap].look
    why = words.say(
        "grid-why", shapes=words.many(shape), colour=words.word("colour", colour), thing=words.a(shape, colour)
    )
    goal = scene_goal(full, {len(rest): _free_size(things[gap])})
    stated = {("look", shape, colour), ("edit", "grid", *shapes[:rows], *colours)}
    return reasoned(full.without(len(rest)), words.say("grid"), why, full, stated, goal)


def mirror(kit: Kit) -> Draft | None:
    """Mirror the left half to the right."""
    looks = kit.looks(kit.rng.randint(1, 3))
    if not all(shape in MIRRORED_THE_SAME for shape, _ in looks):
        return None
    half = kit.scene(looks, "small", "medium")
    if half is None or any(thing.x + thing.r > SIDE / 2 - 5 for thing in half.things):
        return None
    copies = [thing.but(x=SIDE - 1 - thing.x) for thing in half.things]
    after, n = half.plus(*copies), len(copies)
    goal = scene_goal(after, {n + i: _free_size(copy) for i, copy in enumerate(copies)})
    why = kit.words.say("mirror-why", things=tally(kit, half))
    names = [word for look in sorted(looks) for word in look]
    return reasoned(half, kit.words.say("mirror"), why, after, {("edit", "mirror", *names)}, goal)


def corner(kit: Kit) -> Draft | None:
    """Move the smallest thing, which stands elsewhere, into the only empty corner."""
    looks = kit.looks(4)
    rank = kit.pick(("smallest", "largest"))
    own, rest = ("small", "medium") if rank == "smallest" else ("large", "medium")
    empty = kit.pick(CORNERS)
    homes = ["centre", *(place for place in CORNERS if place != empty)]
    radii = [kit.radius(own if place == "centre" else rest) for place in homes]
    things = []
    for look, place, r in zip(looks, homes, radii, strict=True):
        spot = spot_in(kit.rng, r, PLACES[place])
        if spot is None:
            return None
        things.append(Thing(*look, *spot, r))
    mover, x, y = things[0], *_corner_spot(things[0].r, empty)
    scene = Scene(tuple(things), kit.background())
    if not _apart(scene):
        return None
    after, words = scene.put(0, mover.but(x=x, y=y)), kit.words
    named = words.lower("ranked", rank=words.rank(rank))
    why = words.say("corner-why", place=words.place(empty), thing=named, look=words.the(*mover.look))
    goal = scene_goal(after, {0: {"box": widen(PLACES[empty])}})
    stated = {("edit", "corner", rank, empty, mover.shape)}
    return reasoned(scene, words.say("corner", thing=named), why, after, stated, goal)


def _corner_spot(r: int, place: str) -> tuple[int, int]:
    """Where a thing of radius `r` stands in a corner."""
    near, far = max(r + 5, 21), SIDE - 1 - max(r + 5, 21)
    return (near if "left" in place else far), (near if "top" in place else far)


def _apart(scene: Scene) -> bool:
    things = scene.things
    return all(
        max(abs(a.x - b.x), abs(a.y - b.y)) > a.r + b.r + 6 for i, a in enumerate(things) for b in things[i + 1 :]
    )


def balance(kit: Kit) -> Draft | None:
    """Add circles until there are as many circles as squares."""
    a, b = kit.looks(2, shapes=True)
    n = kit.rng.randint(2, 4)
    m = n - kit.rng.randint(1, min(2, n - 1))
    r = kit.radius("small")
    scene = kit.scene([a] * m + [b] * n, radii=[r] * (m + n))
    after = scene
    for _ in range(n - m):
        after = kit.add(after, a, r) if after else None
    if scene is None or after is None:
        return None
    words = kit.words
    text = words.say("balance", things=words.many(*a), a=words.many(a[0]), b=words.many(b[0]))
    why = words.say("balance-why", a=words.some(m, a[0]), b=words.some(n, b[0]), more=words.number(n - m))
    goal = scene_goal(after, {m + n + i: {"r": None, "box": None} for i in range(n - m)})
    return reasoned(scene, text, why, after, {("look", *a), ("edit", "balance", m, a[0], n, b[0])}, goal)


CATEGORIES: Tasks = {
    "transfer": reason.transfer,
    "side": reason.side,
    "odd": reason.odd,
    "match": reason.match,
    "share": reason.share,
    "most": reason.most,
    "swap": reason.swap,
    "row": row,
    "grid": grid,
    "mirror": mirror,
    "corner": corner,
    "balance": balance,
}
