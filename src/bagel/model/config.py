"""Sizes of a model, read from the json files of an official folder. No size has a default backbone behind
it: what a file must say and does not is a CheckpointError."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from bagel.errors import CheckpointError, InputError
from bagel.model.fields import build, read_json
from bagel.options import PRESETS, ImageOptions, TextOptions, make, settle


class Layers(Enum):
    """How the two experts share a layer (paper, section 2.1): one for all tokens; two MLPs under one
    attention; two of everything."""

    DENSE = "dense"
    MOE = "moe"
    MOT = "mot"


@dataclass(frozen=True, kw_only=True)
class LLMConfig:
    """The decoder, in the words of Qwen2's config."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32768
    layers: Layers = Layers.MOT

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def __post_init__(self) -> None:
        _divides(self.num_attention_heads, self.hidden_size, "num_attention_heads", "hidden_size")
        _divides(self.num_key_value_heads, self.num_attention_heads, "num_key_value_heads", "num_attention_heads")
        _divides(4, self.hidden_size, "4", "hidden_size (the 2-D sine table needs it)")
        _divides(2, self.head_dim, "2", "the width of a head (hidden_size / num_attention_heads)")


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """SigLIP. `num_hidden_layers` is what the file says: one layer fewer is built, since the feature is
    taken before the last (upstream sets it so wherever it loads the model)."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    patch_size: int = 14
    image_size: int = 980
    num_channels: int = 3
    layer_norm_eps: float = 1e-6

    @property
    def num_built_layers(self) -> int:
        return self.num_hidden_layers - 1

    @property
    def table_side(self) -> int:
        """Patches along a side of the learned position table."""
        return self.image_size // self.patch_size

    @property
    def patch_width(self) -> int:
        return self.patch_size**2 * self.num_channels

    def __post_init__(self) -> None:
        _divides(self.num_attention_heads, self.hidden_size, "num_attention_heads", "hidden_size")
        _divides(self.patch_size, self.image_size, "patch_size", "image_size")
        if self.num_channels != 3:
            raise ValueError(f"num_channels is {self.num_channels}; pictures have 3 channels")


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The autoencoder; the defaults are FLUX's. norm_groups: of every GroupNorm; a narrow one needs fewer, since a
    group of one channel forgets how bright a picture is."""

    in_channels: int = 3
    out_ch: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    norm_groups: int = 32
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159

    @property
    def downsample(self) -> int:
        """Pixels along a side of one latent cell: every level but the last halves the picture."""
        return 2 ** (len(self.ch_mult) - 1)

    def __post_init__(self) -> None:
        for width in (self.ch, *(self.ch * m for m in self.ch_mult)):
            _divides(32, width, "32", "a width of the autoencoder (ch, ch x ch_mult)")
        _divides(self.norm_groups, 32, "norm_groups", "32 (the autoencoder's widths are multiples of it)")
        for name, channels in (("in_channels", self.in_channels), ("out_ch", self.out_ch)):
            if channels != 3:
                raise ValueError(f"{name} is {channels}; pictures have 3 channels")


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """Bounds for the sides of a picture, in pixels; see `bagel.images.resized_size`."""

    max_size: int
    min_size: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class ImageRules:
    vae: ResizeRule = field(default_factory=lambda: ResizeRule(max_size=1024, min_size=512, stride=16))
    vit: ResizeRule = field(default_factory=lambda: ResizeRule(max_size=980, min_size=224, stride=14))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything the model is built from. `presets`: default options per job (`draw`, `edit`, `chat`)
    that this checkpoint wants instead of the official app's."""

    llm: LLMConfig
    vit: ViTConfig
    vae: VAEConfig = field(default_factory=VAEConfig)
    latent_patch_size: int = 2
    max_latent_size: int = 64
    vit_max_num_patch_per_side: int = 70
    connector_act: str = "gelu_pytorch_tanh"
    interpolate_pos: bool = False
    timestep_shift: float = 1.0
    images: ImageRules = field(default_factory=ImageRules)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def latent_stride(self) -> int:
        """Pixels along a side of one latent token."""
        return self.vae.downsample * self.latent_patch_size

    @property
    def latent_width(self) -> int:
        """Numbers in one latent token."""
        return self.latent_patch_size**2 * self.vae.z_channels

    @property
    def max_image_side(self) -> int:
        """The longest side, in pixels, that the latent position table covers."""
        return self.max_latent_size * self.latent_stride

    def __post_init__(self) -> None:
        _divides(self.latent_stride, self.images.vae.stride, "a latent token's side", "the stride of `vae` pictures")
        _divides(self.vit.patch_size, self.images.vit.stride, "patch_size", "the stride of `vit` pictures")
        if self.vit_max_num_patch_per_side > self.vit.table_side:
            raise ValueError(
                f"vit_max_num_patch_per_side is {self.vit_max_num_patch_per_side}, but the ViT's position table has "
                f"{self.vit.table_side} places a side (image_size / patch_size in vit_config.json)"
            )
        if self.connector_act not in ACTIVATIONS:
            raise ValueError(f"connector_act {self.connector_act!r} is unknown; use one of {', '.join(ACTIVATIONS)}")

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Reads `llm_config.json`, `vit_config.json` and, where present, `ae_config.json` and
        `config.json`. Raises CheckpointError, naming file and key."""
        own = read_json(folder / "config.json", required=False)
        llm, vit = read_json(folder / "llm_config.json"), read_json(folder / "vit_config.json")
        _refuse_other(llm, folder / "llm_config.json", hidden_act=("silu",), rope_scaling=())
        _refuse_other(vit, folder / "vit_config.json", hidden_act=("gelu_pytorch_tanh",))
        vae = read_json(folder / "ae_config.json", required=False)
        parts: dict[str, Any] = {
            "llm": build(LLMConfig, {**llm, "layers": _layers(own, folder)}, folder / "llm_config.json"),
            "vit": build(ViTConfig, vit, folder / "vit_config.json"),
            "vae": build(VAEConfig, vae, folder / "ae_config.json"),
        }
        if own.get("image_transforms") is not None:
            parts["images"] = _image_rules(own["image_transforms"], folder / "config.json")
        known = {key: value for key, value in own.items() if key in _OWN_KEYS}
        config = build(cls, {**known, **parts}, folder / "config.json")
        _check_presets(config, folder / "config.json")
        return config

    def to_json(self) -> dict[str, dict[str, Any]]:
        """The four files of a folder, by name, as `from_folder` reads them and upstream too."""
        llm = dataclasses.asdict(self.llm)
        layers = llm.pop("layers")
        own = {key: getattr(self, key) for key in _OWN_KEYS}
        own["image_transforms"] = dataclasses.asdict(self.images)
        own["presets"] = {job: dict(preset) for job, preset in self.presets.items()}
        return {
            "llm_config.json": {
                "architectures": ["Qwen2ForCausalLM"],
                "model_type": "qwen2",
                "hidden_act": "silu",
                "tie_word_embeddings": False,
                **llm,
            },
            "vit_config.json": {"model_type": "siglip_vision_model", **dataclasses.asdict(self.vit)},
            "ae_config.json": {**dataclasses.asdict(self.vae), "downsample": self.vae.downsample},
            "config.json": {"model_type": "bagel", "layers": layers.value, **own},
        }


ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "relu", "silu")
_LAYER_MODULES = {
    "Qwen2DecoderLayer": Layers.DENSE,
    "Qwen2MoEDecoderLayer": Layers.MOE,
    "Qwen2MoTDecoderLayer": Layers.MOT,
}
"""Upstream's names, a training argument there; official files do not say them and are MoT."""

