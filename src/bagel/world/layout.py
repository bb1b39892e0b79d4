"""Where things go: places without overlap, with room between boxes so that blur never joins two things."""

from collections.abc import Iterable, Sequence
from itertools import product
from random import Random

from .scene import SIDE, Thing

MARGIN = 4
GAP = 6
Spot = tuple[int, int]
Box = tuple[float, float, float, float]
CELL = SIDE / 3

# Nine places of the picture, each the box of centres that counts as being there.
PLACES: dict[str, Box] = {
    f"{v} {h}".strip().replace("middle centre", "centre"): (
        CELL * i,
        CELL * j,
        CELL * (i + 1),
        CELL * (j + 1),
    )
    for (j, v), (i, h) in product(enumerate(("top", "middle", "bottom")), enumerate(("left", "centre", "right")))
}
CORNERS = ("top left", "top right", "bottom left", "bottom right")


def clear(spot: Spot, r: int, taken: Iterable[tuple[int, int, int]]) -> bool:
    """Would a thing of radius `r` at `spot` keep its distance from every (x, y, r) in `taken`?"""
    x, y = spot
    return all(max(abs(x - a), abs(y - b)) > r + s + GAP for a, b, s in taken)


def spot_in(rng: Random, r: int, box: Box = (0, 0, SIDE, SIDE)) -> Spot | None:
    """A random centre inside `box` that keeps a thing of radius `r` in the picture; None if there is none."""
    low, high = r + MARGIN, SIDE - 1 - r - MARGIN
    x0, y0 = max(low, round(box[0])), max(low, round(box[1]))
    x1, y1 = min(high, round(box[2])), min(high, round(box[3]))
    return (rng.randint(x0, x1), rng.randint(y0, y1)) if x0 <= x1 and y0 <= y1 else None


def free_spot(
    rng: Random, r: int, taken: Sequence[tuple[int, int, int]], box: Box = (0, 0, SIDE, SIDE), tries: int = 40
) -> Spot | None:
    """A random free centre inside `box`, or None when `tries` draws found none."""
    for _ in range(tries):
        spot = spot_in(rng, r, box)
        if spot is None:
            return None
        if clear(spot, r, taken):
            return spot
    return None


def occupied(things: Iterable[Thing]) -> list[tuple[int, int, int]]:
    """(x, y, r) of each thing."""
    return [(thing.x, thing.y, thing.r) for thing in things]


def scatter(rng: Random, radii: Sequence[int]) -> list[Spot] | None:
    """Free places for things of these radii, in their order; the largest is set down first."""
    taken: list[tuple[int, int, int]] = []
    spots: dict[int, Spot] = {}
    for i in sorted(range(len(radii)), key=lambda i: -radii[i]):
        spot = free_spot(rng, radii[i], taken)
        if spot is None:
            return None
        spots[i] = spot
        taken.append((*spot, radii[i]))
    return [spots[i] for i in range(len(radii))]


def beside(rng: Random, relation: str, ra: int, rb: int) -> tuple[Spot, Spot]:
    """Places for a and b so that a stands `relation` ("left", "right", "above", "below") of b."""
    near, far = (ra, rb) if relation in ("left", "above") else (rb, ra)
    low, high = near + MARGIN, SIDE - 1 - far - MARGIN
    first = rng.randint(low, max(low, high - near - far - GAP - 12))
    second = rng.randint(min(high, first + near + far + GAP + 10), high)
    base = rng.randint(30, SIDE - 30)
    slack = (second - first) // 2
    across = [min(max(base + rng.randint(-slack, slack) // 2, r + MARGIN), SIDE - 1 - r - MARGIN) for r in (near, far)]
    ends = [(first, across[0]), (second, across[1])]
    if relation in ("above", "below"):
        ends = [(y, x) for x, y in ends]
    return (ends[0], ends[1]) if relation in ("left", "above") else (ends[1], ends[0])


def line(n: int, y: int) -> list[Spot]:
    """`n` equally spaced centres in one row at height `y`."""
    return [(round(SIDE * (i + 0.5) / n), y) for i in range(n)]
