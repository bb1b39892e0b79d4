"""Deliberately wrong outputs, to try the checkers on: one mistake each, of the kinds that a model makes."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

from .blocks import Shot, Stack
from .goals import AnswerGoal, ViewGoal
from .layout import MARGIN, clear, free_spot, occupied
from .palette import BACKGROUNDS, COLOURS, SOLID_COLOURS
from .room import PROPS, Stand
from .sample import Picture, Sample, State, TargetAnswer, TargetPicture
from .scene import SIDE, Scene
from .shapes import SHAPES, SIZES
from .wording.lexicon import LEXICONS, Language


def other(rng: Random, names: Iterable[str], name: str) -> str:
    """Another one of the names."""
    return rng.choice([each for each in names if each != name])


def spoilt_pictures(sample: Sample, number: int, rng: Random) -> Iterator[tuple[str, State]]:
    """(kind of mistake, state it shows) for target `number` of a sample. A few may happen to be right all the same
    (a recoloured star where any star will do)."""
    target = sample.targets[number]
    if not isinstance(target, TargetPicture):
        return
    before = [part.state for part in sample.parts[: sample.parts.index(target)] if isinstance(part, Picture)]
    if before:
        yield "unchanged", before[-1]
    goal = sample.goals[number]
    if isinstance(goal, ViewGoal):
        yield from (("mistaken", state) for state in goal.others)
    if isinstance(target.state, Scene):
        yield from _spoilt_scene(target.state, rng)
    elif isinstance(target.state, Stand):
        yield from _spoilt_room(target.state, rng)
    else:
        yield from _spoilt_blocks(target.state, rng)


def _spoilt_scene(scene: Scene, rng: Random) -> Iterator[tuple[str, Scene]]:
    yield "background", scene.on(other(rng, BACKGROUNDS, scene.background))
    if not scene.things:
        return
    yield "blank", Scene((), scene.background)
    i = rng.randrange(len(scene.things))
    thing = scene.things[i]
    yield "one missing", scene.without(i)
    extra = free_spot(rng, 10, occupied(scene.things))
    if extra:
        yield "one too many", scene.plus(thing.but(x=extra[0], y=extra[1], r=10, angle=0))
    yield "wrong colour", scene.put(i, thing.but(colour=other(rng, COLOURS, thing.colour)))
    yield "wrong shape", scene.put(i, thing.but(shape=other(rng, SHAPES, thing.shape)))
    rest = occupied(scene.without(i).things)
    moved = free_spot(rng, thing.r, rest)
    if moved and max(abs(moved[0] - thing.x), abs(moved[1] - thing.y)) >= 12:
        yield "moved", scene.put(i, thing.but(x=moved[0], y=moved[1]))
    r = SIZES[other(rng, SIZES, thing.size)][0]
    inside = r + MARGIN <= min(thing.x, thing.y) and max(thing.x, thing.y) <= SIDE - 1 - r - MARGIN
    if inside and abs(r - thing.r) >= 4 and clear((thing.x, thing.y), r, rest):
        yield "wrong size", scene.put(i, thing.but(r=r))


def _spoilt_room(stand: Stand, rng: Random) -> Iterator[tuple[str, Stand]]:
    """Mistakes that may lie out of view; whoever tries them compares the pictures."""
    room = stand.room
    i = rng.randrange(len(room.props))
    prop, rest = room.props[i], (*room.props[:i], *room.props[i + 1 :])
    a, b, c, d = room.walls
    yield "walls swapped", replace(stand, room=replace(room, walls=(b, a, d, c)))
    yield "one missing", replace(stand, room=replace(room, props=rest))
    recoloured = replace(prop, colour=other(rng, SOLID_COLOURS, prop.colour))
    reshaped = replace(prop, kind=other(rng, PROPS, prop.kind))
    yield "wrong colour", replace(stand, room=replace(room, props=(*rest, recoloured)))
    yield "wrong shape", replace(stand, room=replace(room, props=(*rest, reshaped)))


def _spoilt_blocks(shot: Shot, rng: Random) -> Iterator[tuple[str, Shot]]:
    i = rng.randrange(len(shot.stacks))
    stack, rest = shot.stacks[i], (*shot.stacks[:i], *shot.stacks[i + 1 :])
    level = rng.randrange(len(stack.colours))
    colours = list(stack.colours)
    colours[level] = other(rng, SOLID_COLOURS, colours[level])
    yield "wrong colour", replace(shot, stacks=(*rest, replace(stack, colours=tuple(colours))))
    yield "one missing", replace(shot, stacks=(*rest, replace(stack, colours=stack.colours[:-1])))
    taken = {(each.i, each.j) for each in shot.stacks}
    free = [(x, y) for x in range(3) for y in range(3) if (x, y) not in taken]
    if free:
        yield "moved", replace(shot, stacks=(*rest, Stack(*rng.choice(free), stack.colours)))


def spoilt_answer(goal: AnswerGoal, target: TargetAnswer, language: Language, rng: Random) -> str:
    """An answer of the right kind that is wrong."""
    lexicon = LEXICONS[language]
    if goal.kind == "caption":
        colour = goal.value[0][1]  # type: ignore[index]
        words = next(word for word in lexicon["colour"][colour] if word in target.text.lower())
        return target.text.lower().replace(words, lexicon["colour"][other(rng, COLOURS, colour)][0], 1)
    return lexicon[goal.kind][other(rng, lexicon[goal.kind], str(goal.value))][0]
