"""The thread that runs the model. Requests hand it jobs and get their events back on the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import torch

from bagel.app.server.problems import ApiError, ClientGoneError, api_error_of
from bagel.infer.engine import Engine, Finished, Job
from bagel.infer.scheduler import Cancelled, Failed, Limits, Scheduler, Ticket

log = logging.getLogger("bagel.serve")
_LAST = (Finished, Failed, Cancelled)


class Worker:
    """Owns the scheduler; other threads leave orders, which it takes between two passes."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.most = limits.active + limits.queue
        self.scheduler = Scheduler(engine, limits)
        self.stopping: ApiError | None = None
        self.seconds_per_job = 1.0
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._handles: dict[Ticket, tuple[Handle, int]] = {}
        self._open, self._lock = 0, threading.Lock()
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
        """Queues all jobs of a request or none; call it on the event loop. wants: events to hand out besides the
        last. Raises ApiError: 429 if the queue is full, 503 if the server is stopping."""
        with self._lock:
            if self.stopping:
                raise self.stopping
            if self._open + len(jobs) > self.most:
                self.scheduler.metrics.ended["refused"] += len(jobs)
                text = f"{self._open} jobs are under way or waiting, and no more can; try again later."
                raise ApiError(429, text, "queue_full", retry_after=self.wait_estimate())
            self._open += len(jobs)
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
        text = "the server is stopping; try again in a moment."
        self.stopping = self.stopping or ApiError(503, text, "shutting_down", retry_after=5)
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

    def _cancel(self, handle: Handle) -> None:
        for ticket in handle.tickets:
            if ended := self.scheduler.cancel(ticket):
                self._deliver(*ended)

    def _give_back(self) -> None:
        self._fail(list(self.scheduler.waiting))

    def _fail(self, tickets: Sequence[Ticket]) -> None:
        reason = self.stopping or ApiError(500, "the server failed on this request.", "internal_error")
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
            if isinstance(event, Finished) and ticket.began is not None:
                took = self.scheduler.clock() - ticket.began
                self.seconds_per_job += 0.1 * (took - self.seconds_per_job)
        if isinstance(event, (*_LAST, *handle.wants)):
            handle.push(index, event)


class Handle:
    """One request's jobs, as its handler sees them."""

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

    async def events(self, gone: asyncio.Task[None], deadline: float) -> AsyncIterator[tuple[int, Any]]:
        """(number of the job, event) until all have ended; whatever ends this ends the jobs. gone: done when
        the client has left; deadline: in the loop's time. Raises ApiError or ClientGoneError."""
        late = ApiError(503, "the request took too long; ask for less, or try again later.", "timeout", retry_after=10)
        gone.add_done_callback(lambda task: self._events.put_nowait((0, Failed(ClientGoneError()))))
        timer = self._loop.call_at(deadline, self._events.put_nowait, (0, Failed(late)))
        try:
            while self.left:
                index, event = await self._events.get()
                if isinstance(event, Failed):
                    raise event.error if isinstance(event.error, ClientGoneError) else _told(event.error)
                self.left -= isinstance(event, Finished)
                yield index, event
        finally:
            timer.cancel()
            self.close()

    def close(self) -> None:
        """Ends the jobs that have not ended."""
        if self.left and not self.cancelled:
            self.cancelled = True
            self.worker.cancel(self)


def _told(error: Exception) -> ApiError:
    problem = api_error_of(error)
    if problem.status == 500:
        log.error("a job failed", exc_info=error)
    return problem
