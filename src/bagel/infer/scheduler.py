"""Jobs that come and go between two passes of the model: continuous batching.

A scheduler packs into each pass what its active jobs want next: prompts being read, words being written,
pictures being drawn, of any sizes and options. A job joins as soon as there is room for it to its end (see
`memory/room.py`) and leaves when it ends, fails or is cancelled; none notices the others. One thread calls it; see
`app/worker.py` for server and page.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from typing import Any

from bagel.devices import on_host
from bagel.errors import BagelError, InputError
from bagel.infer.engine import Beside, Engine, Finished, Job, Seen
from bagel.infer.ticket import WRITE, Ticket, Waiting
from bagel.memory.recover import relieved
from bagel.memory.room import Claim


@dataclass(frozen=True)
class Failed:
    """A job ended by an error of its own."""

    error: Exception


@dataclass(frozen=True)
class Cancelled:
    """A job was taken back before its end."""


@dataclass(frozen=True)
class Limits:
    """active: jobs under way at a time; queue: jobs that may wait; places: tokens that the contexts of the active
    jobs may hold, by their own estimate (`Ticket.weight`), where the room counts no bytes; a job beyond it runs
    alone.

    light: tokens of reading and drawing that a pass of text may carry without being slowed down much. Where
    there are more, `text_passes` passes of text alone come between two such passes. together: no turns, every
    active job in every pass, as a list of requests wants it that is done when its last one is. beside: on a CPU,
    pictures are read and made in a thread while the passes of other jobs go on; which jobs share a pass, and with that
    the last bits of what they get, then depends on how long it takes.
    """

    active: int = 64
    queue: int = 256
    places: int = 1_000_000
    light: int = 1024
    text_passes: int = 4
    together: bool = False
    beside: bool = False


class BusyError(BagelError):
    """No more jobs can wait. retry_after: seconds after which it is worth another try."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass
class Metrics:
    """Sums since the start. seconds, tokens and passes: by what a pass did (write, read, draw, or mixed);
    occupancy: jobs summed over passes; ended: jobs by how."""

    passes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    occupancy: int = 0
    ended: dict[str, int] = field(default_factory=lambda: {"finished": 0, "failed": 0, "cancelled": 0, "refused": 0})
    waited: float = 0.0

    def add_pass(self, tickets: Sequence[Ticket], seconds: float) -> None:
        kinds = {ticket.kind for ticket in tickets}
        name = kinds.pop() if len(kinds) == 1 else "mixed"
        self.passes[name] = self.passes.get(name, 0) + 1
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.occupancy += len(tickets)
        for ticket in tickets:
            self.tokens[ticket.kind] = self.tokens.get(ticket.kind, 0) + ticket.tokens


Event = tuple[Ticket, Any]
_PATIENCE = 0.05
"""Seconds that a step without a pass may take: who runs the scheduler may have news for it."""


