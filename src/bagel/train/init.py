"""What training starts from: an official folder, an LLM and a SigLIP and an autoencoder, or nothing.

`Start` knows for each parameter of ours which published tensors fill it and where each comes from: a file, the
und expert (for a new gen expert), or a seed. Nothing is read before `parameter` is called for it, so that a whole
model costs the memory of its largest parameter beside itself, and sharded training fills each shard as it goes.
All sizes come from files or from the caller; none has a default backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bagel.checkpoint import VAE_WEIGHTS, Checkpoint, Piece, TensorFiles, build, check, pieces, read_config
from bagel.errors import CheckpointError, InputError
from bagel.model.bagel import BagelModel
from bagel.model.config import Layers, ModelConfig
from bagel.model.vae import VAE
from bagel.tokens import Tokenizer
from bagel.train.coverage import Coverage, Origin
from bagel.train.fresh import fresh
from bagel.train.parts import Read, llm_parts, vae_config, vae_parts, vit_parts

VAE_PREFIX = "vae."
"""Before the autoencoder's names, where they stand beside the model's."""


@dataclass
class Start:
    """A model on the meta device and where its values come from.

    read: published name (the autoencoder's with `vae.`) -> how to read it. anew: published names to be drawn or
    copied from und though a file has them.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    read: Mapping[str, Read]
    seed: int = 0
    anew: frozenset[str] = frozenset()
    model: BagelModel = field(init=False)
    vae: VAE = field(init=False)

    def __post_init__(self) -> None:
        rows = max(self.config.llm.vocab_size, len(self.tokenizer))
        self.config = replace(self.config, llm=replace(self.config.llm, vocab_size=rows))
        self.model, self.vae = build(self.config)
        self._shapes = {name: tuple(value.shape) for name, value in self.model.named_parameters()}
        self._shapes |= {VAE_PREFIX + name: tuple(value.shape) for name, value in self.vae.named_parameters()}
        self._plan: dict[str, list[tuple[str, Piece]]] = {name: [] for name in self._shapes}
        for published, piece in pieces(self.model).items():
            self._plan[piece.parameter].append((published, piece))
        for name, _ in self.vae.named_parameters():
            self._plan[VAE_PREFIX + name].append((VAE_PREFIX + name, Piece(VAE_PREFIX + name, 0, None)))

    def origin(self, published: str) -> Origin:
        """Where a published tensor comes from."""
        if published in self.read and published not in self.anew:
            return Origin.FILE
        return Origin.UND if "_moe_gen" in published else Origin.NEW

    def parameter(self, name: str) -> Tensor:
        """A parameter of ours in full, on the CPU, in the file's dtype (float32 where new); the autoencoder's
        are named with `vae.` before."""
        shape = self._shapes[name]
        parts = [self._tensor(published, (piece.rows or shape[0], *shape[1:])) for published, piece in self._plan[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def coverage(self) -> Coverage:
        """How many numbers of each part come from where; reads nothing."""
        found = Coverage()
        for name, shape in self._shapes.items():
            for published, piece in self._plan[name]:
                count = torch.Size((piece.rows or shape[0], *shape[1:])).numel()
                found.add(name, count, self.origin(published))
        return found

    def checkpoint(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = torch.float32,
        vae_dtype: torch.dtype | None = torch.float32,
    ) -> Checkpoint:
        """The whole model in memory: each parameter allocated once, filled, and forgotten on the host. A dtype of
        None is that of the files."""
        where = torch.device(device)
        _materialise(self.model, partial(self._copy, "", where, dtype or self.stored_dtype()))
        _materialise(self.vae, partial(self._copy, VAE_PREFIX, where, vae_dtype or self.stored_dtype(VAE_PREFIX)))
        return Checkpoint(self.config, self.model, self.vae, self.tokenizer)

    def stored_dtype(self, prefix: str = "") -> torch.dtype:
        """In which dtype the files hold the model, or with `vae.` the autoencoder; float32 if no file does."""
        table = "encoder.conv_in.weight" if prefix else "language_model.model.embed_tokens.weight"
        read = self.read.get(prefix + table)
        return read().dtype if read else torch.float32

    @torch.no_grad()
    def fill(self, module: nn.Module, prefix: str = "") -> None:
        """Writes into parameters that have memory already, sharded ones too: every rank reads the files and keeps
        its own part, nothing is sent. `prefix`: `vae.` for an autoencoder."""
        for name, value in module.named_parameters():
            name = prefix + name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
            if name in self._shapes:
                _write(value, self.parameter(name))

    def _copy(self, prefix: str, device: torch.device, dtype: torch.dtype, name: str) -> Tensor:
        """A parameter in memory of its own: what is read may be the file's memory, and two may read the same."""
        value = self.parameter(prefix + name)
        return torch.empty(value.shape, dtype=dtype, device=device).copy_(value)

    def _tensor(self, published: str, shape: tuple[int, ...]) -> Tensor:
        origin = self.origin(published)
        if origin is Origin.FILE:
            return _sized(self.read[published](), shape, published)
        if origin is Origin.UND:
            return self._tensor(published.replace("_moe_gen", ""), shape)
        return fresh(published.removeprefix(VAE_PREFIX), shape, self.seed)


def from_folder(
    folder: Path, *, init: str = "checkpoint", layers: Layers | None = None, seed: int = 0, **changes: Any
) -> Start:
    """An official folder, every size read from it.

    init: `checkpoint`, its weights as they are; `und`, the gen expert becomes a copy of und, the velocity head
    zero and latent input and time embedding new; `scratch`, sizes, tokenizer and autoencoder alone
    are used.
    layers: another kind than the folder's (a dense one can become MoT: its gen expert starts from und).
    changes: fields of ModelConfig to set, as max_latent_size=64.

    Raises CheckpointError for a folder that is not whole, InputError for an unknown `init` or change.
    """
    if init not in ("checkpoint", "und", "scratch"):
        raise InputError(f"init is {init!r}; use checkpoint, und or scratch.")
    stored = read_config(folder)
    config = _changed(replace(stored, llm=replace(stored.llm, layers=layers or stored.llm.layers)), changes)
    tokenizer = Tokenizer.from_folder(folder)
    vae = vae_parts(folder / VAE_WEIGHTS)
    if init == "scratch":
        return Start(config, tokenizer, _prefixed(vae), seed)
    files = TensorFiles.of_model(folder)
    whole, _ = build(stored, len(tokenizer))
    check(whole, pieces(whole), files, stored)
    read: dict[str, Read] = {name: _reader(files, name) for name in files}
    anew = frozenset(read) if init == "und" else frozenset()
    anew = frozenset(name for name in anew if "_moe_gen" in name or name.startswith(GENERATION))
    return _complete(Start(config, tokenizer, {**read, **_prefixed(vae)}, seed, anew), folder)


GENERATION = ("vae2llm", "llm2vae", "time_embedder")


def from_parts(llm: Path, vit: Path, vae: Path, *, layers: Layers = Layers.MOT, seed: int = 0, **changes: Any) -> Start:
    """A Qwen2-type LLM folder, a SigLIP folder (both in Hugging Face's layout) and a FLUX `ae.safetensors` (or the
    folder that holds it). The ViT keeps all layers but the last, its position table is stretched to 70 x 70; the
    connector, latent input and output and time embedding are new, the gen expert is a copy of und.

    Raises CheckpointError for files that are missing, of another kind or of another size.
    """
    llm_config, llm_read, tokenizer = llm_parts(llm, layers)
    side = int(changes.get("vit_max_num_patch_per_side", 70))
    vit_config, vit_read = vit_parts(vit, side)
    vae_path = vae / VAE_WEIGHTS if vae.is_dir() else vae
    vae_found = vae_parts(vae_path)
    config = ModelConfig(llm=llm_config, vit=vit_config, vae=vae_config(vae_path), vit_max_num_patch_per_side=side)
    read = {**llm_read, **vit_read, **_prefixed(vae_found)}
    return _complete(Start(_changed(config, changes), tokenizer, read, seed), llm, new=("connector", *GENERATION))


def from_scratch(config: ModelConfig, tokenizer: Tokenizer, *, vae: Path | None = None, seed: int = 0) -> Start:
    """Random weights (the velocity head zero, the gen expert a copy of und), the same for the same seed whatever
    the number of ranks. Without `vae` the autoencoder is random too, which is good for tests alone."""
    return Start(config, tokenizer, _prefixed(vae_parts(vae)) if vae else {}, seed)


def _changed(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    try:
        return replace(config, **changes)
    except TypeError:
        known = ", ".join(ModelConfig.__dataclass_fields__)
        raise InputError(f"{', '.join(changes)}: not all of these are settings of a model; use {known}.") from None
    except ValueError as error:
        raise InputError(f"model.settings: {error}.") from None


def _prefixed(read: Mapping[str, Read]) -> dict[str, Read]:
    return {VAE_PREFIX + name: value for name, value in read.items()}


def _reader(files: TensorFiles, name: str) -> Read:
    return lambda: files.read(name)


def _complete(start: Start, source: Path, new: tuple[str, ...] = ()) -> Start:
    """Refuses files that lack what only they can give: what is neither the gen expert's nor in `new`."""
    missing = [
        published
        for plan in start._plan.values()
        for published, _ in plan
        if start.origin(published) is Origin.NEW and published not in start.anew and not published.startswith(new)
        and not _optional(published)
    ]  # fmt: skip
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} tensors that the model needs ({', '.join(missing[:4])}); the files may be "
            "incomplete or of another kind of model."
        )
    return start


def _optional(published: str) -> bool:
    """An LLM may come without q/k norms (they start at one) and without biases (zero)."""
    decoder = published.startswith("language_model.")
    return decoder and (".q_norm" in published or ".k_norm" in published or published.endswith("_proj.bias"))


def _sized(value: Tensor, shape: tuple[int, ...], published: str) -> Tensor:
    """As the model wants it: a convolution's patches flattened, a table that grew filled with its mean row."""
    if value.ndim == 4 and len(shape) == 2:
        value = value.permute(0, 2, 3, 1).flatten(1)
    grown = published.endswith(("embed_tokens.weight", "lm_head.weight")) and len(value) < shape[0]
    if grown:
        extra = value.float().mean(0).to(value.dtype).expand(shape[0] - len(value), -1)
        value = torch.cat((value, extra))
    if tuple(value.shape) != shape:
        raise CheckpointError(
            f"{published} is {list(value.shape)} in the files, the configuration wants {list(shape)}; the files belong "
            "to another model."
        )
    return value


def _materialise(module: nn.Module, value: Callable[[str], Tensor]) -> None:
    """Replaces every parameter on the meta device; one that two modules share stays one."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    filled: dict[str, nn.Parameter] = {}
    for owner in module.modules():
        for key, empty in list(owner._parameters.items()):
            if empty is None or id(empty) not in names:
                continue
            name = names[id(empty)]
            if name not in filled:
                filled[name] = nn.Parameter(value(name), requires_grad=empty.requires_grad)
            owner._parameters[key] = filled[name]


def _write(target: Tensor, value: Tensor) -> None:
    if not hasattr(target, "device_mesh"):
        target.copy_(value)
        return
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(target, DTensor)
    shape, offset = compute_local_shape_and_global_offset(value.shape, target.device_mesh, target.placements)
    for axis, (length, begin) in enumerate(zip(shape, offset, strict=True)):
        value = value.narrow(axis, min(begin, value.shape[axis]), length)
    target.to_local().copy_(value)
