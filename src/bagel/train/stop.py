"""When a training is to end: asked to by a signal, or by the clock."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Stop:
    """Whether somebody asked this process to end, and by when it must."""

    asked: bool = False
    end: float = math.inf

    @property
    def seconds_left(self) -> float:
        """Infinite where no end is set."""
        return max(0.0, self.end - time.monotonic())

    def __bool__(self) -> bool:
        return self.asked or time.monotonic() > self.end


@contextmanager
def stop_asked(end: float = math.inf) -> Iterator[Stop]:
    """SIGTERM, and the first Ctrl-C, end the run after the present step; a second Ctrl-C ends it at once."""
    stop, before = Stop(end=end), {}

    def ask(number: int, frame: object) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: whoever runs this handles signals
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
