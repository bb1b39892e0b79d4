"""Sizes of a model, read from the json files of an official folder. No size has a default backbone behind
it: what a file must say and does not is a CheckpointError."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from bagel.errors import CheckpointError


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


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The autoencoder; the defaults are FLUX's."""

    in_channels: int = 3
    out_ch: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159

    @property
    def downsample(self) -> int:
        """Pixels along a side of one latent cell: every level but the last halves the picture."""
        return 2 ** (len(self.ch_mult) - 1)


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

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Reads `llm_config.json`, `vit_config.json` and, where present, `ae_config.json` and
        `config.json`. Raises CheckpointError, naming file and key."""
        own = _read_json(folder / "config.json", required=False)
        llm = _read_json(folder / "llm_config.json")
        kind = own.get("layers") or _LAYER_MODULES.get(str(own.get("layer_module") or llm.get("layer_module")))
        llm["layers"] = kind or Layers.MOT.value
        parts: dict[str, Any] = {
            "llm": _build(LLMConfig, llm, folder / "llm_config.json"),
            "vit": _build(ViTConfig, _read_json(folder / "vit_config.json"), folder / "vit_config.json"),
            "vae": _build(VAEConfig, _read_json(folder / "ae_config.json", required=False), folder / "ae_config.json"),
        }
        if "image_transforms" in own:
            parts["images"] = _image_rules(own["image_transforms"], folder / "config.json")
        known = {key: value for key, value in own.items() if key in _OWN_KEYS}
        config = _build(cls, {**known, **parts}, folder / "config.json")
        if config.connector_act not in ACTIVATIONS:
            raise CheckpointError(
                f"{folder / 'config.json'}: connector_act {config.connector_act!r} is unknown; "
                f"use one of {', '.join(ACTIVATIONS)}."
            )
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
    "Qwen2DecoderLayer": "dense",
    "Qwen2MoEDecoderLayer": "moe",
    "Qwen2MoTDecoderLayer": "mot",
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

T = TypeVar("T")


def _read_json(path: Path, required: bool = True) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise CheckpointError(
            f"{path.parent} has no {path.name}; a BAGEL folder holds llm_config.json, vit_config.json, "
            "ema.safetensors, ae.safetensors and the tokenizer's files."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); copy the file again.") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object; copy the file again.")
    return data


def _build(cls: type[T], data: Mapping[str, Any], path: Path) -> T:
    """An instance from the keys it knows; files of other makers carry many more."""
    declared = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {key: value for key, value in data.items() if key in declared and value is not None}
    missing = [
        name
        for name, f in declared.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CheckpointError(f"{path} does not say {', '.join(missing)}; add it from the original model.")
    try:
        return cls(**{key: _as_declared(declared[key].type, key, value, path) for key, value in values.items()})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}.") from None


def _as_declared(declared: Any, key: str, value: Any, path: Path) -> Any:
    """Checks one value of a json file against its field's type."""
    if declared in ("int", "float"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and value > 0 and (declared == "float" or value == int(value)):
            return value if declared == "float" else int(value)
        raise CheckpointError(f"{path}: {key} is {value!r}; it must be a positive {declared}.")
    if declared.startswith("tuple"):
        return tuple(value)
    return Layers(value) if declared == "Layers" else value


def _image_rules(data: Any, path: Path) -> ImageRules:
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: image_transforms must be an object with `vae` and `vit`.")
    return ImageRules(**{name: _build(ResizeRule, data[name], path) for name in ("vae", "vit") if name in data})


def _divides(divisor: int, value: int, divisor_name: str, value_name: str) -> None:
    if value % divisor:
        raise ValueError(f"{value_name} {value} is not a multiple of {divisor_name} {divisor}")
