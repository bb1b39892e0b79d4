"""Reuse between the updates of a drawing: which branches of guidance an update computes, and what stands for the
others. One object per drawing.

Letters: G latent tokens of one image, Z numbers in a latent token, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Streams = Mapping[str, Tensor]
"""Residual streams [G, D] behind the last layer, by branch."""
Head = Callable[[Tensor], Tensor]
"""A residual stream -> velocity [G, Z]."""


class Exact:
    """Every branch is computed in every update. same_as: for each branch the first whose context is equal, which is
    computed for both; the first branch is the one that guidance starts from."""

    def __init__(self, same_as: Mapping[str, str], head: Head) -> None:
        self.same_as, self.head = same_as, head

    def wanted(self, names: Sequence[str]) -> list[str]:
        """Which of an update's branches are to be computed."""
        return list(names)

    def velocities(self, names: Sequence[str], t: float, streams: Streams) -> dict[str, Tensor]:
        """All of an update's branches. streams: of those that were computed, by the first with an equal context."""
        found = {name: self.head(stream) for name, stream in streams.items()}
        return {name: found[self.same_as[name]] for name in names}


class TaylorSeer:
    """Forecasts the residual stream after the last layer by its finite differences (arXiv 2503.06923; upstream
    `modeling/cache_utils/taylorseer.py`). One object per guidance branch and image; steps are counted in the
    branch's own calls. Upstream keeps a cache in every layer, but each layer's forecast overwrites the one before
    it, so only the last one's matters.
    """

    warm_steps = 5
    interval = 3
    max_order = 6

    def __init__(self) -> None:
        self._calls = 0
        self._computed_at: list[int] = []
        self._differences: list[Tensor] = []

    @property
    def forecasts_next(self) -> bool:
        """Whether the next step can do without the model."""
        return self._calls >= self.warm_steps and self._calls - self._computed_at[-1] < self.interval

    def step(self, computed: Tensor | None) -> Tensor:
        """Takes the stream if it was computed, forecasts it if not (None); -> the stream to go on with."""
        if computed is not None:
            self._update(computed)
        elif not self.forecasts_next:
            raise RuntimeError("this step cannot be forecast")
        stream = self._differences[0] if computed is not None else self._forecast()
        self._calls += 1
        return stream

    def _update(self, stream: Tensor) -> None:
        differences = [stream]
        if self._computed_at and self._calls > 3:
            distance = self._calls - self._computed_at[-1]
            for old in self._differences[: self.max_order]:
                differences.append((differences[-1] - old) / distance)
        self._differences = differences
        self._computed_at.append(self._calls)

    def _forecast(self) -> Tensor:
        distance = self._calls - self._computed_at[-1]
        terms = (
            difference * (distance**order / math.factorial(order)) for order, difference in enumerate(self._differences)
        )
        total = next(terms)
        for term in terms:
            total = total + term
        return total


class Seers(Exact):
    """A TaylorSeer for every branch, also for one whose context equals another's, since it counts its own calls."""

    def __init__(self, same_as: Mapping[str, str], head: Head) -> None:
        super().__init__(same_as, head)
        self._seers = {name: TaylorSeer() for name in same_as}

    def wanted(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self._seers[name].forecasts_next]

    def velocities(self, names: Sequence[str], t: float, streams: Streams) -> dict[str, Tensor]:
        fresh = self.wanted(names)
        return {
            name: self.head(self._seers[name].step(streams[self.same_as[name]] if name in fresh else None))
            for name in names
        }


class Line:
    """Something that changes with time, computed in the first `warm` updates and then in every `interval`-th, and
    between them taken to go on as a straight line over log((1 - t) / t): half the logarithm of the signal-to-noise
    ratio, in which a denoiser's answer changes far more evenly than in t or in the number of the update.
    """

    warm = 3

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self._updates = 0
        self._points: list[tuple[float, Tensor]] = []

    @property
    def goes_on(self) -> bool:
        """Whether the next update can do without a computed value."""
        return self._updates >= self.warm and (self._updates - self.warm + 1) % self.interval != 0

    def step(self, t: float, computed: Tensor | None) -> Tensor:
        """The value at time t of the next update: computed, or None."""
        self._updates += 1
        if computed is not None:
            self._points = [*self._points[-1:], (_log_ratio(t), computed)]
            return computed
        (before, old), (last, new) = self._points
        return new + (new - old) * ((_log_ratio(t) - last) / (last - before))


def _log_ratio(t: float) -> float:
    """Of signal to noise at time t; finite at t = 1, which is noise alone."""
    return math.log((1.001 - t) / t)


class Forecast(Exact):
    """The velocity of every branch is a `Line`. Branches whose contexts are equal share one."""

    def __init__(self, same_as: Mapping[str, str], head: Head, interval: int) -> None:
        super().__init__(same_as, head)
        self._lines = {name: Line(interval) for name in dict.fromkeys(same_as.values())}

    def wanted(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self._lines[self.same_as[name]].goes_on]

    def velocities(self, names: Sequence[str], t: float, streams: Streams) -> dict[str, Tensor]:
        firsts = dict.fromkeys(self.same_as[name] for name in names)
        found = {
            name: self._lines[name].step(t, self.head(streams[name]) if name in streams else None) for name in firsts
        }
        return {name: found[self.same_as[name]] for name in names}


class GuidanceReuse(Exact):
    """The first branch is computed in every update; how far each other one is from it is a `Line`."""

    interval = 3

    def __init__(self, same_as: Mapping[str, str], head: Head) -> None:
        super().__init__(same_as, head)
        self._first = next(iter(same_as))
        others = dict.fromkeys(name for name in same_as.values() if name != self._first)
        self._lines = {name: Line(self.interval) for name in others}

    def wanted(self, names: Sequence[str]) -> list[str]:
        lines = self._lines
        return [name for name in names if (first := self.same_as[name]) not in lines or not lines[first].goes_on]

    def velocities(self, names: Sequence[str], t: float, streams: Streams) -> dict[str, Tensor]:
        base = self.head(streams[self._first])
        found = {self._first: base}
        for name in dict.fromkeys(self.same_as[name] for name in names if self.same_as[name] != self._first):
            computed = base - self.head(streams[name]) if name in streams else None
            found[name] = base - self._lines[name].step(t, computed)
        return {name: found[self.same_as[name]] for name in names}


def reuse_for(step_cache: str | None, same_as: Mapping[str, str], head: Head) -> Exact:
    """By the names of `bagel.options.STEP_CACHES`; None computes everything."""
    if step_cache is None:
        return Exact(same_as, head)
    if step_cache == "taylorseer":
        return Seers(same_as, head)
    if step_cache == "guidance":
        return GuidanceReuse(same_as, head)
    return Forecast(same_as, head, interval={"forecast3": 3, "forecast5": 5}[step_cache])
