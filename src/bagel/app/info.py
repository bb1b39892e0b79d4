"""What a model folder holds, from its configuration and the headers of its files alone."""

from __future__ import annotations

from typing import Any

from bagel import checkpoint
from bagel.infer.pipeline import find_model


def describe(model: str) -> dict[str, Any]:
    """Sizes and counts as one JSON object. Raises CheckpointError for a folder that would not load."""
    folder = find_model(model)
    config = checkpoint.read_config(folder)
    bagel, vae = checkpoint.build(config)
    parts = {
        "und expert": _count(bagel, ".und."),
        "gen expert": _count(bagel, ".gen."),
        "embeddings and heads": _count(bagel, "embed.", "lm_head.", "latent_", "time.", "connector."),
        "vit": _count(bagel, "vit."),
        "vae": sum(p.numel() for p in vae.parameters()),
    }
    return {
        "folder": str(folder),
        "layers": config.llm.layers.value,
        "hidden_size": config.llm.hidden_size,
        "num_hidden_layers": config.llm.num_hidden_layers,
        "num_attention_heads": config.llm.num_attention_heads,
        "num_key_value_heads": config.llm.num_key_value_heads,
        "vocab_size": config.llm.vocab_size,
        "vit_layers": config.vit.num_built_layers,
        "largest_picture": config.max_image_side,
        "context": config.llm.max_position_embeddings,
        "parameters": {**parts, "all": sum(p.numel() for p in bagel.parameters()) + parts["vae"]},
        "files": {p.name: p.stat().st_size for p in sorted(folder.glob("*.safetensors"))},
    }


def _count(module: Any, *marks: str) -> int:
    return sum(
        p.numel()
        for name, p in module.named_parameters()
        if any(mark in f".{name}" if mark.startswith(".") else name.startswith(mark) for mark in marks)
    )


def table(facts: dict[str, Any]) -> str:
    """The facts as aligned lines."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{key}: {name}", f"{number:,}") for name, number in value.items()]
        else:
            rows.append((key, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {value}" for name, value in rows)
