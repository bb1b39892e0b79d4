"""What a right output is: the payload that a sample hands its checker. Values only; `check` holds the judging."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .layout import Box
from .scene import Scene, Thing

if TYPE_CHECKING:
    from .sample import State

SAME_PLACE = 4.0  # pixels a thing that must not move may have moved
PLACE_SLACK = 4.0  # pixels a centre may lie outside the box it was sent to


@dataclass(frozen=True)
class Want:
    """One thing that must be there. A None field is free; `box` bounds the centre, `r` is the radius in pixels."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    r: float | None = None
    box: Box | None = None

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape or "thing") if word)


@dataclass(frozen=True)
class SceneGoal:
    """Exactly these things, no other; `background` None is free. A relation (a, "left", b) binds wants a and b."""

    wants: tuple[Want, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    background: str | None = None


@dataclass(frozen=True)
class ViewGoal:
    """The exact view of `state`, and closer to it than to the view of any state in `others`."""

    state: State
    others: tuple[State, ...] = ()


@dataclass(frozen=True)
class AnswerGoal:
    """A text that says `value`. `kind` names the vocabulary: "yes", "number", "colour", "shape", "size", "relation",
    "look", "background", or "caption"; a caption's value is the sorted (count, colour, shape) groups."""

    kind: str
    value: object


Goal = SceneGoal | ViewGoal | AnswerGoal


def stay(thing: Thing) -> Want:
    """The thing exactly as it is, where it is."""
    x, y, d = thing.x, thing.y, SAME_PLACE
    return Want(thing.shape, thing.colour, None, thing.r, (x - d, y - d, x + d, y + d))


def scene_goal(
    scene: Scene,
    free: Mapping[int, Mapping[str, object]] | None = None,
    relations: Iterable[tuple[int, str, int]] = (),
) -> SceneGoal:
    """This very scene. `free` replaces fields of single wants by index, such as {2: {"box": None}}."""
    wants = [stay(thing) for thing in scene.things]
    for index, fields in (free or {}).items():
        wants[index] = replace(wants[index], **fields)  # type: ignore[arg-type]
    return SceneGoal(tuple(wants), tuple(relations), scene.background)


def widen(box: Box) -> Box:
    """A place's box with the slack a checker grants."""
    return box[0] - PLACE_SLACK, box[1] - PLACE_SLACK, box[2] + PLACE_SLACK, box[3] + PLACE_SLACK
