"""One model for all who have the page open: a thread that loads it and then does one task after the other.

Tasks are functions that run on that thread and report events; the page reads the events from a queue. A task
whose reader stops, or is gone, ends at its next event, and with it the generators that hold its contexts.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bagel.errors import BagelError
from bagel.infer.pipeline import Bagel

Emit = Callable[[int, Any], None]
"""Reports (number of the request, event); raises Stopped where the task is to end."""
Work = Callable[[Bagel, Emit], Any]

GATHER = 0.2
"""Seconds between two looks at a task's events."""

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The task was taken back."""


@dataclass(frozen=True)
class Waiting:
    """Nothing new yet; so many tasks come before this one."""

    ahead: int


@dataclass(frozen=True)
class Done:
    """The last event of a task: what it gave, or what ended it."""

    result: Any = None
    error: BaseException | None = None


@dataclass(eq=False)
class Task:
    work: Work
    owner: str
    events: queue.SimpleQueue[tuple[int, Any]] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)

    def emit(self, index: int, event: Any) -> None:
        if self.stop.is_set():
            raise Stopped
        self.events.put((index, event))

    def take(self, patience: float) -> list[tuple[int, Any]]:
        """All that has come; waits for something, and after that a moment for more, so that a browser is not
        drowned in news."""
        found: list[tuple[int, Any]] = []
        try:
            found.append(self.events.get(timeout=patience))
            end = time.perf_counter() + GATHER
            while not isinstance(found[-1][1], Done):
                found.append(self.events.get(timeout=max(end - time.perf_counter(), 0)))
        except queue.Empty:
            pass
        return found


class Host:
    """load: loads the model; is given the function to report (bytes read, bytes in all) to."""

    def __init__(self, load: Callable[[Callable[[int, int], None]], Bagel]) -> None:
        self._load = load
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self.model: Bagel | None = None
        self.error: BaseException | None = None
        self.loaded = (0, 0)

    def start(self) -> None:
        threading.Thread(target=self._live, name="bagel model", daemon=True).start()

    def run(self, work: Work, owner: str, patience: float = 0.5) -> Iterator[list[tuple[int, Any]]]:
        """Events of a task as they come, many at once where the reader was slow; the last is (0, Done).
        Closing the iterator stops the task."""
        task = Task(work, owner)
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()
        try:
            while True:
                found = task.take(patience)
                yield found or [(0, Waiting(self._ahead(task)))]
                if found and isinstance(found[-1][1], Done):
                    return
        finally:
            task.stop.set()

    def stop(self, owner: str) -> None:
        """Ends the tasks of an owner, or of all owners that begin so."""
        with self._changed:
            for task in self._tasks:
                if task.owner.startswith(owner):
                    task.stop.set()

    def _ahead(self, task: Task) -> int:
        with self._changed:
            return self._tasks.index(task) if task in self._tasks else 0

    def _live(self) -> None:
        try:
            self.model = self._load(self._report)
        except Exception as error:
            self.error = error
            log.error("loading failed: %s", error, exc_info=not isinstance(error, BagelError))
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._tasks))
                task = self._tasks[0]
            done = self._do(task)
            with self._changed:
                self._tasks.popleft()
            task.events.put((0, done))

    def _do(self, task: Task) -> Done:
        try:
            if self.model is None:
                assert self.error is not None
                return Done(error=self.error)
            if task.stop.is_set():
                return Done(error=Stopped())
            return Done(task.work(self.model, task.emit))
        except (Stopped, BagelError) as error:
            return Done(error=error.with_traceback(None))  # its frames hold the contexts
        except Exception as error:
            log.exception("a task failed")
            return Done(error=error.with_traceback(None))

    def _report(self, done: int, total: int) -> None:
        self.loaded = (done, total)
