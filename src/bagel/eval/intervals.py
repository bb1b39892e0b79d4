"""How sure a share is."""

from __future__ import annotations

import math

Z = 1.959964
"""95 % of a normal distribution lie within so many deviations."""


def wilson(right: int, count: int, z: float = Z) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) of nothing."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
