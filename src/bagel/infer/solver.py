"""From the velocity at a time to the latents at the next.

Letters: G latent tokens of one image, Z numbers in a latent token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Branches = Mapping[str, Tensor]
"""Velocities [G, Z] of one image by branch of guidance."""


class Euler:
    """The velocity at `t` is followed to `t_next` (upstream's way). guided: makes one velocity of the branches'."""

    def __init__(self, guided: Callable[[Branches], Tensor]) -> None:
        self.guided = guided

    def slope(self, t: float, t_next: float, velocity: Branches) -> tuple[Tensor, Tensor]:
        """-> the guided velocity at t, and what is followed to t_next, [G, Z] both."""
        v = self.guided(velocity)
        return v, v


class AdamsBashforth(Euler):
    """Second order, of two steps: the velocity is taken to go on changing as it did since the time before. The steps
    are uneven. No model call is added, and the first update is Euler's.

    The branches of the time before are guided as those of now are, so that the end of the guidance interval is not
    taken for a change of the velocity; where one of now was not computed then, the update is Euler's.
    """

    def __init__(self, guided: Callable[[Branches], Tensor]) -> None:
        super().__init__(guided)
        self._before: tuple[float, Branches] | None = None

    def slope(self, t: float, t_next: float, velocity: Branches) -> tuple[Tensor, Tensor]:
        v, before = self.guided(velocity), self._before
        self._before = t, velocity
        if before is None or not velocity.keys() <= before[1].keys():
            return v, v
        earlier = self.guided({name: before[1][name] for name in velocity})
        return v, v + (v - earlier) * ((t - t_next) / (2 * (before[0] - t)))


SOLVERS: dict[str, type[Euler]] = {"euler": Euler, "ab2": AdamsBashforth}
"""By the names of `bagel.options.SOLVERS`."""
