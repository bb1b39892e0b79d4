"""One rank of the inference part of `multi_gpu.py`: links, one GPU alone, then every way of sharing the work."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import operator
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bagel.bench import ceilings
from bagel.bench.jobs import EDIT, PROMPT, noise_picture
from bagel.bench.subject import random_checkpoint, wait
from bagel.checkpoint import Checkpoint, read_config
from bagel.infer.conversation import Runtime
from bagel.infer.follow import follow
from bagel.infer.lead import LeadEngine
from bagel.infer.pipeline import Bagel, find_model
from bagel.infer.together import place_in
from bagel.memory.place import spread
from bagel.model.decoder import one_by_one
from bagel.model.published import SEVEN_B
from bagel.model.quantise import quantise
from bagel.parallel.crew import Crew
from bagel.parallel.grid import Grid
from bagel.parallel.rows import SharedRows, gather_into
from bagel.parallel.shares import Cut, cut_model, join_shares

SIDE, WARM, WRITTEN = 1024, 4, 65
LINK_BYTES = (4 * 2**20, 28 * 2**20, 256 * 2**20)
"""A rank's keys and values of a picture in a layer, the sum of its tokens, and enough for the link's best."""
Results = dict[str, Any]


def grids(count: int, most_shares: int) -> list[Grid]:
    """What is measured on so many GPUs; those that need no cut weights come first."""
    found = [Grid(rows=count), Grid(branches=count)] if count <= 3 else [Grid(rows=count)]
    if count % 2 == 0 and count > 2:
        found += [Grid(branches=2, rows=count // 2), Grid(branches=2, tensor=min(count // 2, most_shares))]
        found += [Grid(rows=count // 2, tensor=2)]
    if most_shares % count == 0:
        found.append(Grid(tensor=count))
    unique = [grid for grid in dict.fromkeys(found) if grid.size == count and most_shares % grid.tensor == 0]
    return sorted(unique, key=lambda grid: grid.tensor)


class Measurer:
    """Runs jobs over a crew and keeps what is known so far."""

    def __init__(self, crew: Crew, arguments: argparse.Namespace) -> None:
        self.crew, self.given = crew, arguments
        self.config = read_config(find_model("mini")) if arguments.tiny else SEVEN_B
        self.dtype = torch.float32 if crew.device.type == "cpu" else torch.bfloat16
        self.side = 64 if arguments.tiny else SIDE
        self.results: Results = {"rows": []}
        self.reference: dict[str, torch.Tensor] = {}
        self.words: dict[str, list[int]] = {}

    def made(self) -> Checkpoint:
        return random_checkpoint(self.config, self.crew.device, self.dtype)

    def keep(self) -> None:
        if not self.crew.rank:
            self.given.out.write_text(json.dumps(self.results), encoding="utf-8")

    def jobs(self) -> dict[str, Callable[[Bagel, int], Any]]:
        sides = {"height": self.side, "width": self.side}
        half = {"height": self.side // 2, "width": self.side // 2}
        scene, seen = noise_picture(self.side), noise_picture(self.config.images.vit.max_size)
        return {
            "draw": lambda bagel, steps: bagel.draw(PROMPT, seed=1, num_timesteps=steps, **sides),
            "edit": lambda bagel, steps: bagel.edit(scene, EDIT, seed=1, num_timesteps=steps),
            "small": lambda bagel, steps: bagel.draw(PROMPT, seed=1, num_timesteps=steps, **half),
            "answer": lambda bagel, steps: bagel.chat(
                [seen, "What is this?"], max_tokens=WRITTEN if steps > WARM else 4
            ),
        }

    def row(self, way: str, checkpoint: Checkpoint, *, led: bool) -> None:
        """All jobs in one way. led: by a leader, whose followers serve each job, and then say what it took of their
        memory."""
        row: Results = {"way": way, "jobs": {}}
        for name, job in self.jobs().items():
            row["jobs"][name] = self._job(name, job, led, checkpoint)
        if not self.crew.rank:
            print(json.dumps(row), flush=True)
            self.results["rows"].append(row)
            self.keep()

    def _job(self, name: str, job: Callable[[Bagel, int], Any], led: bool, checkpoint: Checkpoint) -> Results:
        crew, runtime = self.crew, Runtime.of(checkpoint)
        self._reset_peaks()
        found: Results = {}
        if not crew.rank:
            if led:
                runtime.engine = LeadEngine(runtime.engine.model, runtime.engine.rules, crew=crew)
            found = self._timed(name, job, Bagel(runtime))
            if led:
                crew.order(None)
        elif led:
            follow(runtime.engine, crew)
        found["peak_gib"] = [peak for peaks in crew.gather(self._peaks()) for peak in peaks][: crew.size]
        return found

    def _timed(self, name: str, job: Callable[[Bagel, int], Any], bagel: Bagel) -> Results:
        """Warm-up with few updates, one update for the velocity's error, then the whole job."""
        job(bagel, WARM)
        found: Results = {}
        if name != "answer":
            latent = job(bagel, 2).latent  # noise less the velocity
            reference = self.reference.setdefault(name, latent)
            noise = self._noise(latent)
            found["velocity_error"] = float((latent - reference).norm() / (noise - reference).norm())
        wait(self.crew.device)
        began = time.perf_counter()
        result = job(bagel, self.given.timesteps)
        wait(self.crew.device)
        seconds = time.perf_counter() - began
        found["seconds"] = round(seconds, 4)
        found["phases"] = {phase: round(value, 4) for phase, value in result.stats.seconds.items()}
        if name != "answer":
            return {**found, "finite": bool(result.latent.isfinite().all())}
        wanted = self.words.setdefault(name, result.token_ids)
        same = sum(1 for _ in itertools.takewhile(bool, map(operator.eq, wanted, result.token_ids)))
        return {**found, "finite": True, "tokens": len(result.token_ids), "same_tokens": same}

    def _noise(self, latent: torch.Tensor) -> torch.Tensor:
        from bagel.infer.image import noise_for

        return noise_for((1, len(latent)), latent.shape[1], 1)

    def _reset_peaks(self) -> None:
        gc.collect()
        if self.crew.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.crew.device)

    def _peaks(self) -> list[float]:
        if self.crew.device.type != "cuda":
            return [0.0]
        return [round(torch.cuda.max_memory_allocated(self.crew.device) / 2**30, 2)]

    # --- the parts ---------------------------------------------------------------------------------------

    def links(self) -> None:
        """Bytes a second of a sum and of an exchange over all ranks, as NCCL counts them: `bus` is what a link
        carries."""
        device, size = self.crew.device, self.crew.size
        found: Results = {}
        for length in LINK_BYTES if device.type == "cuda" else (2**16,):
            count = length // 2
            mine = torch.ones(count, dtype=torch.bfloat16, device=device)
            everyone = torch.empty(size * count, dtype=torch.bfloat16, device=device)
            both = {
                "all-reduce": (lambda mine=mine: dist.all_reduce(mine), length, 2 * (size - 1) / size),
                "all-gather": (
                    lambda mine=mine, everyone=everyone: gather_into(everyone, mine),
                    length * size,
                    (size - 1) / size,
                ),
            }
            for name, (call, moved, bus) in both.items():
                took = ceilings.seconds(call, device, 20)
                found[f"{name} {length / 2**20:g} MiB"] = {
                    "microseconds": round(took * 1e6, 1),
                    "gb_per_s": round(moved / took / 1e9, 3),
                    "bus_gb_per_s": round(moved * bus / took / 1e9, 3),
                }
        self.results["links"] = found
        self.keep()

    def one_gpu(self) -> None:
        """The leader's ceilings, while the others wait."""
        if not self.crew.rank:
            found = ceilings.measure(self.config.llm, self.crew.device, self.dtype)
            self.results["ceilings"] = found.rounded()
            self.keep()
        self.crew.gather(None)

    def ways(self) -> None:
        most = self.config.llm.num_key_value_heads
        whole: Checkpoint | None = self._precise(self.made())
        self.row("one GPU", whole, led=False)
        if self.crew.size == 1:
            return self.alone(whole)
        for grid in grids(self.crew.size, most):
            self.crew.groups.clear()
            self.crew.take_places(grid)
            if grid.tensor > 1:
                whole = None  # a share is cut of weights made anew
                gc.collect()
            used = whole or self._share(grid)
            place_in(self.crew, used.model)
            self.row(grid.words, used, led=True)
            used.model.decoder.through = one_by_one
            del used
        whole = None
        self._reset_peaks()
        return self.layers()

    def alone(self, whole: Checkpoint) -> None:
        """On one GPU: the code for several, with groups of one rank. Its results are those of one GPU, and what it
        takes longer is what orders, sums and exchanges cost to start."""
        group = dist.new_group([0])
        whole.model.decoder.through = SharedRows(group, 0, 1)
        self.row("rows=1", whole, led=True)
        whole.model.decoder.through = one_by_one
        join_shares(whole.model, group, Cut(0, 1))
        self.row("tensor=1", whole, led=True)

    def _share(self, grid: Grid) -> Checkpoint:
        made = self.made()
        cut_model(made.model, Cut(self.crew.place[2], grid.tensor))
        return self._precise(made)

    def _precise(self, made: Checkpoint) -> Checkpoint:
        if self.given.precision:
            quantise(made.model, self.given.precision)
        return made

    def layers(self) -> None:
        """The leader alone, over the memory of all GPUs."""
        self.crew.gather(None)  # the others have let go of theirs
        if not self.crew.rank:
            made = self._precise(self.made())
            spread(made, self._devices())
            row: Results = {"way": f"layers={self.crew.size}", "jobs": {}}
            for name, job in self.jobs().items():
                for device in self._devices() if self.crew.device.type == "cuda" else []:
                    torch.cuda.reset_peak_memory_stats(device)
                found = self._timed(name, job, Bagel(Runtime.of(made)))
                found["peak_gib"] = [
                    round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else 0.0
                    for device in self._devices()
                ]
                row["jobs"][name] = found
            print(json.dumps(row), flush=True)
            self.results["rows"].append(row)
            self.keep()
        self.crew.gather(None)

    def _devices(self) -> list[torch.device]:
        return [torch.device(self.crew.device.type, index) for index in range(self.crew.size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--timesteps", type=int, default=26)
    parser.add_argument("--precision", choices=("fp8", "int8", "nf4"))
    given = parser.parse_args()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu") if given.tiny else torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(1 if given.tiny else 8)
    crew = Crew.join(None, rank, size, device)
    measurer = Measurer(crew, given)
    for part in (measurer.links, measurer.one_gpu, measurer.ways):
        part()
    crew.gather(None)
    crew.leave()


if __name__ == "__main__":
    main()
