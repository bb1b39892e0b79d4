"""How several devices share out the work.

    branches   each computes some of guidance's branches, or of a batch's pictures; all hold the whole model
    rows       each computes some of a picture's latent tokens, for all branches; all hold the whole model
    tensor     each holds some of every layer's heads and inner numbers
    layers     each holds some of the layers (one process, see `bagel.memory.split`)

The first three multiply: `branches=2,tensor=2` is for four devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bagel.errors import InputError
from bagel.model.config import LLMConfig

AXES = ("branches", "rows", "tensor")
WAYS = ("auto", "layers", *AXES)


@dataclass(frozen=True)
class Grid:
    """Devices along each axis. A rank is numbered (branch x rows + row) x tensor + its share of a layer."""

    branches: int = 1
    rows: int = 1
    tensor: int = 1

    @property
    def size(self) -> int:
        return self.branches * self.rows * self.tensor

    @property
    def words(self) -> str:
        return ",".join(f"{axis}={getattr(self, axis)}" for axis in AXES if getattr(self, axis) > 1) or "one device"

    def rank(self, branch: int, row: int = 0, share: int = 0) -> int:
        return (branch * self.rows + row) * self.tensor + share

    def place(self, rank: int) -> tuple[int, int, int]:
        """(branch, row, share) of a rank."""
        return rank // (self.rows * self.tensor), rank // self.tensor % self.rows, rank % self.tensor

    def groups(self, axis: str) -> list[list[int]]:
        """The ranks that differ along one axis alone."""
        found: dict[tuple[int, ...], list[int]] = {}
        index = AXES.index(axis)
        for rank in range(self.size):
            place = self.place(rank)
            found.setdefault((*place[:index], *place[index + 1 :]), []).append(rank)
        return list(found.values())


def parse(words: str, count: int) -> Grid:
    """`rows`, for all devices, or `branches=2,tensor=2`. Raises InputError where it does not fit their number."""
    wanted = dict.fromkeys(AXES, 1)
    for word in words.split(","):
        axis, equals, number = (part.strip() for part in word.partition("="))
        if axis not in AXES or (equals and not (number.isdecimal() and int(number) > 0)):
            raise InputError(
                f"parallel {words!r} is unknown; use {', '.join(WAYS)}, or a product like branches=2,tensor=2."
            )
        wanted[axis] = int(number) if equals else count
    grid = Grid(**wanted)
    if grid.size != count:
        raise InputError(f"parallel {words!r} is for {grid.size} devices, but there are {count}; name as many.")
    return grid


def check(grid: Grid, llm: LLMConfig) -> Grid:
    """Raises InputError where the layers cannot be shared out so."""
    most = most_shares(llm)
    if grid.tensor < 1 or most % grid.tensor:
        raise InputError(
            f"tensor={grid.tensor} is not possible: {llm.num_key_value_heads} key heads and {llm.intermediate_size} "
            f"inner numbers can be shared out {most} ways or a divisor of it; use rows or branches for the rest."
        )
    return grid


def most_shares(llm: LLMConfig) -> int:
    return math.gcd(llm.num_key_value_heads, llm.intermediate_size)


def candidates(count: int, llm: LLMConfig) -> list[Grid]:
    """What `auto` tries: rows, with as few shares of a layer as the memory allows."""
    most = most_shares(llm)
    return [Grid(rows=count // ways, tensor=ways) for ways in range(1, count + 1) if not (count % ways or most % ways)]
