"""One rank of the training part of `multi_gpu.py`: tokens a second and MFU under FSDP2, a checkpoint saved and read
again, and the losses of 20 steps with a fixed global batch."""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bagel.data.packing import TrainPack
from bagel.model.config import LLMConfig, ModelConfig
from bagel.model.published import SEVEN_B, SO400M
from bagel.train import parallel
from bagel.train.bench.build import trainer
from bagel.train.bench.shapes import SMALL, Mix, Packs, make_pack, model_config
from bagel.train.config import OptimPart, ParallelPart
from bagel.train.log import flops, memory_gib, peak_flops
from bagel.train.loop import Trainer
from bagel.train.parallel import World, local, local_rows
from bagel.train.state import Checkpoints, newest

GLOBAL_BATCH, LOSS_STEPS = 8, 20
Results = dict[str, Any]


class Dealt:
    """Packs by number, of which every rank takes its own: the same batches whatever the number of ranks."""

    def __init__(self, config: ModelConfig, mix: Mix, world: World) -> None:
        self.config, self.mix, self.world, self.taken = config, mix, world, 0

    def __iter__(self) -> Dealt:
        return self

    def __next__(self) -> TrainPack:
        self.taken += 1
        return make_pack(self.config, self.mix, (self.taken - 1) * self.world.size + self.world.rank)

    def state_dict(self) -> Results:
        return {}

    def load_state_dict(self, states: object) -> None:
        """Runs begin anew."""


@torch.no_grad()
def same_everywhere(model: nn.Module) -> None:
    """Weights that depend on their names alone, not on who holds which rows of them."""
    for name, parameter in model.named_parameters():
        value: Any = local(parameter)
        if parameter.ndim == 1:
            value.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        generator = torch.Generator(value.device).manual_seed(zlib.crc32(name.encode()))
        whole = torch.randn(parameter.shape, generator=generator, device=value.device) * 0.02
        value.copy_(whole[local_rows(parameter)])


def part_for(tiny: bool, recompute: str) -> ParallelPart:
    if tiny:
        return ParallelPart(params="fp32", compile="off", recompute="none")
    return ParallelPart(params="bf16", compile="on", recompute=recompute)


def speed(world: World, config: ModelConfig, mix: Mix, part: ParallelPart, steps: int) -> tuple[Trainer, Results]:
    packs = Packs(config, mix, pinned=world.device.type == "cuda")
    made = trainer(config, packs, part, world, "trainer", None)
    for _ in range(4):
        made.step()
    _wait(world)
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(world.device)
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        done = made.step()[0]
        float(done.norm)
        _wait(world)
        taken.append(max(world.gather(time.perf_counter() - began)))
    typical, batch, peak = statistics.median(taken), packs.packs[0], peak_flops(world.device)
    return made, {
        "step_seconds": round(typical, 4),
        "tokens_per_second_per_gpu": round(len(batch) / typical, 1),
        "mfu": round(flops(config, batch) / typical / peak, 4) if peak else None,
        "peak_gib": [round(found, 2) for found in world.gather(memory_gib(world.device))],
        "tokens": len(batch),
        "trained_parameters": sum(value.numel() for value in made.setup.parameters.values()),
    }


def saved(made: Trainer, folder: Path) -> Results:
    """A checkpoint written, and read again by the same ranks."""
    store = Checkpoints(folder, 1, made.world)
    made.world.wait()
    began = time.perf_counter()
    problem = store.save(made.number, made.setup.tensors(), {"step": made.number, "norm": norm_of(made), "data": []})
    copied = time.perf_counter() - began
    problem = problem or store.finish()
    made.world.wait()
    found: Results = {"copied_seconds": round(copied, 2), "save_seconds": round(time.perf_counter() - began, 2)}
    if problem:
        return {**found, "problem": problem}
    return {**found, **read_again(made, folder)}


