"""The thread that runs the model. Server and page hand it jobs and get their events back on the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import queue
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bagel.errors import BagelError
from bagel.infer.conversation import Input
from bagel.infer.engine import Engine, Finished, Job
from bagel.infer.pipeline import Bagel
from bagel.infer.scheduler import BusyError, Cancelled, Failed, Limits, Scheduler, Ticket
from bagel.options import ImageOptions, TextOptions

log = logging.getLogger("bagel.serve")
_LAST = (Finished, Failed, Cancelled)


class StoppingError(BagelError):
    """No more jobs are taken."""


@dataclass(frozen=True)
class Queued:
    """A job waits; `ahead` jobs come before it."""

    ahead: int


class Worker:
    """Owns the scheduler; other threads leave orders, which it takes between two passes."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.most = limits.active + limits.queue
        self.most_of_one = limits.active + math.ceil(limits.queue * 3 / 4)
        """Jobs of one owner: a quarter of the queue is left to others."""
        self.scheduler = Scheduler(engine, limits)
        self.stopping: StoppingError | None = None
        self.seconds_per_job = 1.0
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._handles: dict[Ticket, tuple[Handle, int]] = {}
        self._told: dict[Ticket, int] = {}
        self._open, self._lock = 0, threading.Lock()
        self._open_of: Counter[Hashable] = Counter()
        self._thread = threading.Thread(target=self._run, name="bagel-model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def open(self) -> int:
        """Jobs that have not ended."""
        return self._open

    def submit(
        self, jobs: Sequence[Job], *, owner: str | None = None, weight: int = 0, wants: tuple[type, ...] = ()
    ) -> Handle:
        """Queues all jobs of a request or none; call it on the event loop. owner: owners take turns where they wait,
        and none fills the whole queue. wants: events to hand out besides the
        last. Raises BusyError if the queue is full, StoppingError if the worker is stopping."""
        with self._lock:
            if self.stopping:
                raise self.stopping
            if self._open + len(jobs) > self.most or self._open_of[owner] + len(jobs) > self.most_of_one:
                self.scheduler.metrics.ended["refused"] += len(jobs)
                text = f"{self._open} jobs are under way or waiting, and no more can; try again later."
                raise BusyError(text, retry_after=self.wait_estimate())
            self._open += len(jobs)
            self._open_of[owner] += len(jobs)
        handle = Handle(self, len(jobs), wants)
        self._orders.put(lambda: self._begin(handle, jobs, owner, weight))
        return handle

    def wait_estimate(self) -> int:
        """Seconds until there should be room, 1 to 60."""
        rounds = self._open / self.scheduler.limits.active
        return min(max(math.ceil(rounds * self.seconds_per_job), 1), 60)

    def cancel(self, handle: Handle) -> None:
        self._orders.put(lambda: self._cancel(handle))

    def drain(self) -> None:
        """Takes no new jobs, gives waiting ones back, lets those under way end. Safe in a signal handler."""
        self.stopping = self.stopping or StoppingError("the server is stopping; try again in a moment.")
        self._orders.put(self._give_back)

    def stop(self, seconds: float = 10.0) -> None:
        """Ends all jobs and the thread."""
        self.drain()
        self._orders.put(None)
        self._thread.join(seconds)

    def fail_all(self) -> None:
        """Ends all jobs with the reason for stopping."""
        self._orders.put(lambda: self._fail(list(self._handles)))

    # --- in the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        device = self.scheduler.engine.model.device
        if device.type == "cuda":  # the current device is a thread's own
            torch.cuda.set_device(device)
        while self._take_orders() and self._step():
            pass

    def _step(self) -> bool:
        """One pass; False when it is time to end."""
        try:
            for ticket, event in self.scheduler.step():
                self._deliver(ticket, event)
                if not self._orders.empty() and not self._take_orders():
                    return False
            self._tell_places()
        except Exception:  # the scheduler keeps jobs' errors apart, so this is its own
            log.exception("the scheduler failed")
            self._fail(list(self._handles))
        return True

    def _take_orders(self) -> bool:
        """Waits for one if there is nothing else to do; False when it is time to end."""
        while not self._orders.empty() or not self.scheduler.busy:
            order = self._orders.get()
            if order is None:
                self._fail(list(self._handles))
                return False
            try:
                order()
            except Exception:
                log.exception("an order failed")
        return True

    def _begin(self, handle: Handle, jobs: Sequence[Job], owner: str | None, weight: int) -> None:
        for index, job in enumerate(jobs):
            ticket = self.scheduler.submit(job, owner=owner, weight=weight)
            handle.tickets.append(ticket)
            self._handles[ticket] = handle, index
        if handle.cancelled:
            self._cancel(handle)
        elif self.stopping:
            self._give_back()

    def _tell_places(self) -> None:
        """Those who wait, and want to know, hear how many come before them whenever that has changed."""
        places: dict[Ticket, int] = {}
        for ahead, ticket in enumerate(self.scheduler.waiting.in_turn()):
            handle, index = self._handles[ticket]
            if Queued in handle.wants:
                places[ticket] = ahead
                if self._told.get(ticket) != ahead:
                    handle.push(index, Queued(ahead))
        self._told = places

    def _cancel(self, handle: Handle) -> None:
        for ticket in handle.tickets:
            if ended := self.scheduler.cancel(ticket):
                self._deliver(*ended)

    def _give_back(self) -> None:
        self._fail(list(self.scheduler.waiting))

    def _fail(self, tickets: Sequence[Ticket]) -> None:
        reason = self.stopping or RuntimeError("the scheduler failed")
        for ticket in tickets:
            self.scheduler.cancel(ticket)
            self._deliver(ticket, Failed(reason))

    def _deliver(self, ticket: Ticket, event: Any) -> None:
        found = self._handles.get(ticket)
        if found is None:
            return
        handle, index = found
        if isinstance(event, _LAST):
            del self._handles[ticket]
            with self._lock:
                self._open -= 1
                self._open_of[ticket.owner] -= 1
                self._open_of += Counter()  # forgets those who have none
            if isinstance(event, Finished) and ticket.began is not None:
                took = self.scheduler.clock() - ticket.began
                self.seconds_per_job += 0.1 * (took - self.seconds_per_job)
        if isinstance(event, (*_LAST, *handle.wants)):
            handle.push(index, event)


class Handle:
    """One request's jobs, as its handler sees them. Made and read on one event loop."""

    def __init__(self, worker: Worker, count: int, wants: tuple[type, ...]) -> None:
        self.worker, self.count, self.wants = worker, count, wants
        self.tickets: list[Ticket] = []
        self.left, self.cancelled = count, False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    def push(self, index: int, event: Any) -> None:
        """From any thread; an event that comes after the loop has closed has no reader."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

    def interrupt(self, error: Exception) -> None:
        """Has the reader raise an error instead of waiting on; on the event loop."""
        self._events.put_nowait((0, Failed(error)))

    async def events(self) -> AsyncGenerator[tuple[int, Any], None]:
        """(number of the job, event) until all have ended; whatever ends this ends the jobs. Raises what a job
        failed with, or what it was interrupted with."""
        try:
            while self.left:
                yield self._taken(await self._events.get())
        finally:
            self.close()

    async def batches(self, patience: float, gather: float) -> AsyncGenerator[list[tuple[int, Any]], None]:
        """As `events`, but all that comes within `gather` seconds at once, and an empty list where nothing has
        come for `patience` seconds. Cancelled jobs end it too."""
        try:
            while self.left:
                found: list[tuple[int, Any]] = []
                end = self._loop.time() + patience
                while self.left and (wait := end - self._loop.time()) > 0:
                    try:
                        found.append(self._taken(await asyncio.wait_for(self._events.get(), wait)))
                    except (TimeoutError, asyncio.TimeoutError):
                        break
                    end = end if len(found) > 1 else self._loop.time() + gather
                yield found
        finally:
            self.close()

    def _taken(self, news: tuple[int, Any]) -> tuple[int, Any]:
        _, event = news
        if isinstance(event, Failed):
            raise event.error
        self.left -= isinstance(event, (Finished, Cancelled))
        return news

    def close(self) -> None:
        """Ends the jobs that have not ended."""
        if self.left and not self.cancelled:
            self.cancelled = True
            self.worker.cancel(self)


def places_for(bagel: Bagel) -> int:
    """Tokens that contexts may hold together: on the CPU a quarter of the machine's memory; on a GPU its room counts
    each request's bytes, so that tokens need no limit."""
    runtime, llm = bagel.runtime, bagel.config.llm
    model = runtime.checkpoint.model
    if runtime.room.free is not None:
        return sys.maxsize
    width = llm.num_key_value_heads * llm.head_dim * torch.empty((), dtype=model.dtype).element_size()
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**34
    return max(whole // 4 // (2 * llm.num_hidden_layers * width), llm.max_position_embeddings)


def weight_of(
    items: Sequence[Input], image: ImageOptions | None = None, text: TextOptions | None = None, *, held: int = 0
) -> int:
    """Tokens that a request's contexts may hold, guessed from above. items: what it reads; image, text: what it
    draws and writes, settled; held: tokens read before."""
    read = sum(len(item) if isinstance(item, str) else item.width * item.height // 64 for item in items)
    drawn = (image.height or 1024) * (image.width or 1024) // 64 if image else 0
    thought = image.max_tokens if image and image.think else 0
    return held + read + drawn + (thought or 0) + (text.max_tokens or 0 if text else 0)
