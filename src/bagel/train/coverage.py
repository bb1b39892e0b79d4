"""How much of a model comes from files: printed when training starts, since a model that was not really loaded
looks much like one that learns slowly."""

from __future__ import annotations

from collections import defaultdict
from enum import Enum


class Origin(Enum):
    FILE = "from files"
    UND = "copied from und"
    NEW = "new"


_PARTS = (
    ("decoder.layers.", None),
    ("decoder.", "final norms"),
    ("embed.", "embeddings"),
    ("lm_head.", "language head"),
    ("vit.", "ViT"),
    ("connector.", "connector"),
    ("latent_in.", "latent input"),
    ("latent_out.", "velocity head"),
    ("time.", "time embedding"),
    ("vae.", "autoencoder"),
)


def part_of(parameter: str) -> str:
    """The part of the model that a parameter belongs to, in words."""
    for prefix, part in _PARTS:
        if parameter.startswith(prefix):
            return part or ("und expert" if ".und." in parameter else "gen expert")
    return "other"


class Coverage:
    """Counts of numbers by part and origin."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[Origin, int]] = defaultdict(lambda: dict.fromkeys(Origin, 0))

    def add(self, parameter: str, count: int, origin: Origin) -> None:
        self.parts[part_of(parameter)][origin] += count

    def total(self, origin: Origin | None = None) -> int:
        return sum(n for counts in self.parts.values() for o, n in counts.items() if origin in (None, o))

    @property
    def share(self) -> float:
        """Of all numbers, the share that files gave."""
        return self.total(Origin.FILE) / max(self.total(), 1)

    def lines(self) -> list[str]:
        """A table, one line a part, as it is printed at the start of a run."""
        out = [f"{'part':<16}{'parameters':>16}  base weights"]
        for part, counts in self.parts.items():
            out.append(f"{part:<16}{sum(counts.values()):>16,}  {_describe(counts)}")
        totals = {origin: self.total(origin) for origin in Origin}
        return [*out, f"{'all':<16}{self.total():>16,}  {_describe(totals)}"]


def _describe(counts: dict[Origin, int]) -> str:
    total = max(sum(counts.values()), 1)
    return ", ".join(f"{100 * n / total:.4g} % {origin.value}" for origin, n in counts.items() if n)
