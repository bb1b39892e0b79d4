"""One table: variants of the trainer's step on one device, beside what the device can do."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bagel.bench.subject import forget
from bagel.data.packing import TrainPack
from bagel.devices import pick_device
from bagel.errors import DeviceError, InputError
from bagel.model.config import ModelConfig
from bagel.train import parallel
from bagel.train.bench import where
from bagel.train.bench.build import trainer
from bagel.train.bench.fed import loader
from bagel.train.bench.shapes import Mix, Packs, model_config
from bagel.train.config import ParallelPart
from bagel.train.log import flops, memory_gib, peak_flops
from bagel.train.loop import Agreed, Done, Trainer
from bagel.train.parallel import World

VARIANTS = tuple(
    f"{how}-{what}" for how in ("eager", "compiled") for what in ("full", "mlp", "mlp-2", "mlp-3", "products", "none")
)
"""Compiled or not, what is recomputed in backward and in which layers (see `parallel.recompute`,
`parallel.recompute_every`)."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """lora: the 7B sizes with adapters of `rank`. smoke: tiny, on the CPU. variants: empty is a choice by device.
    optimizer: trainer (over bf16 weights the one with an exact float32 master), or fused (PyTorch's, over the weights
    as they are: what the official code was measured with). params: bf16 or fp32 weights (fp32 goes
    through FSDP's casts, as several GPUs do). loader: measure the last variant once more, fed by the real data loader
    with so many `workers`."""

    lora: bool = False
    smoke: bool = False
    variants: tuple[str, ...] = ()
    optimizer: str = "trainer"
    params: str = "bf16"
    steps: int = 9
    warmup: int = 4
    rank: int = 32
    profile: bool = True
    loader: bool = False
    workers: int = 8


Results = dict[str, Any]


def bench(
    options: BenchOptions,
    say: Callable[[str], None] = lambda text: None,
    measured: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Runs the table; -> plain values, ready for JSON. say: called with a line before each part. measured: called
    with all there is after each row, so that an end in the middle loses one row and no more.

    Raises DeviceError without a GPU (but for `smoke`), InputError for numbers that cannot be.
    """
    if options.steps < 2 or options.warmup < 1:
        raise InputError("steps must be at least 2, warmup at least 1.")
    if options.lora and options.loader:
        raise InputError("the loader is measured with full training alone; leave out one of lora and loader.")
    device = pick_device("cpu" if options.smoke else "auto")
    if device.type != "cuda" and not options.smoke:
        raise DeviceError("`bagel bench train` needs a GPU; try --cpu-smoke to see whether it runs.")
    config, mix = model_config(options.lora, options.smoke), Mix.of(options.lora, options.smoke)
    packs = Packs(config, mix, pinned=device.type == "cuda")
    dtype = torch.float32 if options.smoke else torch.bfloat16
    say("ceilings")
    found = where.ceilings(config, packs.packs[0].pack.layout.num_und, device, dtype)
    rows: list[Results] = []
    results = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "model": _model_name(options, config),
        "options": {"optimizer": options.optimizer, "params": options.params, "steps": options.steps},
        "pack": _pack_facts(packs.packs[0], config, options),
        "ceilings": found,
        "rows": rows,
    }
    measured(results)
    for name in options.variants or _default_variants(options):
        rows.append(_measured(name, options, config, packs, device, say))
        measured(results)
    if not options.variants and "step_seconds" not in rows[-1]:
        say("compiled-mlp, since that does not fit")
        rows.append(_measured("compiled-mlp", options, config, packs, device, say))
        measured(results)
    return results


def _default_variants(options: BenchOptions) -> tuple[str, ...]:
    if options.smoke:
        return ("eager-none",)
    return ("compiled-mlp", "compiled-mlp-2") if options.lora else ("eager-full", "compiled-products")


def _measured(
    name: str,
    options: BenchOptions,
    config: ModelConfig,
    packs: Packs,
    device: torch.device,
    say: Callable[[str], None],
) -> Results:
    """One row; without `step_seconds` if it does not fit the device."""
    compiled, recompute, every = (*name.split("-"), "1")[:3]
    part = ParallelPart(
        params="fp32" if options.smoke else options.params,
        compile="on" if compiled == "compiled" else "off",
        recompute=recompute,
        recompute_every=int(every),
    )
    torch._dynamo.reset()
    forget(device)
    world = parallel.start(part, device.type)
    try:
        say(f"{name}: building")
        rank = options.rank if options.lora else None
        made = trainer(config, packs, part, world, options.optimizer, rank)
        return _timed(made, name, options, config, packs, lambda text: say(f"{name}: {text}"))
    except torch.cuda.OutOfMemoryError:
        return {"variant": name, "note": "out of memory"}
    finally:
        parallel.stop(world)


