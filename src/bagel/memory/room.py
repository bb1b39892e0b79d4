"""Whether a request that comes now will have room to its end. One that has none beside others waits for them, and
one that would have none alone is refused, before it starts.

A room keeps the demands of the requests under way: their contexts have yet to grow to what they asked for, so
that the device's free memory alone would promise the same bytes twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch

from bagel.errors import MemoryPlanError
from bagel.memory.plan import gib, headroom
from bagel.memory.sizes import Demand, needed
from bagel.model.config import ModelConfig


@dataclass
class Room:
    """free: the device's free bytes, None where nobody counts them (the CPU); widened, tile, visitors: see
    `sizes.phases`."""

    config: ModelConfig
    dtype: torch.dtype
    free: Callable[[], int] | None = None
    widened: bool = False
    tile: int = 0
    visitors: Mapping[str, int] = field(default_factory=dict)
    _active: list[Demand] = field(default_factory=list, init=False, repr=False)
    _budget: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @contextmanager
    def held(self, demand: Demand) -> Iterator[None]:
        """Around a request. Raises MemoryPlanError where it would not fit, alone or beside those under way."""
        self._enter(demand)
        try:
            yield
        finally:
            with self._lock:
                self._active.remove(demand)

    def check(self, demand: Demand) -> None:
        """As `held`, for a request that has not started."""
        with self.held(demand):
            pass

    def must_wait(self, demand: Demand) -> bool:
        """Whether a request would fit alone, but not beside those under way."""
        with self._lock:
            if self.free is None or not self._active:
                return False
            return self._bytes([demand]) <= self._budget < self._bytes([*self._active, demand])

    def _enter(self, demand: Demand) -> None:
        with self._lock:
            if self.free is not None:
                if not self._active:
                    self._budget = self.free()
                self._refuse_what_is_too_much(demand)
            self._active.append(demand)

    def _refuse_what_is_too_much(self, demand: Demand) -> None:
        if self._bytes([*self._active, demand]) <= self._budget:
            return
        alone = self._bytes([demand])
        beside = f" beside {gib(self._bytes(self._active))} of what runs already" if alone <= self._budget else ""
        raise MemoryPlanError(
            f"the request needs {gib(alone)} of memory besides the weights{beside}, but "
            f"{gib(self._budget)} are free: {described(demand)}. Ask for a smaller picture, fewer at once or a shorter "
            "text, or load the model in fewer bits or with offload."
        )

    def _bytes(self, demands: Sequence[Demand]) -> int:
        work = needed(
            self.config, list(demands), self.dtype, widened=self.widened, tile=self.tile, visitors=self.visitors
        )
        return work + headroom(work)


@dataclass(frozen=True)
class Claim:
    """What a job yields before it does anything: it wants room for `demand`, to its end. Who runs the job may let it
    wait for that."""

    room: Room
    demand: Demand

    @property
    def must_wait(self) -> bool:
        return self.room.must_wait(self.demand)

    def held(self) -> AbstractContextManager[None]:
        """See `Room.held`."""
        return self.room.held(self.demand)


def described(demand: Demand) -> str:
    """What the numbers come from."""
    words = [f"{demand.read:,} tokens to read"]
    if demand.height:
        words.append(f"a picture of {demand.height} x {demand.width} in {demand.branches} branches")
    if demand.max_tokens:
        words.append(f"up to {demand.max_tokens:,} tokens to write")
    return ", ".join(words)
