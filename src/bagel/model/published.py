"""Name and sizes of the published model: what is planned, measured and tested without it."""

from __future__ import annotations

from bagel.model.config import LLMConfig, ModelConfig, ViTConfig

NAME = "ByteDance-Seed/BAGEL-7B-MoT"
SO400M = ViTConfig(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27)
SEVEN_B = ModelConfig(
    llm=LLMConfig(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    ),
    vit=SO400M,
)
