"""From a folder to a runtime: the plan, the weights in their places and numbers, adapters merged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bagel import checkpoint as checkpoints
from bagel.checkpoint import Checkpoint, Place, read_config, read_tokenizer, stored_bytes
from bagel.devices import computes_bf16, pick_device, pick_dtype, pick_precision
from bagel.errors import InputError, MemoryPlanError
from bagel.infer.conversation import Runtime
from bagel.lora_files import Lora, apply
from bagel.memory.cards import Card
from bagel.memory.place import arrange, placer, split_placer, spread
from bagel.memory.plan import FEWEST_SLOTS, Ask, Plan, Setup, choose, parts_of
from bagel.memory.plan_split import check_split
from bagel.memory.sizes import GIB, JOBS, VISITS, Demand
from bagel.model.config import ModelConfig
from bagel.model.quantise import is_quantised, quantised, replace_module
from bagel.options import PRESETS
from bagel.packed_files import packed_precision
from bagel.parallel.grid import Grid, check
from bagel.parallel.shares import Cut, cut_model

Device = str | torch.device | Sequence[str | torch.device]


@dataclass(frozen=True)
class Wanted:
    """What was asked for: see `Bagel.load`. job: the one that room is made for, None for all of them."""

    device: Device = "auto"
    dtype: str | torch.dtype = "auto"
    precision: str | None = None
    offload: str | Sequence[str] | None = None
    lora: Lora | None = None
    parallel: str | None = None
    compile: bool = True
    job: str | None = None


def load_runtime(folder: Path, wanted: Wanted, report: checkpoints.Report | None = None) -> Runtime:
    """In this process alone."""
    devices = pick_devices(wanted.device)
    wanted = with_stored_precision(folder, wanted)
    setup = setup_of(folder, wanted, devices)
    where = placer(setup, devices[0])
    if len(devices) > 1:
        where = split_placer(read_config(folder).llm.num_hidden_layers, devices)
    checkpoint = read_weights(folder, wanted, setup, devices[0], where, report)
    runtime = Runtime.of(checkpoint)
    runtime.engine.fast = wanted.compile
    if len(devices) > 1:
        spread(checkpoint, devices)
    else:
        arrange(checkpoint, setup, devices[0])
    measure_room(runtime, setup)
    return runtime


def read_weights(
    folder: Path,
    wanted: Wanted,
    setup: Setup,
    device: torch.device,
    where: Place,
    report: checkpoints.Report | None = None,
    cut: Cut | None = None,
) -> Checkpoint:
    """The weights in their numbers and places, adapters merged. cut: the part of every layer that is kept."""
    # An adapter is merged into whole weights, on the host where they may not fit the device; they are cut and
    # quantised afterwards.
    late = wanted.lora is not None and (setup.packed is not None or cut is not None)
    host = torch.device("cpu")
    checkpoint = checkpoints.load(
        folder,
        device,
        setup.dtype,
        report,
        precision=None if late or packed_precision(folder) else setup.packed,
        place=(lambda name: where(name) if name.startswith("vae.") else host) if late else where,
        cut=None if late else cut,
    )
    if wanted.lora is not None:
        apply(checkpoint.model, wanted.lora)
    if late and cut is not None:
        cut_model(checkpoint.model, cut)
    if late:
        _quantise_and_place(checkpoint, setup.packed, device, where)
    return checkpoint


def with_stored_precision(folder: Path, wanted: Wanted) -> Wanted:
    """A packed folder says its precision. Raises InputError where another one, or an adapter, was asked for."""
    return replace(wanted, precision=_stored_precision(folder, wanted) or wanted.precision)


def pick_devices(device: Device) -> list[torch.device]:
    """One, or several as a list or with commas: cuda:0,cuda:1. Raises InputError or DeviceError."""
    names: Any = device.split(",") if isinstance(device, str) else device
    names = names if isinstance(names, (list, tuple)) else [names]
    found = [pick_device(name.strip() if isinstance(name, str) else name) for name in names]
    if not found:
        raise InputError("no device is given; use auto, cpu, cuda, cuda:1, mps, or several GPUs with commas.")
    return found


def setup_of(folder: Path, wanted: Wanted, devices: Sequence[torch.device], tensor: int = 1) -> Setup:
    """On a GPU by plan; elsewhere what was asked for is done, and nothing else. tensor: devices that share every
    layer with this one. Raises MemoryPlanError."""
    first, precision = devices[0], wanted.precision
    parts = parts_of(_words(wanted.offload)) if wanted.offload != "auto" else ()
    if len(devices) > 1 and (wanted.offload or first.type == "mps"):
        raise InputError("offload and several devices do not go together; choose one of them.")
    if first.type == "cuda" and len(devices) == 1:
        card = replace(Card.of(first), dtype=pick_dtype(wanted.dtype, first))
        return plan_to_load(folder, card, Ask(precision, _words(wanted.offload), tensor), wanted.job).setup
    precision = None if precision == "auto" else precision
    by_itself = first.type == "cpu" and precision is None and wanted.dtype == "auto" and not packed_precision(folder)
    dtype = torch.bfloat16 if by_itself and is_faster_in_bf16(folder) else wanted.dtype
    kind, packed = pick_precision(precision, dtype, first)
    setup = Setup(packed or _NAMES[kind], kind, parts, slots=FEWEST_SLOTS if {"und", "gen"} & set(parts) else 0)
    if first.type == "cuda":
        config = read_config(folder)
        cards = [Card.of(device) for device in devices]
        check_split(config, cards, usual_demand(config), setup, packed=packed_precision(folder) is not None)
    return setup


LARGE = 4 * GIB


def is_faster_in_bf16(folder: Path) -> bool:
    """Whether the CPU should compute in bfloat16 unless told otherwise: it has instructions for it, and the weights
    are stored in it and large, so that float32 would be slow and take twice their room. Small models stay in
    float32, in which a request in a batch is what it is alone to the last digits."""
    if not computes_bf16():
        return False
    return stored_bytes(folder).get("BF16", 0) >= LARGE


_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def plan_for(folder: Path, card: Card, ask: Ask, demand: Demand | None = None, others: Sequence[Demand] = ()) -> Plan:
    """The plan of a folder on a card, a packed one in what it was packed. demand: one picture at the checkpoint's
    own size, unless given; others: see `plan`. Raises MemoryPlanError, or InputError for layers that cannot be shared
    so."""
    stored = _stored_precision(folder, Wanted(precision=ask.precision))
    ask = replace(ask, precision=stored or ask.precision, packed=stored is not None)
    return plan_sizes(read_config(folder), card, ask, demand, len(read_tokenizer(folder)), others)


def plan_sizes(
    config: ModelConfig,
    card: Card,
    ask: Ask,
    demand: Demand | None = None,
    tokens: int = 0,
    others: Sequence[Demand] = (),
) -> Plan:
    """The same of sizes alone. tokens: of the tokenizer, 0 for as many as the vocabulary holds."""
    check(Grid(tensor=ask.tensor), config.llm)
    return choose(config, card, demand or usual_demand(config), ask, tokens, others)


def plan_to_load(folder: Path, card: Card, ask: Ask, job: str | None = None) -> Plan:
    """The plan of a model that is loaded for a job, or for whatever comes: what is left to us has room for the usual
    request of every job, where that can be, since what is loaded stays where it is. Else one picture is enough, so
    that smaller requests are not refused with a large one. Raises as `plan_for` does."""
    if job not in (None, *JOBS):
        raise InputError(f"job {job!r} is unknown; use one of {', '.join(JOBS)}, or None for all of them.")
    config = read_config(folder)
    first, *others = (usual_demand(config, one) for one in (JOBS if job is None else (job,)))
    with contextlib.suppress(MemoryPlanError):
        return plan_for(folder, card, ask, first, others)
    return plan_for(folder, card, ask)


def usual_demand(config: ModelConfig, job: str = "draw") -> Demand:
    """Of a picture of the size that the checkpoint draws unless told otherwise."""
    preset = {**PRESETS["draw"], **config.presets.get("draw", {})}
    return Demand.of(config, job, preset["height"], preset["width"])


def _words(offload: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    return tuple(offload) if isinstance(offload, Iterable) and not isinstance(offload, str) else offload


def _stored_precision(folder: Path, wanted: Wanted) -> str | None:
    stored = packed_precision(folder)
    if stored and wanted.precision not in (None, "auto", stored):
        raise InputError(
            f"{os.fspath(folder)} is packed in {stored}, and precision {wanted.precision!r} was asked for; leave it "
            "out, or pack the original again."
        )
    if stored and wanted.lora is not None:
        raise InputError("an adapter cannot be merged into packed weights; load the original with it, and pack that.")
    return stored


def _quantise_and_place(checkpoint: Checkpoint, precision: str | None, device: torch.device, where: Place) -> None:
    """Quantises a model that lies on the host, if asked to, a module at a time on the device, and puts all in its
    place."""
    model = checkpoint.model
    for name, owner in list(model.named_modules()):
        if precision is not None and is_quantised(model, owner, precision):
            packed = quantised(model, owner.to(device), precision)
            assert packed is not None
            replace_module(model, owner, packed.to(where(f"{name}.weight")))
            owner._parameters.clear()
            continue
        for key, value in owner._parameters.items():
            if value is not None:
                value.data = value.data.to(where(f"{name}.{key}"))


def measure_room(runtime: Runtime, setup: Setup) -> None:
    """What a request's demand depends on besides its numbers."""
    runtime.room.tile = setup.tile
    device = runtime.checkpoint.model.device
    runtime.room.widened = device.type == "cuda" and Card.of(device).widens(setup.packed)
    model, vae = runtime.checkpoint.model, runtime.checkpoint.vae
    modules = {"vit": (model.vit, model.connector), "vae": (vae,), "head": (model.lm_head,)}
    runtime.room.visitors = {
        part: sum(value.numel() * value.element_size() for module in modules[part] for value in module.parameters())
        for part in VISITS
        if part in setup.offload
    }