def read_again(made: Trainer, folder: Path) -> Results:
    """By any number of ranks; the weights are those that were saved."""
    path = newest(folder)
    assert path is not None
    store = Checkpoints(folder, 1, made.world)
    for value in made.setup.parameters.values():
        local(value.detach()).zero_()
    began = time.perf_counter()
    progress = store.load(path, made.setup.tensors())
    _wait(made.world)
    made.world.wait()
    took = time.perf_counter() - began
    size = sum(file.stat().st_size for file in path.iterdir()) / 2**30
    return {
        "ranks": made.world.size,
        "resume_seconds": round(took, 2),
        "gib": round(size, 2),
        "same_weights": abs(norm_of(made) / progress["norm"] - 1) < 1e-6,
    }


def norm_of(made: Trainer) -> float:
    parts = (local(value).detach().float() for value in made.setup.parameters.values())
    squares = sum(float(part.square().sum(dtype=torch.float64)) for part in parts)
    return float(made.world.sum([squares])[0] ** 0.5)


def losses(world: World, tiny: bool, part: ParallelPart) -> list[list[float]]:
    """(cross-entropy, squared error) of every step, over the whole batch."""
    config, mix = model_config(False, tiny), Mix.of(False, True)
    if not tiny:
        config = ModelConfig(llm=replace(SMALL, num_hidden_layers=4), vit=SO400M)
        mix = Mix(draw=1, edit=1, ask=1, picture=256, seen=252, asked=252)
    made = trainer(config, Packs(config, mix, count=1), part, world, "trainer", None)
    same_everywhere(made.model)
    same_everywhere(made.setup.checkpoint.vae)
    made.config = replace(made.config, accumulate=GLOBAL_BATCH // world.size, optim=OptimPart(lr=1e-3))
    made.feed = made.fed_by(Dealt(config, mix, world))
    found = []
    for _ in range(LOSS_STEPS):
        done = made.step()[0]
        ce, mse = world.sum(done.sums.double().sum(0).tolist())
        found.append([ce / done.agreed.ce_weights, mse / done.agreed.mse_tokens])
    return found


def _wait(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def _forget(world: World) -> None:
    torch._dynamo.reset()
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path, required=True, help="for the checkpoint")
    parser.add_argument("--large", action="store_true", help="the 7B sizes too")
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1 if given.tiny else 8)
    world = parallel.start(part_for(given.tiny, "none"), "cpu" if given.tiny else "cuda")
    results: Results = {"ranks": world.size}

    def keep(name: str, value: Any) -> None:
        results[name] = value
        if world.is_main:
            print(json.dumps({name: value}), flush=True)
            given.out.write_text(json.dumps(results), encoding="utf-8")

    mix = Mix.of(False, given.tiny)
    eager = replace(part_for(given.tiny, "none"), compile="off")
    keep("losses", losses(world, given.tiny, eager))
    _forget(world)
    # What fits one GPU decides for all, so that the steps compared are the same.
    small = model_config(False, given.tiny)
    made, found = speed(world, small, mix, part_for(given.tiny, "mlp"), given.steps)
    keep("small", found)
    keep("checkpoint", saved(made, given.folder) if world.size > 1 else _resumed(made, given.folder))
    del made
    _forget(world)
    if given.large:
        large = _large(given.tiny)
        _, found = speed(world, large, mix, part_for(given.tiny, "full"), given.steps)
        keep("large", found)
    world.wait()
    parallel.stop(world)


def _resumed(made: Trainer, folder: Path) -> Results:
    """What other ranks have saved, if they have."""
    return read_again(made, folder) if newest(folder) else {"note": "nothing was saved before"}


def _large(tiny: bool) -> ModelConfig:
    if not tiny:
        return SEVEN_B
    base = model_config(False, True)
    llm: LLMConfig = replace(base.llm, num_hidden_layers=2 * base.llm.num_hidden_layers)
    return replace(base, llm=llm)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
