"""The plan of layers over several devices: each has its layers, their keys and values, and a pass; the first has
all else as well."""

from __future__ import annotations

from collections.abc import Sequence

from bagel.errors import MemoryPlanError
from bagel.memory.cards import Card
from bagel.memory.plan import Setup, gib, headroom
from bagel.memory.sizes import Demand, held_bytes, phases, weights_of
from bagel.memory.split import shares
from bagel.model.config import ModelConfig


def split_peaks(config: ModelConfig, cards: Sequence[Card], demand: Demand, setup: Setup) -> list[int]:
    """Expected peak of each device."""
    weights = weights_of(config, setup.dtype, setup.packed)
    widened = any(card.widens(setup.packed) for card in cards)
    work = phases(config, demand, setup.dtype, widened=widened)
    layers = weights.parts["und"] + weights.parts["gen"]
    _, held = held_bytes(config, demand, setup.dtype)
    counts = shares(config.llm.num_hidden_layers, len(cards))
    peaks = []
    for index, count in enumerate(counts):
        share = count / config.llm.num_hidden_layers
        here = {name: size - int(held * (1 - share)) for name, size in work.items() if name not in ("encode", "decode")}
        if index == 0:
            here |= {name: size for name, size in work.items() if name in ("encode", "decode")}
        rest = weights.total - layers if index == 0 else 0
        peaks.append(int(layers * share) + rest + max(*here.values(), 0))
    return peaks


def check_split(config: ModelConfig, cards: Sequence[Card], demand: Demand, setup: Setup) -> None:
    """Raises MemoryPlanError, naming the first device that is too small."""
    for index, (card, peak) in enumerate(zip(cards, split_peaks(config, cards, demand, setup), strict=True)):
        needed = peak + headroom(peak // 10)
        if needed > card.free:
            raise MemoryPlanError(
                f"{setup.words} over {len(cards)} devices needs {gib(needed)} on number {index}, {card.name}, which "
                f"has {gib(card.free)} free; use more devices, or --precision fp8, int8 or nf4."
            )