_OWN_KEYS = (
    "latent_patch_size",
    "max_latent_size",
    "vit_max_num_patch_per_side",
    "connector_act",
    "interpolate_pos",
    "timestep_shift",
    "presets",
)


def _layers(own: Mapping[str, Any], folder: Path) -> Layers:
    """What `config.json` says under our name or upstream's; `llm_config.json` is not asked, since official
    files say other things there."""
    said = own.get("layers") or own.get("layer_module") or Layers.MOT.value
    known = {**_LAYER_MODULES, **{kind.value: kind for kind in Layers}}
    if not isinstance(said, str) or said not in known:
        kinds = ", ".join(kind.value for kind in Layers)
        raise CheckpointError(f"{folder / 'config.json'}: layers is {said!r}; use one of {kinds}.")
    return known[said]


def _refuse_other(data: Mapping[str, Any], path: Path, **accepted: tuple[str, ...]) -> None:
    """Raises CheckpointError where a file asks for what this model does not compute."""
    for key, values in accepted.items():
        said = data.get(key)
        if said is None or said in values or (isinstance(said, dict) and _is_plain(said)):
            continue
        wanted = f"only {', '.join(values)}" if values else "no other than the plain kind"
        raise CheckpointError(f"{path}: {key} is {said!r}; this model computes {wanted}.")


def _is_plain(scaling: Mapping[str, Any]) -> bool:
    return scaling.get("rope_type", scaling.get("type")) == "default"


def _image_rules(data: Any, path: Path) -> ImageRules:
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: image_transforms must be an object with `vae` and `vit`.")
    rules = {name: data[name] for name in ("vae", "vit") if data.get(name) is not None}
    for name, rule in rules.items():
        if not isinstance(rule, dict):
            raise CheckpointError(f"{path}: image_transforms.{name} is {rule!r}; it must be an object.")
    return ImageRules(**{name: build(ResizeRule, rule, path) for name, rule in rules.items()})


def _check_presets(config: ModelConfig, path: Path) -> None:
    """Raises CheckpointError for a preset that no request could use."""
    if not isinstance(config.presets, dict):
        raise CheckpointError(f"{path}: presets is {config.presets!r}; it must be an object of jobs.")
    for job in PRESETS:
        preset = config.presets.get(job, {})
        if not isinstance(preset, dict):
            raise CheckpointError(f"{path}: presets.{job} is {preset!r}; it must be an object of options.")
        try:
            if job == "chat":
                settle(make(TextOptions, None, preset), job, {})
                continue
            drawn = settle(make(ImageOptions, None, preset), job, {})
        except InputError as error:
            raise CheckpointError(f"{path}: presets.{job}: {error}") from None
        for name in preset.keys() & {"height", "width"}:
            if (side := getattr(drawn, name)) % config.latent_stride:
                raise CheckpointError(
                    f"{path}: presets.{job}: {name} is {side}; it must be a multiple of {config.latent_stride}."
                )


def _divides(divisor: int, value: int, divisor_name: str, value_name: str) -> None:
    if value % divisor:
        by = divisor_name if divisor_name == str(divisor) else f"{divisor_name} {divisor}"
        raise ValueError(f"{value_name} {value} is not a multiple of {by}")