def _timed(
    made: Trainer, name: str, options: BenchOptions, config: ModelConfig, packs: Packs, say: Callable[[str], None]
) -> Results:
    world, begin = made.world, time.perf_counter()
    say("warming up (compiles)")
    for _ in range(max(options.warmup, len(packs.packs) + 1)):
        made.step()
    _wait(world)
    warm = time.perf_counter() - begin
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)
    say(f"warm after {warm:.0f} s")
    waited = made.feed.waited
    took, _ = _steps(made, options.steps)
    waited = made.feed.waited - waited
    typical = statistics.median(took)
    say(f"{1000 * typical:.0f} ms a step")
    batch = packs.packs[0]
    work, peak = _work(config, batch, options), peak_flops(world.device)
    row = {
        "variant": name,
        "step_seconds": typical,
        "mean_seconds": statistics.fmean(took),
        "tokens_per_second": len(batch) / typical,
        "tflops": work / typical / 1e12,
        "mfu": work / typical / peak if peak else None,
        "peak_gib": memory_gib(world.device),
        "data_wait": waited / sum(took),
        "warmup_seconds": warm,
        "vae_seconds": where.seconds(lambda: made.setup.encoder(batch.to(world.device)), world.device, 3),
        "trained_parameters": sum(value.numel() for value in made.setup.parameters.values()),
    }
    if options.lora:
        full = flops(config, batch)
        row["note"] = (
            f"counted is what adapters need, forward and input gradients; by the 6 x weights of a full fine-tune it "
            f"would be {full / typical / 1e12:.0f} TFLOP/s" + (f", MFU {full / typical / peak:.1%}" if peak else "")
        )
    if options.profile:
        say("profiling")
        found = where.profiled(made.step, world.device, 1)
        row["where"] = where.with_update(found.kinds, 1000 * _update_seconds(made))
        row["kernels"] = [kernel._asdict() for kernel in found.kernels]
        row["busy_ms"] = found.busy
    if options.loader and not options.lora:
        say("from files, through the data loader")
        try:
            row["fed"] = _fed(made, options, config, len(batch))
        except torch.cuda.OutOfMemoryError:  # packs from files differ in size
            row["fed"] = {"variant": "the same from files"}
    return row


def _update_seconds(made: Trainer) -> float:
    """Of the optimiser alone, on gradients of zeros."""
    given = made.setup.parameters.values()

    def update() -> None:
        for parameter in given:
            parameter.grad = torch.zeros_like(parameter)
        made.update(0.0, 1)

    def zeros() -> None:
        for parameter in given:
            parameter.grad = torch.zeros_like(parameter)

    device = made.world.device
    both, one = where.seconds(update, device, 3), where.seconds(zeros, device, 3)
    made.setup.optimizer.zero_grad()
    return max(0.0, both - one)


def _steps(made: Trainer, count: int) -> tuple[list[float], list[Agreed]]:
    """Seconds of each step and its facts. As in training, each step's numbers are read after the next was launched."""
    took: list[float] = []
    done: list[Done] = []
    if made.world.device.type != "cuda":
        for _ in range(count):
            begin = time.perf_counter()
            done.append(made.step()[0])
            took.append(time.perf_counter() - begin)
        return took, [one.agreed for one in done]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        done.append(made.step()[0])
        event.record()
        if len(done) > 1:
            float(done[-2].norm)
    _wait(made.world)
    return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(events)], [one.agreed for one in done]


def _fed(made: Trainer, options: BenchOptions, config: ModelConfig, tokens: int) -> Results:
    """The row of a trainer that takes its packs from files: means, since the packs differ."""
    pinned = made.world.device.type == "cuda"
    with TemporaryDirectory() as folder:
        mix = Mix.of(options.lora, options.smoke)
        data = loader(Path(folder), config, mix, made.setup.checkpoint.tokenizer, tokens, options.workers, pinned)
        made.feed = made.fed_by(data)
        for _ in range(options.warmup + options.workers):
            made.step()
        _wait(made.world)
        waited = made.feed.waited
        took, done = _steps(made, 3 * options.steps)
        waited = made.feed.waited - waited
        spent, peak = sum(took), peak_flops(made.world.device)
        del made.feed, data
    work = sum(agreed.flops for agreed in done)
    return {
        "variant": "the same from files",
        "step_seconds": spent / len(took),
        "tokens_per_second": sum(agreed.tokens for agreed in done) / spent,
        "tflops": work / spent / 1e12,
        "mfu": work / spent / peak if peak else None,
        "peak_gib": memory_gib(made.world.device),
        "data_wait": waited / spent,
        "workers": options.workers,
    }


def _work(config: ModelConfig, batch: TrainPack, options: BenchOptions) -> float:
    """FLOP of a pack as `log.flops` counts. With adapters the frozen weights have no gradients: 4 x weights for 6,
    and 2 x for the ViT, through which no gradient passes; attention and head as before but for the head's."""
    full = flops(config, batch)
    if not options.lora:
        return full
    llm, vit = config.llm, config.vit
    layer = llm.hidden_size * (2 * llm.hidden_size + 2 * llm.num_key_value_heads * llm.head_dim)
    layer += 3 * llm.hidden_size * llm.intermediate_size
    vit_layer = 4 * vit.hidden_size**2 + 2 * vit.hidden_size * vit.intermediate_size
    spared = 2 * layer * llm.num_hidden_layers * len(batch) + 4 * vit_layer * vit.num_built_layers * batch.counts["vit"]
    return full - spared - 2 * llm.vocab_size * llm.hidden_size * batch.counts["ce"]


def _pack_facts(batch: TrainPack, config: ModelConfig, options: BenchOptions) -> Results:
    und = batch.pack.layout.num_und
    return {
        "tokens": len(batch),
        "und": und,
        "gen": len(batch) - und,
        "vit": batch.counts["vit"],
        "labels": batch.counts["ce"],
        "pictures": len(batch.picture_sizes),
        "tflop": _work(config, batch, options) / 1e12,
    }


def _model_name(options: BenchOptions, config: ModelConfig) -> str:
    llm = config.llm
    kind = f"LoRA of rank {options.rank} on a frozen" if options.lora else "full training of a"
    sizes = f"{llm.layers.value} of {llm.num_hidden_layers} layers, width {llm.hidden_size}"
    return f"{kind} {sizes}; {options.params} weights, optimizer {options.optimizer}"


def _wait(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
