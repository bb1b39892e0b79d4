"""Is a picture the scene that was asked for? Recognised things are matched one to one with the wanted ones."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..goals import SceneGoal, Want
from ..scene import stands
from .recognise import Reading, Seen, read
from .verdict import Verdict, right, wrong

RADIUS_SLACK = 2.6  # pixels; the sizes small, medium, large lie five apart


def check_scene(pixels: np.ndarray, goal: SceneGoal) -> Verdict:
    """Judge a uint8 RGB picture [128, 128, 3]."""
    return check_reading(read(pixels), goal)


def check_reading(seen: Reading, goal: SceneGoal) -> Verdict:
    """Judge what was recognised in a picture."""
    if seen.background is None:
        return wrong("the background has no known colour")
    if goal.background and seen.background != goal.background:
        return wrong(f"the background is {seen.background}, not {goal.background}")
    if seen.fault:
        return wrong(f"there is {seen.fault}")
    if len(seen.things) != len(goal.wants):
        return wrong(f"{len(seen.things)} things where {len(goal.wants)} belong")
    return _matched(seen.things, goal)


def _matched(things: tuple[Seen, ...], goal: SceneGoal) -> Verdict:
    if not things:
        return right()
    faults = [[_faults(want, thing) for thing in things] for want in goal.wants]
    cost = np.array([[len(found) for found in row] for row in faults])
    for want, thing in zip(*linear_sum_assignment(cost), strict=True):
        if faults[want][thing]:
            return wrong(f"no {goal.wants[want]}: {things[thing]} is {faults[want][thing][0]}")
    partner = dict(zip(*linear_sum_assignment(cost), strict=True))
    for a, relation, b in goal.relations:
        first, second = things[partner[a]], things[partner[b]]
        if not stands((first.x, first.y), relation, (second.x, second.y)):
            return wrong(f"{first} is not clearly {relation} of {second}")
    return right()


def _faults(want: Want, thing: Seen) -> list[str]:
    """What keeps a thing from being the wanted one, worst first."""
    faults = []
    if want.shape and thing.shape != want.shape:
        faults.append(f"not a {want.shape}")
    if want.colour and thing.colour != want.colour:
        faults.append(f"not {want.colour}")
    if want.size and thing.size != want.size:
        faults.append(f"not {want.size}")
    if want.r and abs(thing.r - want.r) > RADIUS_SLACK:
        faults.append(f"of radius {thing.r:.0f}, not {want.r:.0f}")
    if want.box and not (want.box[0] <= thing.x <= want.box[2] and want.box[1] <= thing.y <= want.box[3]):
        faults.append("not where it belongs")
    return faults
