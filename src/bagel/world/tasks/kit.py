"""What the tasks build with: one source of chance, one wording, and draws that suit the split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from ..goals import Goal
from ..layout import free_spot, occupied, scatter
from ..palette import BACKGROUNDS
from ..sample import Part
from ..scene import Look, Scene, Thing
from ..shapes import SIZES
from ..splits import HELDOUT_LOOKS, TRAIN_LOOKS, Combo
from ..wording.grammar import Words

Item = TypeVar("Item")


@dataclass
class Draft:
    """A sample in the making. `stated` are the combinations that its words name or its targets ask for."""

    parts: list[Part]
    goals: list[Goal]
    stated: set[Combo] = field(default_factory=set)


class Kit:
    """Chance and words for one sample."""

    def __init__(self, rng: Random, words: Words, split: str) -> None:
        self.rng, self.words, self.split = rng, words, split

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return self.rng.choice(items)

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return self.rng.random() < p

    def look(self, shape: str | None = None) -> Look:
        """A shape and a colour that may be shown in this split, of a given shape if one is named."""
        pool = HELDOUT_LOOKS if self.split == "heldout" and self.chance(0.3) else TRAIN_LOOKS
        return self.pick([look for look in pool if look[0] == shape] if shape else pool)

    def looks(self, n: int, shapes: bool = False, colours: bool = False) -> list[Look]:
        """`n` different looks; on demand with all shapes, or all colours, different too."""
        found: list[Look] = []
        while len(found) < n:
            look = self.look()
            clash = (shapes and look[0] in [s for s, _ in found]) or (colours and look[1] in [c for _, c in found])
            if look not in found and not clash:
                found.append(look)
        return found

    def radius(self, *sizes: str) -> int:
        """A radius in pixels, of one of the sizes; without any, mostly small or medium."""
        return self.pick(SIZES[self.pick(sizes or ("small", "medium", "medium", "large"))])

    def background(self) -> str:
        """White half of the time."""
        return "white" if self.chance(0.5) else self.pick(list(BACKGROUNDS))

    def scene(self, looks: Sequence[Look], *sizes: str, radii: Sequence[int] | None = None) -> Scene | None:
        """Things of these looks at free places, in their order; None where they do not fit."""
        radii = radii or [self.radius(*sizes) for _ in looks]
        spots = scatter(self.rng, radii)
        if spots is None:
            return None
        things = (Thing(*look, *spot, r) for look, spot, r in zip(looks, spots, radii, strict=True))
        return Scene(tuple(things), self.background())

    def add(self, scene: Scene, look: Look, r: int) -> Scene | None:
        """The scene with one more thing at a free place; None where there is none."""
        spot = free_spot(self.rng, r, occupied(scene.things))
        return scene.plus(Thing(*look, *spot, r)) if spot else None


Tasks = dict[str, Callable[[Kit], Draft | None]]