class Scheduler:
    """Runs jobs side by side. `step` makes one pass and yields (ticket, event) as events come; the last event of a
    ticket is Finished, Failed or Cancelled."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self.engine, self.limits, self.metrics = engine, limits or Limits(), Metrics()
        self.active: list[Ticket] = []
        self.waiting = Waiting()
        self._numbers = itertools.count()
        self._passes = self._text_passes = 0

    clock = staticmethod(time.perf_counter)

    @property
    def busy(self) -> bool:
        return bool(self.active or self.waiting)

    def submit(self, job: Job, *, owner: Hashable = None, weight: int = 0) -> Ticket:
        """Queues a job. Raises BusyError where `limits.queue` jobs wait already, besides those that can start."""
        free = max(self.limits.active - len(self.active), 0)
        if len(self.waiting) >= self.limits.queue + free:
            self.metrics.ended["refused"] += 1
            raise BusyError(f"{len(self.waiting)} requests wait already, and no more can; try again later.")
        ticket = Ticket(job, next(self._numbers), owner, weight)
        self.waiting.push(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> Event | None:
        """Closes a job at once, which frees its contexts; -> its last event, or None if it has ended before."""
        if ticket in self.active:
            self.active.remove(ticket)
        elif not self.waiting.remove(ticket):
            return None
        return self._end(ticket, Cancelled(), "cancelled")

    def close(self) -> None:
        """Ends all jobs without a word."""
        for ticket in [*self.active, *self.waiting]:
            self.cancel(ticket)

    def step(self) -> Iterator[Event]:
        """Lets waiting jobs in, makes one pass for those whose turn it is, and hands out what came of it. No pass is
        made while all wait for what is made beside."""
        yield from self._admit()
        yield from self._collect()
        chosen = self._choose()
        if not chosen:
            return
        self._passes += 1
        wrong = {ticket: error for ticket in chosen if (error := self._error_in(ticket))}
        for ticket, error in wrong.items():
            yield self._fail(ticket, error)
        ready = [ticket for ticket in chosen if ticket not in wrong and ticket in self.active]
        if not ready:
            return
        began = time.perf_counter()
        answers = self._forward(ready)
        self.metrics.add_pass(ready, time.perf_counter() - began)
        for ticket, answer in zip(ready, answers, strict=True):
            ticket.served = self._passes
            if ticket not in self.active:  # cancelled while this pass's events were handed out
                continue
            if isinstance(answer, Exception):
                yield self._fail(ticket, answer)
            else:
                yield from self._resume(ticket, answer)

    # --- parts -------------------------------------------------------------------------------------------

    def _admit(self) -> Iterator[Event]:
        while self.waiting and len(self.active) < self.limits.active:
            if self._must_wait(self.waiting.first):
                return
            ticket = self.waiting.pop()
            ticket.began, ticket.served = time.perf_counter(), self._passes
            self.active.append(ticket)
            yield from self._resume(ticket, None)

    def _collect(self) -> Iterator[Event]:
        """Goes on with jobs for which something was made beside the passes."""
        away = [(ticket, ticket.making) for ticket in self.active if ticket.making]
        if away and len(away) == len(self.active):
            wait([making for _, making in away], _PATIENCE, FIRST_COMPLETED)
        for ticket, making in away:
            if ticket not in self.active or not making.done():
                continue
            try:
                made = making.result()
            except Exception as error:
                yield self._fail(ticket, relieved(error, self.engine.forget))
            else:
                yield from self._resume(ticket, made)

    def _must_wait(self, ticket: Ticket) -> bool:
        """For some of those under way to end. None of them: nothing is gained by waiting."""
        if not self.active:
            return False
        used = sum(each.weight for each in self.active)
        return used + ticket.weight > self.limits.places or (ticket.claim is not None and ticket.claim.must_wait)

    def _choose(self) -> list[Ticket]:
        """Whose wishes go into the next pass. Words come first; what takes long shares the time between them,
        the longest waiting job first."""
        ready = [ticket for ticket in self.active if not ticket.making]
        if self.limits.together or not ready:
            return ready
        kinds = [(ticket, ticket.kind) for ticket in ready]
        writers = [ticket for ticket, kind in kinds if kind == WRITE]
        others = sorted((t for t, kind in kinds if kind != WRITE), key=lambda t: (t.served, t.number))
        apart = self.engine.separates
        light = not apart and sum(ticket.tokens for ticket in others) <= self.limits.light
        if not others or (writers and not light and self._text_passes < self.limits.text_passes):
            self._text_passes += 1
            return writers
        self._text_passes = 0
        room = self.engine.max_tokens - (0 if apart else len(writers))
        chosen = others[:1]
        room -= chosen[0].tokens
        for ticket in others[1:]:
            if ticket.tokens <= room and (not apart or ticket.kind == chosen[0].kind):
                chosen.append(ticket)
                room -= ticket.tokens
        return sorted([*chosen, *([] if apart else writers)], key=lambda t: t.number)

    def _error_in(self, ticket: Ticket) -> Exception | None:
        try:
            self.engine.check(ticket.wanted or ())
        except InputError as error:
            return error
        return None

    def _forward(self, tickets: Sequence[Ticket]) -> list[list[Seen] | Exception]:
        """An answer for each. Where the pass fails, each job goes alone, so that only the guilty one fails."""
        before = [(read.context, read.context.mark) for ticket in tickets for read in ticket.wanted or ()]
        try:
            with on_host():
                seen = iter(self.engine.forward([read for ticket in tickets for read in ticket.wanted or ()]))
            return [list(itertools.islice(seen, len(ticket.wanted or ()))) for ticket in tickets]
        except Exception as failure:
            error = relieved(failure, self.engine.forget)
            for context, mark in reversed(before):
                context.back_to(mark)
            if len(tickets) == 1:
                return [error]
        return [_kept(answer) for ticket in tickets for answer in self._forward([ticket])]

    def _resume(self, ticket: Ticket, answer: Any) -> Iterator[Event]:
        """Goes on with a job until it wants something read or made again, or ends."""
        ticket.wanted = ticket.making = None
        try:
            said = _sent(ticket, answer)
            while not isinstance(said, list):
                if isinstance(said, Beside):
                    if self.limits.beside and self.engine.beside is not None:
                        ticket.making = self.engine.beside.submit(said.make)
                        return
                    said = _sent(ticket, said.make())
                    continue
                if not isinstance(said, Claim):
                    yield ticket, said
                elif len(self.active) > 1 and said.must_wait:
                    return self._put_back(ticket, said)
                if ticket not in self.active:
                    return
                said = _sent(ticket, None)
            ticket.wanted = said
        except StopIteration as stop:
            self.active.remove(ticket)
            yield self._end(ticket, Finished(stop.value), "finished")
        except Exception as error:
            yield self._fail(ticket, relieved(error, self.engine.forget))

    def _put_back(self, ticket: Ticket, claim: Claim) -> None:
        """To the front of the queue, so that smaller ones behind it do not keep it waiting for ever."""
        self.active.remove(ticket)
        ticket.claim, ticket.began = claim, None
        self.waiting.put_back(ticket)

    def _fail(self, ticket: Ticket, error: Exception) -> Event:
        self.active.remove(ticket)
        return self._end(ticket, Failed(error), "failed")

    def _end(self, ticket: Ticket, event: Any, how: str) -> Event:
        if ticket.making:
            ticket.making.cancel()
        ticket.wanted = ticket.making = None
        ticket.job.close()
        self.metrics.waited += (ticket.began or time.perf_counter()) - ticket.came
        self.metrics.ended[how] += 1
        return ticket, event


def _sent(ticket: Ticket, answer: Any) -> Any:
    with on_host():
        return ticket.job.send(answer)


def _kept(answer: list[Seen] | Exception) -> list[Seen] | Exception:
    """An answer that the next pass does not overwrite."""
    return answer if isinstance(answer, Exception) else [seen.kept() for seen in answer]
