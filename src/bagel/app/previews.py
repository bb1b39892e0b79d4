"""Pictures as they look while they are being drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from bagel.infer.conversation import Runtime
from bagel.infer.engine import Job
from bagel.infer.image import ImageStep


@dataclass(frozen=True)
class Preview:
    """A picture as it looks on the way; `number` counts a request's previews from 0."""

    image: Image.Image
    number: int = 0


class Evenly:
    """So many previews of each picture, evenly spread over its updates."""

    def __init__(self, count: int) -> None:
        self.count = count

    def wants(self, step: ImageStep) -> bool:
        return step.update in {step.updates * (i + 1) // (self.count + 1) for i in range(self.count)}

    def spent(self, seconds: float) -> None:
        """Takes note of what a preview has cost."""


class Pace(Evenly):
    """As many as cost at most one part in `rest` of the time. drawing: how many jobs share that time."""

    rest, least = 8, 0.3

    def __init__(self, drawing: Callable[[], int]) -> None:
        self._drawing, self._next = drawing, time.perf_counter()

    def wants(self, step: ImageStep) -> bool:
        return step.update < step.updates and time.perf_counter() >= self._next

    def spent(self, seconds: float) -> None:
        self._next = time.perf_counter() + max(seconds * self.rest * self._drawing(), self.least)


def with_previews(runtime: Runtime, job: Job, pace: Evenly) -> Job:
    """The job, with a Preview behind each step that is to have one. The steps go on without their latents, whose
    memory nobody is to hold on to."""
    answer: Any = None
    number = 0
    try:
        while True:
            said = job.send(answer)
            if not isinstance(said, ImageStep):
                answer = yield said
                continue
            answer = None
            yield replace(said, latent=said.latent.new_empty(0, said.latent.shape[1]))
            if pace.wants(said):
                image, seconds = yield from runtime.engine.aside(_timed, runtime.decode, said.latent, said.grid)
                pace.spent(seconds)
                yield Preview(image, number)
                number += 1
    except StopIteration as stop:
        return stop.value
    finally:
        job.close()


def _timed(decode: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """And the seconds of the work itself, without the wait for its turn."""
    began = time.perf_counter()
    return decode(*arguments), time.perf_counter() - began
