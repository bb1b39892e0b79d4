"""A job in the scheduler's hands, and the queue in which it waits.

Owners take turns: one who sends a thousand jobs does not keep another waiting for a thousand.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from bagel.infer.engine import Job, Read
from bagel.memory.room import Claim
from bagel.pack import LatentPart

WRITE, READ, DRAW = "write", "read", "draw"
"""What a job may want: one token of a text, something to be read, an update of a picture."""


@dataclass(eq=False)
class Ticket:
    """One job in the scheduler's hands. owner: whom it runs for, waiting owners take turns; weight: tokens it
    may hold; claim: what it waits to have room for; making: what is made for it beside the passes, until it goes on
    with that; the times are `time.perf_counter` seconds."""

    job: Job
    number: int
    owner: Hashable = None
    weight: int = 0
    came: float = field(default_factory=time.perf_counter)
    began: float | None = None
    served: int = 0
    wanted: list[Read] | None = None
    claim: Claim | None = None
    making: Future[Any] | None = None

    @property
    def kind(self) -> str:
        reads = self.wanted or ()
        if all(read.is_written for read in reads):
            return WRITE
        noised = all(isinstance(read.part, LatentPart) and read.part.noised for read in reads)
        return DRAW if noised else READ

    @property
    def tokens(self) -> int:
        """New tokens of what it wants next."""
        return sum(read.part.segment.length for read in self.wanted or ())


class Waiting:
    """Jobs that wait; their owners take turns, each owner's jobs in order."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[Hashable, deque[Ticket]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._by_owner.values()))

    def __iter__(self) -> Iterator[Ticket]:
        return iter([ticket for queue in self._by_owner.values() for ticket in queue])

    def in_turn(self) -> Iterator[Ticket]:
        """In the order in which they will be let in."""
        rounds = itertools.zip_longest(*self._by_owner.values())
        return (ticket for one in rounds for ticket in one if ticket is not None)

    @property
    def first(self) -> Ticket:
        return next(iter(self._by_owner.values()))[0]

    def push(self, ticket: Ticket) -> None:
        self._by_owner.setdefault(ticket.owner, deque()).append(ticket)

    def pop(self) -> Ticket:
        owner, queue = next(iter(self._by_owner.items()))
        ticket = queue.popleft()
        self._by_owner.move_to_end(owner)
        if not queue:
            del self._by_owner[owner]
        return ticket

    def put_back(self, ticket: Ticket) -> None:
        """One that was popped last, to where it was."""
        self._by_owner.setdefault(ticket.owner, deque()).appendleft(ticket)
        self._by_owner.move_to_end(ticket.owner, last=False)

    def remove(self, ticket: Ticket) -> bool:
        queue = self._by_owner.get(ticket.owner, deque())
        if ticket not in queue:
            return False
        queue.remove(ticket)
        if not queue:
            del self._by_owner[ticket.owner]
        return True
