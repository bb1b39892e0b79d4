"""One model for all who have the page open: it is loaded behind the page, and then runs what they ask for side by
side, as the server does (`app/worker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bagel.app.previews import Pace, Preview
from bagel.app.worker import Handle, Queued, Worker, places_for
from bagel.errors import BagelError
from bagel.infer.engine import Finished, Job
from bagel.infer.image import ImageStep
from bagel.infer.pipeline import Bagel
from bagel.infer.result import ImageDone, TextDone
from bagel.infer.scheduler import Limits
from bagel.infer.text import TextPiece

PATIENCE, GATHER = 0.5, 0.2
"""Seconds after which a task says that there is nothing new, and between two looks at its events: a browser must
not drown in news."""
WANTS = (TextPiece, TextDone, ImageStep, ImageDone, Preview, Queued)

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The task was taken back."""


@dataclass(frozen=True)
class Loading:
    """The model is not there yet."""


@dataclass(frozen=True)
class Done:
    """The last event of a task: the results of its jobs in order, or what ended it."""

    results: Sequence[Any] = ()
    error: BaseException | None = None


@dataclass(frozen=True)
class Order:
    """What a task has the model do. weight: of each job, see `worker.weight_of`."""

    jobs: Sequence[Job]
    weight: int = 0


Work = Callable[[Bagel, Callable[[], Pace]], Order]
"""Given the model and what makes a pace for previews, when the model is there."""
News = list[tuple[int, Any]]
"""(number of the job, event), as they came."""


@dataclass(eq=False)
class _Task:
    owner: str
    stopped: bool = False
    handle: Handle | None = None
    results: dict[int, Any] = field(default_factory=dict)


class Host:
    """load: loads the model; is given the function to report (bytes read, bytes in all) to."""

    def __init__(self, load: Callable[[Callable[[int, int], None]], Bagel], limits: Limits | None = None) -> None:
        self._load, self._limits = load, limits
        self._tasks: set[_Task] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.model: Bagel | None = None
        self.worker: Worker | None = None
        self.error: Exception | None = None
        self.loaded = (0, 0)

    @property
    def most_kept(self) -> int:
        """Tokens that the contexts of idle conversations may hold: half of what all contexts may."""
        return self.worker.scheduler.limits.places // 2 if self.worker else 0

    def start(self) -> None:
        threading.Thread(target=self._live, name="bagel-loading", daemon=True).start()

    def close(self) -> None:
        """Ends all tasks, and the model's thread."""
        if self.worker is not None:
            self.worker.stop()

    async def run(self, work: Work, owner: str) -> AsyncGenerator[News, None]:
        """Events of a task as they come, several at once where they came fast; the last is (0, Done). Closing the
        iterator stops the task. owner: visitor/tab/; visitors take turns where they have to wait."""
        task = _Task(owner)
        self._tasks.add(task)
        self._loop = asyncio.get_running_loop()
        try:
            async with contextlib.aclosing(self._news(task, work)) as all_news:
                async for news in all_news:
                    yield news
            done = Done([task.results[index] for index in sorted(task.results)])
            yield [(0, Done(error=Stopped()) if task.stopped else done)]
        except Exception as error:
            if not isinstance(error, BagelError):
                log.error("a task failed", exc_info=error)
            yield [(0, Done(error=error.with_traceback(None)))]  # its frames hold the contexts
        finally:
            self._tasks.discard(task)
            if task.handle is not None:
                task.handle.close()

    def stop(self, owner: str) -> None:
        """Ends the tasks of an owner, or of all owners that begin so; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop, owner)

    def _stop(self, owner: str) -> None:
        for task in self._tasks:
            if task.owner.startswith(owner):
                task.stopped = True
                if task.handle is not None:
                    task.handle.close()

    async def _news(self, task: _Task, work: Work) -> AsyncGenerator[News, None]:
        while self.worker is None and self.error is None and not task.stopped:
            yield [(0, Loading())]
            await asyncio.sleep(PATIENCE)
        if self.error is not None:
            raise self.error
        if task.stopped:
            return
        assert self.model is not None
        assert self.worker is not None
        order = work(self.model, self._pace)
        visitor = task.owner.partition("/")[0]
        task.handle = self.worker.submit(order.jobs, owner=visitor, weight=order.weight, wants=WANTS)
        yield [(0, Queued(0))]
        async with contextlib.aclosing(task.handle.batches(PATIENCE, GATHER)) as batches:
            async for batch in batches:
                task.results |= {index: event.result for index, event in batch if isinstance(event, Finished)}
                yield [(index, event) for index, event in batch if isinstance(event, WANTS)]

    def _pace(self) -> Pace:
        assert self.worker is not None
        active = self.worker.scheduler.active
        return Pace(lambda: len(active))

    def _live(self) -> None:
        try:
            model = self._load(self._report)
            limits = self._limits or Limits(places=places_for(model), beside=True)
            worker = Worker(model.runtime.engine, limits)
            worker.start()
            self.model, self.worker = model, worker
        except Exception as error:
            self.error = error
            log.error("loading failed: %s", error, exc_info=not isinstance(error, BagelError))

    def _report(self, done: int, total: int) -> None:
        self.loaded = (done, total)
