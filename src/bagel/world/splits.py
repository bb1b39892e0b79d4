"""Which combinations of attributes are kept out of training. One predicate, `heldout`, decides.

A combination is a tuple: its kind first, then its attributes. These kinds count wherever they

- are shown or named: ("look", shape, colour) of a flat shape, ("prop", kind, colour) of a thing in a room;
- are named, in one text for those of two: ("pair", shape, shape), ("binding", look, look), ("count", n, shape);
- are what a sample is about: ("relation", shape, relation, shape) of what is to be drawn, ("setting", shape,
  attribute), ("count", n, ...), ("compare", ...), ("edit", verb, ...), ("sum", ...), ("motion", law, ...), ("walk",
  actions), ("pose", ...), ("tower", colours), ("layout", ...), ("said", a sum), ("said", a thing, the template that
  asks for its colour);
- are a choice of words: ("wording", language, key, template, frame, "train" or "new"); ("frame", language, key, frame)
  is the frame of a command that training does not use for that key.

Every attribute by itself is common in training; only the combination is new.
"""

from functools import lru_cache
from zlib import crc32

from .palette import COLOURS, SOLID_COLOURS
from .room import PROPS
from .scene import LOOKS, OPPOSITE, Look
from .shapes import SHAPES

Combo = tuple[str | int, ...]

SHARE = 0.15  # of the combinations of a hashed kind


@lru_cache(maxsize=1 << 16)
def heldout(combo: Combo) -> bool:
    """Is this combination reserved for judging?"""
    kind, *rest = combo
    if kind == "look":  # each shape misses one colour, each colour one or two shapes
        return (_index(SHAPES, rest[0]) * 4 + _index(COLOURS, rest[1])) % len(COLOURS) == 2
    if kind == "prop":
        return (_index(PROPS, rest[0]) + _index(SOLID_COLOURS, rest[1])) % len(SOLID_COLOURS) == 1
    if kind == "wording":
        return rest[-1] == "new"
    if kind == "frame":  # each key does without two of eight
        return (crc32(repr(rest[:-1]).encode()) + int(rest[-1])) % 4 == 0
    return crc32(repr(combo).encode()) % 1000 < 1000 * SHARE


def _index(names: object, name: object) -> int:
    return list(names).index(name)  # type: ignore[call-overload]


TRAIN_LOOKS: tuple[Look, ...] = tuple(look for look in LOOKS if not heldout(("look", *look)))
HELDOUT_LOOKS: tuple[Look, ...] = tuple(look for look in LOOKS if heldout(("look", *look)))

_PROPS = tuple((kind, colour) for kind in PROPS for colour in SOLID_COLOURS)
TRAIN_PROPS = tuple(prop for prop in _PROPS if not heldout(("prop", *prop)))
HELDOUT_PROPS = tuple(prop for prop in _PROPS if heldout(("prop", *prop)))


def pair(a: str, b: str) -> Combo:
    """Two shapes named together; the order does not matter."""
    return ("pair", *sorted((a, b)))


def binding(a: Look, b: Look) -> Combo:
    """Two looks named together; the order does not matter."""
    return ("binding", *(word for look in sorted((a, b)) for word in look))


def relation(a: str, how: str, b: str) -> Combo:
    """One shape beside another; "a right of b" and "b left of a" are one combination."""
    if how in ("right", "below"):
        a, how, b = b, OPPOSITE[how], a
    return ("relation", a, how, b)
