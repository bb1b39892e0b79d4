"""All settings of a training run: a YAML file, then `key=value`, checked key by key; the outcome lands in the
run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bagel.data.config import DataConfig, build, choose
from bagel.errors import InputError
from bagel.train.yaml_files import plain, read

RESOLVED = "config.yaml"
"""Name of the resolved config in the run folder."""


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """What training starts from; all sizes are read from the files, none has a default. Either

    path: a folder in the official layout, or `mini`, and
    init: `checkpoint`: its weights as they are; `und`: the gen expert becomes a copy of und and the velocity head
          zero, as at the start of unified training; `scratch`: its sizes, tokenizer and autoencoder, all other
          weights random

    or `llm`, `vit`, `vae`: folders of a Qwen2-type LLM and a SigLIP, and FLUX's autoencoder.
    layers: mot, moe or dense in place of the folder's own. settings: of config.json, as max_latent_size.
    """

    path: str | None = None
    init: str = "checkpoint"
    llm: str | None = None
    vit: str | None = None
    vae: str | None = None
    layers: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FreezePart:
    """What is not trained. One that would freeze nothing more than the others do is refused.

    llm: token embeddings, both experts, norms, language head. vit: the ViT.
    und: the und expert and what feeds it alone (embeddings, connector, ViT); no gradient passes through und
         tokens. Upstream's `freeze_und` gives exactly these a gradient of zero. The language head still learns
         where there is text to learn.
    gen: the gen expert, latent in and out, time embedding: understanding alone is trained.
    connector: the connector.
    """

    llm: bool = False
    vit: bool = False
    und: bool = False
    gen: bool = False
    connector: bool = False


@dataclass(frozen=True, kw_only=True)
class LossPart:
    """loss = ce_weight x mean cross-entropy + mse_weight x mean squared velocity error.

    chunk_rows: logits are made for so many labelled rows at a time.
    ce_limit, mse_limit: a first loss above stops the run (random weights give about ln(vocabulary) and 2);
    null where random weights are meant.
    """

    ce_weight: float = 1.0
    mse_weight: float = 1.0
    chunk_rows: int = 2048
    ce_limit: float | None = 6.0
    mse_limit: float | None = 1.5


@dataclass(frozen=True, kw_only=True)
class LatentsPart:
    """How pictures become latents. sample: draw from the posterior (false: its mean). padded: all pictures of a
    pack as one zero-padded batch, as upstream does. cache: folder that keeps encoded pictures."""

    sample: bool = True
    padded: bool = False
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptimPart:
    """name: adamw, adamw8bit (states in 8 bits), or muon: the layers' matrices by Muon with `momentum`, at rates as for
    AdamW, the rest by AdamW at `rest_share` of the rate. Without decay of weights, what enters the residual stream
    grows at a high rate until a picture's fixed position table is too small beside it to be seen. warmup: steps of
    linear rise. schedule: constant, cosine (down to min_lr at the last step), or wsd: constant, then 1 minus a root
    down to min_lr over the last decay_steps of `steps`, over the last decay_minutes of `max_minutes`, or whichever is
    lower. By the clock a run ends at min_lr whatever its speed, and no two are the same: rates follow from the steps
    alone only without decay_minutes. clip: largest norm of the gradient. ema: decay of the running mean of the
    weights, null for none. ema_warmup: after n steps the decay is at most (1 + n) / (10 + n), so that random first
    weights are soon forgotten. captured: the update as one CUDA graph, for small models, whose hundreds of launches
    take a processor longer than the GPU; it keeps one more copy of the gradients and what it computes with, and is for
    one GPU and bf16 weights (auto: where that is so)."""

    name: str = "adamw"
    lr: float = 2.5e-5
    min_lr: float = 1e-7
    schedule: str = "constant"
    warmup: int = 0
    decay_steps: int = 0
    decay_minutes: float | None = None
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-15
    weight_decay: float = 0.0
    momentum: float = 0.95
    rest_share: float = 1.0
    clip: float = 1.0
    ema: float | None = None
    ema_warmup: bool = False
    captured: str = "off"


@dataclass(frozen=True, kw_only=True)
class ParallelPart:
    """shard: ranks that share one copy of the weights (0: all; less than all: hybrid, copies between groups).
    params: numbers the weights are kept in; compute: numbers of the products (auto: bf16 on a GPU); reduce: of
    the gradients' sum. recompute: what backward computes again instead of keeping: none; products (everything but
    products and attention); mlp (that and the widest product); full; in every `recompute_every`-th layer, the others
    keep their products. compile: auto means on a GPU. reshard: give gathered weights back between forward and
    backward. timeout_minutes: a rank that has not answered for so long is taken for lost, and the run ends."""

    shard: int = 0
    params: str = "fp32"
    compute: str = "auto"
    reduce: str = "fp32"
    recompute: str = "none"
    recompute_every: int = 1
    compile: str = "auto"
    reshard: bool = True
    timeout_minutes: float = 60.0


@dataclass(frozen=True, kw_only=True)
class SavePart:
    """every: steps between checkpoints, 0 only at the end. minutes: one is also written when the last (or the start)
    lies so far back. keep: newest whole ones that stay."""

    every: int = 500
    minutes: float | None = None
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class LogPart:
    """every: steps between lines. wandb: project name, null for none."""

    every: int = 1
    tensorboard: bool = True
    wandb: str | None = None


@dataclass(frozen=True, kw_only=True)
class SamplesPart:
    """Made during training, every so many steps (0: never). draw: prompts. chat: questions. edit, ask: picture
    -> instruction or question. world: held-out exercises of each category, judged. image_options, text_options: as
    for `bagel draw` and `bagel chat`."""

    every: int = 0
    draw: tuple[str, ...] = ()
    chat: tuple[str, ...] = ()
    edit: Mapping[str, str] = field(default_factory=dict)
    ask: Mapping[str, str] = field(default_factory=dict)
    world: int = 0
    image_options: Mapping[str, Any] = field(default_factory=dict)
    text_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """run: the run's folder (config, log, checkpoints, samples); a run that was stopped goes on from its newest
    whole checkpoint. steps: optimizer steps in all. max_minutes: of this process, from its start; it then saves and
    ends, and the same command goes on. accumulate: packs per rank and step. lora: see docs; empty for none. device:
    auto, cpu, cuda."""

    run: str
    model: ModelPart
    data: DataConfig
    steps: int
    max_minutes: float | None = None
    accumulate: int = 1
    device: str = "auto"
    freeze: FreezePart = field(default_factory=FreezePart)
    loss: LossPart = field(default_factory=LossPart)
    latents: LatentsPart = field(default_factory=LatentsPart)
    optim: OptimPart = field(default_factory=OptimPart)
    parallel: ParallelPart = field(default_factory=ParallelPart)
    save: SavePart = field(default_factory=SavePart)
    log: LogPart = field(default_factory=LogPart)
    samples: SamplesPart = field(default_factory=SamplesPart)
    lora: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Raises InputError for an unknown key (naming the nearest), a wrong type or an impossible value."""
        config = build(cls, data, "config")
        config = replace(config, data=DataConfig.from_dict(data["data"]))
        _check(config)
        return config

    def plain(self) -> dict[str, Any]:
        """As a YAML file gives it."""
        return dict(plain(self))

    def to_yaml(self) -> str:
        import yaml

        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)


