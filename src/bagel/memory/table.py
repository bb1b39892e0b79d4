"""A plan as lines to read, or as JSON."""

from __future__ import annotations

from typing import Any

from bagel.memory.plan import Plan, gib

_TITLES = {
    "und": "und expert",
    "gen": "gen expert",
    "embed": "embedding table",
    "head": "head",
    "vit": "ViT",
    "vae": "autoencoder",
    "rest": "small parts",
}
_PHASES = {
    "read": "reading",
    "encode": "encoding a picture",
    "write": "writing",
    "draw": "an update",
    "decode": "decoding the picture",
}
_TAKES = {
    "read": "keys, values and activations",
    "encode": "the autoencoder's widest maps",
    "write": "keys, values and activations",
    "draw": "keys, values and activations",
    "decode": "the autoencoder's widest maps",
}


def table(plan: Plan) -> str:
    """What is done, what lies where, the work of each phase, and the expected peak."""
    setup = plan.setup
    rows = [(title, gib(plan.weights.parts[part]), plan.where(part)) for part, title in _TITLES.items()]
    rows.append(("weights on the card", gib(plan.resident), setup.words))
    tiles = f", in tiles of {setup.tile} pixels" if setup.tile else ""
    for name, size in plan.phases.items():
        rows.append((_PHASES[name], gib(size), _TAKES[name] + (tiles if name in ("encode", "decode") else "")))
    rows.append(("expected peak", gib(plan.peak), f"and {gib(plan.headroom)} headroom"))
    rows.append(("free", gib(plan.card.free), plan.card.name))
    if plan.moved:
        rows.append(("moved in an update", gib(plan.moved), "from the host, while layers compute"))
    return "\n".join([_job(plan), *(f"{name:<21} {size:>9}  {where}".rstrip() for name, size, where in rows)])


def _job(plan: Plan) -> str:
    """What was planned for, in words."""
    demand = plan.demand
    said = [f"{demand.read:,} tokens read"]
    if demand.max_tokens:
        said.append(f"{demand.max_tokens:,} written")
    if demand.height:
        said += [f"a picture of {demand.width} x {demand.height} drawn", f"{demand.branches} branches of guidance"]
    return ", ".join(said) + (f"; {demand.batch} of these at once" if demand.batch > 1 else "")


def as_json(plan: Plan) -> dict[str, Any]:
    setup = plan.setup
    return {
        "card": plan.card.name,
        "free": plan.card.free,
        "fits": plan.fits,
        "precision": setup.precision,
        "offload": list(setup.offload),
        "tile": setup.tile,
        "slots": setup.slots,
        "weights": {part: {"bytes": size, "where": plan.where(part)} for part, size in plan.weights.parts.items()},
        "resident": plan.resident,
        "phases": plan.phases,
        "headroom": plan.headroom,
        "peak": plan.peak,
        "moved_in_an_update": plan.moved,
    }
