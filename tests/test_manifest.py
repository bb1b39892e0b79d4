"""The real BAGEL-7B-MoT: our model, built from its configuration without memory, has just its tensors."""

import json
from pathlib import Path

import torch

from bagel import checkpoint
from bagel.model.config import Layers, LLMConfig, ModelConfig, ViTConfig

MANIFEST = Path(__file__).parent / "manifest"
LLM = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
VIT = ViTConfig(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, num_hidden_layers=27)


def shapes(tensors):
    return {name: list(value.shape) for name, value in tensors.items()}


def real(layers=Layers.MOT):
    return checkpoint.build(ModelConfig(llm=LLMConfig(**LLM, layers=layers), vit=VIT))


def published(model):
    """Names and shapes as they would be saved, without making the tensors."""
    parameters = dict(model.named_parameters())
    found = {
        name: [piece.rows or len(parameters[piece.parameter]), *parameters[piece.parameter].shape[1:]]
        for name, piece in checkpoint.pieces(model).items()
    }
    width = model.config.llm.hidden_size
    return {**found, "latent_pos_embed.pos_embed": [64**2, width], "vit_pos_embed.pos_embed": [70**2, width]}


def test_model_has_the_published_tensors():
    model, _ = real()
    assert published(model) == json.loads((MANIFEST / "bagel-7b-mot.ema.safetensors.json").read_text())


def test_autoencoder_has_the_published_tensors():
    _, vae = real()
    assert shapes(dict(vae.named_parameters())) == json.loads(
        (MANIFEST / "bagel-7b-mot.ae.safetensors.json").read_text()
    )


def test_variants_share_what_upstream_shares():
    """MoE doubles the MLPs and the final norm alone; dense doubles nothing."""
    mot, moe, dense = (set(published(real(layers)[0])) for layers in (Layers.MOT, Layers.MOE, Layers.DENSE))
    doubled = {name.rsplit(".layers.", 1)[-1].split(".", 1)[-1] for name in moe - dense}
    assert doubled == {
        "mlp_moe_gen.gate_proj.weight",
        "mlp_moe_gen.up_proj.weight",
        "mlp_moe_gen.down_proj.weight",
        "model.norm_moe_gen.weight",
    }
    assert dense < moe < mot


def test_building_takes_no_memory():
    model, vae = real()
    assert all(p.device == torch.device("meta") for p in (*model.parameters(), *vae.parameters()))