def load(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The file, on top of the one that its `base` names, then `section.key=value` in turn."""
    return TrainConfig.from_dict(read(path, overrides))


# --- values ----------------------------------------------------------------------------------------------

_CHOICES = {
    "model.init": ("checkpoint", "und", "scratch"),
    "optim.name": ("adamw", "adamw8bit", "muon"),
    "optim.schedule": ("constant", "cosine", "wsd"),
    "optim.captured": ("auto", "on", "off"),
    "parallel.params": ("fp32", "bf16"),
    "parallel.compute": ("auto", "fp32", "bf16"),
    "parallel.reduce": ("fp32", "bf16"),
    "parallel.recompute": ("none", "products", "mlp", "full"),
    "parallel.compile": ("auto", "on", "off"),
}
_LEAST = {
    "steps": 1, "accumulate": 1, "loss.chunk_rows": 1, "loss.ce_weight": 0, "loss.mse_weight": 0, "optim.lr": 0,
    "optim.warmup": 0, "optim.weight_decay": 0, "optim.min_lr": 0, "optim.decay_steps": 0, "parallel.shard": 0,
    "parallel.recompute_every": 1, "parallel.timeout_minutes": 0.1, "save.every": 0, "save.keep": 1, "log.every": 1,
    "samples.every": 0, "samples.world": 0, "optim.eps": 0,
}  # fmt: skip


def _check(config: TrainConfig) -> None:
    _check_values(config)
    _check_fall(config)
    if config.loss.ce_weight == config.loss.mse_weight == 0:
        raise InputError("loss.ce_weight and loss.mse_weight are both 0: nothing would be learnt.")
    _check_model(config.model)
    if config.lora and config.freeze != FreezePart():
        raise InputError("freeze does nothing beside lora, which freezes all but the adapters; leave it out.")
    _check_optim(config.optim)
    if config.optim.warmup >= config.steps:
        raise InputError(f"optim.warmup {config.optim.warmup} is not below steps {config.steps}: lower it.")
    if config.parallel.recompute == "none" and config.parallel.recompute_every != 1:
        raise InputError("parallel.recompute_every does nothing while parallel.recompute is none.")
    asked = config.samples
    if asked.every and not (asked.draw or asked.chat or asked.edit or asked.ask or asked.world):
        raise InputError("samples.every is set, but there is nothing under samples.draw, chat, edit, ask or world.")


def _check_values(config: TrainConfig) -> None:
    """Each by itself."""
    for key, allowed in _CHOICES.items():
        choose(_at(config, key), allowed, key)
    for key, least in _LEAST.items():
        if not _at(config, key) >= least:
            raise InputError(f"{key} is {_at(config, key)}; it must be at least {least}.")
    for key in ("max_minutes", "save.minutes", "optim.decay_minutes"):
        minutes = _at(config, key)
        if minutes is not None and not minutes > 0:
            raise InputError(f"{key} is {minutes}; it must be above 0, or null.")


def _check_model(part: ModelPart) -> None:
    parts = (part.llm, part.vit, part.vae)
    if (part.path is None) != all(parts) or (part.path and any(parts)):
        raise InputError("model: give either path, or all of llm, vit and vae.")
    if not part.path and part.init != "checkpoint":
        raise InputError("model.init is for model.path; what llm, vit and vae lack is always made new.")
    if part.layers is not None:
        choose(part.layers, ("mot", "moe", "dense"), "model.layers")


def _check_optim(part: OptimPart) -> None:
    if part.clip <= 0:
        raise InputError(f"optim.clip is {part.clip}; it must be above 0.")
    if part.ema is not None and not 0 < part.ema < 1:
        raise InputError(f"optim.ema is {part.ema}; it must lie between 0 and 1, or be null.")
    if part.ema_warmup and part.ema is None:
        raise InputError("optim.ema_warmup does nothing while optim.ema is null.")
    if part.momentum != OptimPart.momentum and part.name != "muon":
        raise InputError(f"optim.momentum does nothing while optim.name is {part.name}; it is muon's.")
    for name in ("momentum", "beta1", "beta2"):
        if not 0 <= getattr(part, name) < 1:
            raise InputError(f"optim.{name} is {getattr(part, name)}; it must be at least 0 and below 1.")
    if part.rest_share != 1 and part.name != "muon":
        raise InputError(f"optim.rest_share does nothing while optim.name is {part.name}; it is muon's.")
    if not 0 < part.rest_share <= 1:
        raise InputError(f"optim.rest_share is {part.rest_share}; it must lie between 0 and 1.")


def _check_fall(config: TrainConfig) -> None:
    part = config.optim
    falls = bool(part.decay_steps or part.decay_minutes)
    if falls != (part.schedule == "wsd"):
        raise InputError(
            f"optim.schedule is {part.schedule}, optim.decay_steps {part.decay_steps}, optim.decay_minutes "
            f"{part.decay_minutes}: the latter two are for wsd, which needs one of them."
        )
    if part.decay_minutes and config.max_minutes is None:
        raise InputError("optim.decay_minutes are the last of max_minutes, which is null; set it.")
    if part.decay_steps > config.steps:
        raise InputError(f"optim.decay_steps {part.decay_steps} is above steps {config.steps}: lower it.")


def _at(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
