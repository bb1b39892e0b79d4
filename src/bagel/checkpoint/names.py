"""The published names of tensors, and where each lies in our parameters. They stand here and nowhere else."""

from __future__ import annotations

import re
from typing import NamedTuple

from bagel.model.bagel import BagelModel

COMPUTED = {"latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"}
"""Fixed sine tables that official files store. They are computed, so that a model loads with another
`max_latent_size` than it was saved with."""


class Piece(NamedTuple):
    """Where a published tensor lies in a parameter of ours: rows start : start + rows (None: all of it)."""

    parameter: str
    start: int
    rows: int | None


_LAYER = r"decoder\.layers\.(\d+)\.(und|gen)\."
_OURS = r"language_model.model.layers.\1."
_NAMES: list[tuple[str, tuple[str, ...]]] = [
    (r"embed\.weight", ("language_model.model.embed_tokens.weight",)),
    (r"lm_head\.weight", ("language_model.lm_head.weight",)),
    (r"decoder\.(und|gen)_norm\.weight", (r"language_model.model.norm{\1}.weight",)),
    (_LAYER + r"input_norm\.weight", (_OURS + r"input_layernorm{\2}.weight",)),
    (_LAYER + r"post_norm\.weight", (_OURS + r"post_attention_layernorm{\2}.weight",)),
    (_LAYER + r"qkv\.(.*)", tuple(_OURS + rf"self_attn.{x}_proj{{\2}}.\3" for x in "qkv")),
    (_LAYER + r"([qk]_norm)\.weight", (_OURS + r"self_attn.\3{\2}.weight",)),
    (_LAYER + r"o\.weight", (_OURS + r"self_attn.o_proj{\2}.weight",)),
    (_LAYER + r"mlp\.gate_up\.weight", tuple(_OURS + rf"mlp{{\2}}.{x}_proj.weight" for x in ("gate", "up"))),
    (_LAYER + r"mlp\.down\.weight", (_OURS + r"mlp{\2}.down_proj.weight",)),
    (r"connector\.(.*)", (r"connector.\1",)),
    (r"latent_in\.(.*)", (r"vae2llm.\1",)),
    (r"latent_out\.(.*)", (r"llm2vae.\1",)),
    (r"time\.mlp\.fc1\.(.*)", (r"time_embedder.mlp.0.\1",)),
    (r"time\.mlp\.fc2\.(.*)", (r"time_embedder.mlp.2.\1",)),
    (r"vit\.patch\.(.*)", (r"vit_model.vision_model.embeddings.patch_embedding.\1",)),
    (r"vit\.position\.(.*)", (r"vit_model.vision_model.embeddings.position_embedding.\1",)),
    (r"vit\.post_norm\.(.*)", (r"vit_model.vision_model.post_layernorm.\1",)),
    (
        r"vit\.layers\.(\d+)\.qkv\.(.*)",
        tuple(rf"vit_model.vision_model.encoder.layers.\1.self_attn.{x}_proj.\2" for x in "qkv"),
    ),
    (r"vit\.layers\.(\d+)\.o\.(.*)", (r"vit_model.vision_model.encoder.layers.\1.self_attn.out_proj.\2",)),
    (r"vit\.layers\.(\d+)\.norm(\d)\.(.*)", (r"vit_model.vision_model.encoder.layers.\1.layer_norm\2.\3",)),
    (r"vit\.layers\.(\d+)\.mlp\.(.*)", (r"vit_model.vision_model.encoder.layers.\1.mlp.\2",)),
]


def published_names(parameter: str) -> tuple[str, ...]:
    """The published tensors that make up one of our parameters, stacked by rows: two for gate_up, three for
    qkv, else one. `{und}` and `{gen}` in the table stand for the suffix of the expert."""
    for pattern, names in _NAMES:
        match = re.fullmatch(pattern, parameter)
        if match:
            expanded = (match.expand(name) for name in names)
            return tuple(name.replace("{und}", "").replace("{gen}", "_moe_gen") for name in expanded)
    raise KeyError(parameter)


def pieces(model: BagelModel) -> dict[str, Piece]:
    """Every published tensor of a model and where it goes. A parameter that both experts share is und's;
    LoRA adapters have files of their own."""
    heads = model.config.llm.num_attention_heads, *[model.config.llm.num_key_value_heads] * 2
    plan: dict[str, Piece] = {}
    for parameter, value in model.named_parameters():
        if ".adapters." in parameter:
            continue
        names = published_names(parameter)
        if len(names) == 1:
            plan[names[0]] = Piece(parameter, 0, None)
            continue
        shares = heads if parameter.startswith("decoder") and len(names) == 3 else (1,) * len(names)
        start = 0
        for name, share in zip(names, shares, strict=True):
            rows = len(value) * share // sum(shares)
            plan[name] = Piece(parameter, start, rows)
            start += rows
    return plan
