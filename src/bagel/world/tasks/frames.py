"""Future frames: a few frames of shapes in motion, then the ones that follow."""

from ..goals import Goal, ViewGoal
from ..motion import Mover, film
from ..sample import Part, Picture, TargetPicture, Text
from ..scene import Thing
from ..shapes import TURN_PERIOD
from ..splits import Combo
from .kit import Draft, Kit, Tasks

SPEEDS = (-14, -11, -8, 0, 0, 8, 11, 14)  # pixels a frame; slower would not show


def _still(kit: Kit, r: int, shape: str | None = None) -> Thing:
    """A thing somewhere in the picture."""
    low, high = r + 4, 123 - r
    return Thing(*kit.look(shape), kit.rng.randint(low, high), kit.rng.randint(low, high), r)


def _moving(kit: Kit) -> Mover:
    dx, dy = kit.pick(SPEEDS), kit.pick(SPEEDS)
    return Mover(_still(kit, kit.radius("small", "medium")), dx, dy)


def _frames(kit: Kit, movers: list[Mover], given: int, wanted: int, stated: set[Combo]) -> Draft | None:
    """The sample that shows `given` frames and asks for `wanted` more."""
    scenes = film(movers, kit.background(), given + wanted)
    if scenes is None:
        return None
    goals: list[Goal] = []
    for i in range(given, given + wanted):
        others = [scene for k, scene in enumerate(scenes) if k != i and scene != scenes[i]]
        goals.append(ViewGoal(scenes[i], tuple(others)))
    words = kit.words
    parts: list[Part] = [Text(words.say("frames", n=words.lower("some-frames", n=words.number(given))))]
    parts += [Picture(scene) for scene in scenes[:given]]
    more = words.lower("one-frame") if wanted == 1 else words.lower("some-frames", n=words.number(wanted))
    parts.append(Text(words.say("next", n=more)))
    parts += [TargetPicture(scene) for scene in scenes[given:]]
    return Draft(parts, goals, stated)


def _lengths(kit: Kit) -> tuple[int, int]:
    """How many frames are given and wanted."""
    return kit.rng.randint(2, 4), 1 if kit.chance(0.7) else 2


def _turns_around(mover: Mover, frames: int) -> int:
    """Number of the first frame that shows a bounce, or `frames` if none does."""
    for k in range(1, frames):
        if mover.bounces_next:
            return k
        mover = mover.step()
    return frames


def move(kit: Kit) -> Draft | None:
    """One to three things glide on, without a bounce."""
    given, wanted = _lengths(kit)
    movers = [_moving(kit) for _ in range(kit.rng.randint(1, 3))]
    glide = all(_turns_around(mover, given + wanted) == given + wanted for mover in movers)
    if not glide or not any(mover.dx or mover.dy for mover in movers):
        return None
    return _frames(kit, movers, given, wanted, {_motion("move", mover) for mover in movers})


def bounce(kit: Kit) -> Draft | None:
    """A thing turns around at the edge in a frame that must be foretold; another may glide or stand."""
    given, wanted = _lengths(kit)
    movers = [_moving(kit) for _ in range(kit.rng.randint(1, 2))]
    first = [_turns_around(mover, given + wanted) for mover in movers]
    if not given <= first[0] < given + wanted or min(first) < given:
        return None
    return _frames(kit, movers, given, wanted, {_motion("bounce", movers[0])})


def grow(kit: Kit) -> Draft | None:
    """One or two things grow or shrink."""
    given, wanted = _lengths(kit)
    movers = []
    for _ in range(kit.rng.randint(1, 2)):
        dr = kit.pick((-4, -3, 3, 4))
        movers.append(Mover(_still(kit, kit.rng.randint(8, 14) if dr > 0 else kit.rng.randint(16, 24)), dr=dr))
    return _frames(kit, movers, given, wanted, {_motion("grow", mover) for mover in movers})


def turn(kit: Kit) -> Draft | None:
    """A thing turns by 15 or 30 degrees a frame."""
    given, wanted = _lengths(kit)
    shape = kit.pick([shape for shape in TURN_PERIOD if TURN_PERIOD[shape] >= 90])
    spin = kit.pick((-30, -15, 15, 30))
    thing = _still(kit, kit.radius("large"), shape)
    start = kit.rng.randrange(0, TURN_PERIOD[shape], 15)
    mover = Mover(thing.but(angle=start), spin=spin)
    return _frames(kit, [mover], given, wanted, {_motion("turn", mover)})


def _motion(law: str, mover: Mover) -> Combo:
    """The combination a moving thing stands for: its law, look, and direction."""
    signs = [(k > 0) - (k < 0) for k in (mover.dx, mover.dy, mover.dr, mover.spin)]
    return ("motion", law, mover.thing.shape, *signs)


CATEGORIES: Tasks = {"move": move, "bounce": bounce, "grow": grow, "turn": turn}
