"""Why a file's tensors do not fit a model: the likeliest of the mistakes that users of the official code made."""

from __future__ import annotations

VAE_CAUSE = (
    "Check that ae.safetensors is whole and belongs to ae_config.json; where there is no such file, the sizes are "
    "those of FLUX's autoencoder."
)


def cause_of(missing: list[str], unexpected: list[str], misshapen: list[str]) -> str:
    """The likeliest mistake behind a misfit; each was reported by users of the official code."""

    def all_missing(*marks: str) -> bool:
        return bool(missing) and all(any(mark in name for mark in marks) for name in missing)

    def all_misshapen(*marks: str) -> bool:
        return bool(misshapen) and all(any(mark in name for mark in marks) for name in misshapen)

    if prefix := _prefix(missing, unexpected):
        return f"All names begin with {prefix!r}, as a wrapper leaves them: save them without it."
    if all_missing("vit_model", "connector"):
        return (
            "It looks like a fine-tune for generation alone (no ViT, no connector): export it onto the original "
            "folder with `bagel export`."
        )
    if all_missing("_moe_gen", "vae2llm", "llm2vae", "time_embedder"):
        return (
            "It looks like a fine-tune for understanding alone (no generation expert): export it onto the original "
            "folder with `bagel export`."
        )
    if missing and not (unexpected or misshapen) and not any("_moe_gen" in name for name in missing):
        return (
            "It looks like a fine-tune that holds only what it trained: export it onto the original folder with "
            "`bagel export`."
        )
    if any("instead of floating" in name for name in misshapen):
        return "They are quantised: use the original weights (bf16, fp16 or fp32)."
    if all_misshapen("embed_tokens", "lm_head"):
        return "The vocabulary has another size: check vocab_size in llm_config.json."
    if all_misshapen("vae2llm", "llm2vae"):
        return (
            "Latent tokens are of another size: check latent_patch_size in config.json, z_channels in ae_config.json."
        )
    if misshapen and len(misshapen) > 3:
        return (
            "It looks like another backbone (a 0.5B one, say, where fine-tuning began from the wrong default): "
            "copy the llm_config.json and vit_config.json that the weights were trained with."
        )
    if any("pos" in name for name in misshapen):
        return (
            "A position table has another size: check max_latent_size and vit_max_num_patch_per_side in config.json "
            "and image_size in vit_config.json."
        )
    if any("vision_model.encoder.layers" in name for name in (*missing, *unexpected)):
        return (
            "The ViT has another number of layers: check num_hidden_layers in vit_config.json, which counts one more "
            "than are stored."
        )
    if any("layers" in name for name in (*missing, *unexpected)):
        return "The number or kind of layers differs: check num_hidden_layers (and `layers` in config.json)."
    return "The files may belong to another model, or be incomplete: copy or download them again."


def _prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """What stands before every stored name, where that alone is wrong with them."""
    if not unexpected or not missing:
        return None
    parts = unexpected[0].split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if {name.removeprefix(prefix) for name in unexpected} & set(missing) == set(missing):
            return prefix
    return None
