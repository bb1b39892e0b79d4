"""Multi-view: stacks of blocks, then the same with the camera 45 degrees (or 90) further around."""

from functools import partial
from itertools import product

from ..blocks import GRID, Shot, Stack, all_blocks_clear, orbit
from ..goals import ViewGoal
from ..palette import SOLID_COLOURS
from ..sample import Part, Picture, TargetPicture, Text
from ..splits import Combo
from .kit import Draft, Kit, Tasks

CELLS = tuple(product(range(GRID), range(GRID)))


def _shot(kit: Kit) -> Shot | None:
    """One to four stacks of which every block shows."""
    stacks = []
    for i, j in kit.rng.sample(CELLS, kit.rng.randint(1, 4)):
        colours = tuple(kit.pick(SOLID_COLOURS) for _ in range(kit.pick((1, 1, 2, 2, 3))))
        stacks.append(Stack(i, j, colours))
    shot = Shot(tuple(stacks), kit.rng.randrange(8))
    return shot if all_blocks_clear(shot) else None


def _turn(steps: int, kit: Kit) -> Draft | None:
    shot = _shot(kit)
    if shot is None:
        return None
    after, words = orbit(shot, steps), kit.words
    side = words.lower("side-right" if steps > 0 else "side-left")
    text = words.say("orbit", degrees=str(45 * abs(steps)), side=side)
    parts: list[Part] = [Text(words.say("stacks")), Picture(shot), Text(text), TargetPicture(after)]
    others = tuple(orbit(shot, k) for k in range(8) if k != steps % 8)
    stated: set[Combo] = {("tower", *stack.colours) for stack in shot.stacks if len(stack.colours) > 1}
    cells = sorted((stack.i, stack.j, len(stack.colours)) for stack in shot.stacks)
    stated.add(("layout", shot.turn, *(k for cell in cells for k in cell)))
    return Draft(parts, [ViewGoal(after, others)], stated)


CATEGORIES: Tasks = {
    "45 right": partial(_turn, 1),
    "45 left": partial(_turn, -1),
    "90 right": partial(_turn, 2),
    "90 left": partial(_turn, -2),
}
