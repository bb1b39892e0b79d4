"""World navigation: a view of a room and one to four actions, then the view that follows.

Everything the new view shows was in the first one, or follows from it: all things stand in view at the start, and a
wall that comes into sight was seen before or is the only one left of the four.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import hypot

from ..goals import ViewGoal
from ..palette import WALLS
from ..room import ACTIONS, PROPS, REACH, WIDTH, Prop, Room, Stand, act, all_props_clear, point_ahead, walls_seen
from ..sample import Part, Picture, TargetPicture, Text
from ..splits import HELDOUT_PROPS, TRAIN_PROPS, Combo, heldout
from .kit import Draft, Kit, Tasks

STANDPOINTS = tuple(0.75 + 0.25 * k for k in range(15))  # metres
UNDO = {"left": "right", "right": "left", "forward": "back", "back": "forward"}


def journey(kit: Kit, n: int) -> tuple[list[Stand], list[str]] | None:
    """A start in a furnished room and the states after each of `n` actions; and the actions."""
    actions = choose_actions(kit, n)
    a, b, c, d = kit.rng.sample(list(WALLS), 4)
    bare = Stand(Room((a, b, c, d), ()), kit.pick(STANDPOINTS), kit.pick(STANDPOINTS), kit.rng.randrange(8))
    path = walk(bare, actions)
    if path is None or path[-1] == bare:
        return None
    room = _furnish(kit, path)
    return ([replace(stand, room=room) for stand in path], actions) if room else None


def walk(start: Stand, actions: Sequence[str]) -> list[Stand] | None:
    """The start and the states after each action; None if one is impossible, or shows what could not be known."""
    stands = [start]
    for action in actions:
        after = act(stands[-1], action)
        if after is None:
            return None
        stands.append(after)
    known = walls_seen(start, least=8)
    unknown = frozenset.union(*(walls_seen(stand, least=2) for stand in stands)) - known
    return stands if not unknown or len(known) == 3 else None


def _furnish(kit: Kit, path: Sequence[Stand]) -> Room | None:
    """The room with one to three things, all in view from the start and none in the way."""
    start = path[0]
    props: list[Prop] = []
    wanted = kit.pick((1, 2, 2, 3))
    for _ in range(12):
        depth = kit.rng.uniform(1.1, 4.5)
        x, y = point_ahead(start, depth, kit.rng.uniform(-0.85, 0.85) * depth)
        inside = min(x, y) >= 0.5 and max(x, y) <= WIDTH - 0.5
        apart = all(hypot(x - prop.x, y - prop.y) >= 1 for prop in props)
        if not inside or not apart or any(hypot(x - stand.x, y - stand.y) < REACH + 0.1 for stand in path):
            continue
        room = replace(start.room, props=(*props, Prop(*_prop(kit), x, y)))
        if all_props_clear(replace(start, room=room)):
            props.append(room.props[-1])
        if len(props) == wanted:
            return room
    return None


def _prop(kit: Kit) -> tuple[str, str]:
    """Kind and colour of a thing that may be shown in this split."""
    return kit.pick(HELDOUT_PROPS if kit.split == "heldout" and kit.chance(0.3) else TRAIN_PROPS)


def choose_actions(kit: Kit, n: int) -> list[str]:
    """`n` actions, none undoing the one before; a chain belongs to the split."""
    while True:
        chosen: list[str] = []
        while len(chosen) < n:
            action = kit.pick(ACTIONS)
            if not chosen or UNDO[action] != chosen[-1]:
                chosen.append(action)
        if n == 1 or heldout(("walk", *chosen)) == (kit.split == "heldout"):
            return chosen


def mistakes(before: Stand, action: str, after: Stand) -> tuple[Stand, ...]:
    """What a missed or a wrong last action would show, and the right view with a thing lacking or of another kind."""
    found = [before] + [act(before, other) for other in ACTIONS if other != action]
    props = after.room.props
    for i, prop in enumerate(props):
        for changed in ((), *((replace(prop, kind=kind),) for kind in PROPS)):
            room = replace(after.room, props=(*props[:i], *changed, *props[i + 1 :]))
            found.append(replace(after, room=room))
    return tuple(stand for stand in found if stand is not None and stand != after)


def stated(start: Stand, actions: Sequence[str]) -> set[Combo]:
    """The chain of actions; for a single one, the action in this room from this place."""
    if len(actions) > 1:
        return {("walk", *actions)}
    return {("pose", *start.room.walls, round(4 * start.x), round(4 * start.y), start.heading, *actions)}


def actions_in_words(kit: Kit, actions: Sequence[str]) -> str:
    """ "turn left, then step forward" """
    text = kit.words.lower(actions[0])
    for action in actions[1:]:
        text = kit.words.lower("then", first=text, second=kit.words.lower(action))
    return text


def _navigate(n: int, kit: Kit) -> Draft | None:
    made = journey(kit, n)
    if made is None:
        return None
    stands, actions = made
    start, before, after = stands[0], stands[-2], stands[-1]
    text = kit.words.say("act", actions=actions_in_words(kit, actions))
    parts: list[Part] = [Text(kit.words.say("here")), Picture(start), Text(text), TargetPicture(after)]
    others = {*mistakes(before, actions[-1], after), start} - {after}
    return Draft(parts, [ViewGoal(after, tuple(sorted(others, key=repr)))], stated(start, actions))


CATEGORIES: Tasks = {name: partial(_navigate, n) for n, name in enumerate(("one action", "two", "three", "four"), 1)}
