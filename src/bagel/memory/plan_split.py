"""The plan of layers over several devices: each has its layers, their keys and values, and a pass; the first has
all else as well."""

from __future__ import annotations

from collections.abc import Sequence

from bagel.errors import MemoryPlanError
from bagel.memory.cards import Card
from bagel.memory.plan import Setup, gib, headroom, recommended, setup_for
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


def check_split(
    config: ModelConfig, cards: Sequence[Card], demand: Demand, setup: Setup, *, packed: bool = False
) -> None:
    """Raises MemoryPlanError, naming the first device that is too small, and the precisions that would fit. packed:
    the weights are stored in this precision and in no other."""

    def needed(setup: Setup) -> list[int]:
        return [peak + headroom(peak // 10) for peak in split_peaks(config, cards, demand, setup)]

    def fits(setup: Setup) -> bool:
        return all(size <= card.free for size, card in zip(needed(setup), cards, strict=True))

    if fits(setup):
        return
    sizes = needed(setup)
    index = next(i for i, card in enumerate(cards) if sizes[i] > card.free)
    smaller = [] if packed else [p for p in recommended(cards[0])[1:] if fits(setup_for(cards[0], p))]
    instead = f", or --precision {' or '.join(smaller)}" if smaller else ""
    raise MemoryPlanError(
        f"{setup.words} over {len(cards)} devices needs {gib(sizes[index])} on number {index}, {cards[index].name}, "
        f"which has {gib(cards[index].free)} free; use more devices{instead}."
    )
