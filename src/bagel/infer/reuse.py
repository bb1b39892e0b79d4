"""Feature reuse between denoising steps: TaylorSeer (arXiv 2503.06923; upstream
`modeling/cache_utils/taylorseer.py`)."""

from __future__ import annotations

import math

from torch import Tensor


class TaylorSeer:
    """Forecasts the residual stream after the last layer by its finite differences. One object per guidance
    branch and image; steps are counted in the branch's own calls. Upstream keeps a cache in every layer,
    but each layer's forecast overwrites the one before it, so only the last one's matters.
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
