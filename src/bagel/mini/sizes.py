"""The sizes of `mini`. Everything, the autoencoder too, must fit into 28 MB of bf16: 14.0 million numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bagel.checkpoint import build
from bagel.model.config import ImageRules, Layers, LLMConfig, ModelConfig, ResizeRule, VAEConfig, ViTConfig
from bagel.world.scene import SIDE

BUDGET = 14_000_000
VOCABULARY = 2048
TOKEN = 16
"""Pixels along a side of one latent token, 8 x 2, as in the large model; and of one ViT patch."""

_GUIDED = {"num_timesteps": 25, "timestep_shift": 3.0, "cfg_renorm_min": 0.0, "max_tokens": 160}
PRESETS: dict[str, dict[str, Any]] = {
    "draw": {**_GUIDED, "height": SIDE, "width": SIDE, "cfg_text_scale": 3.0, "cfg_image_scale": 1.0,
             "cfg_interval": [0.0, 1.0], "cfg_renorm_type": "global"},
    "edit": {**_GUIDED, "cfg_text_scale": 2.0, "cfg_image_scale": 1.0, "cfg_interval": [0.0, 1.0],
             "cfg_renorm_type": "global"},
    "chat": {"max_tokens": 96},
}  # fmt: skip
"""To begin with; the study of the knobs says what they should be."""

MINI = ModelConfig(
    llm=LLMConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=7,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        rope_theta=10_000.0,
    ),
    vit=ViTConfig(
        hidden_size=192,
        intermediate_size=512,
        num_attention_heads=6,
        num_hidden_layers=5,
        patch_size=TOKEN,
        image_size=SIDE,
    ),
    vae=VAEConfig(ch=32, ch_mult=(1, 2, 3, 3), num_res_blocks=1, norm_groups=8, scale_factor=1.0, shift_factor=0.0),
    latent_patch_size=2,
    max_latent_size=SIDE // TOKEN,
    vit_max_num_patch_per_side=SIDE // TOKEN,
    timestep_shift=1.0,
    images=ImageRules(
        vae=ResizeRule(max_size=SIDE, min_size=SIDE, stride=TOKEN),
        vit=ResizeRule(max_size=SIDE, min_size=SIDE, stride=TOKEN),
    ),
    presets=PRESETS,
)

TOY = replace(
    MINI,
    llm=replace(MINI.llm, hidden_size=96, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2),
    vit=replace(MINI.vit, hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=3),
    vae=replace(MINI.vae, ch_mult=(1, 1, 1, 1)),
)  # fmt: skip
"""For tests: trains a little within seconds on a CPU."""

SIZES = {"mini": MINI, "toy": TOY}


def parameter_table(config: ModelConfig) -> dict[str, int]:
    """Numbers of each part, counted on the meta device; `all` at the end."""
    model, vae = build(config)
    parts = {f"vae.{name}": part for name, part in vae.named_children()}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    counts |= {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    counts = {name: count for name, count in counts.items() if count}
    return {**counts, "all": sum(counts.values())}


def active_per_token(config: ModelConfig) -> int:
    """Numbers of the decoder's layers that one token passes through, without the attention itself."""
    llm = config.llm
    attention = llm.hidden_size * (2 * llm.num_attention_heads + 2 * llm.num_key_value_heads) * llm.head_dim
    return llm.num_hidden_layers * (attention + 3 * llm.hidden_size * llm.intermediate_size)


def with_layers(config: ModelConfig, layers: Layers) -> ModelConfig:
    """The same with experts of another kind: the same active numbers per token, fewer in all."""
    return replace(config, llm=replace(config.llm, layers=layers))
