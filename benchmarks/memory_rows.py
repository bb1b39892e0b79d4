"""Rows of benchmarks/memory.py that share their weights, in one process: a line of JSON for each."""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bagel import Bagel, checkpoint
from bagel.bench.jobs import noise_picture
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Read
from bagel.infer.image import ImageStep
from bagel.infer.loading import measure_room
from bagel.infer.pipeline import find_model
from bagel.memory.cards import DRIVER, Card
from bagel.memory.place import arrange, placer
from bagel.memory.plan import Ask, Plan, choose
from bagel.memory.sizes import GIB, Demand
from bagel.memory.stream import StreamedBlock
from bagel.model.published import SEVEN_B
from bagel.model.quantise import is_quantised, quantised, replace_module
from bagel.pack import LatentPart, TextPart
from bagel.tokens import Tokenizer

DEVICE = torch.device("cuda", 0)
WARM_UP = 7
"""Timesteps of the warm-up: the fewest that end in an update without guidance, whose kernels are others."""


@dataclass(frozen=True)
class Row:
    """card: gigabytes, 0 for the whole GPU; against: the row whose time is the measure; most_peak: GiB and
    most_time: a multiple of `against`, as the issue wants them."""

    card: float
    precision: str
    offload: str | None = None
    job: str = "draw"
    against: str | None = None
    most_peak: float | None = None
    most_time: float | None = None


ROWS = {
    "bf16": Row(0, "bf16"),
    "edit bf16": Row(0, "bf16", job="edit"),
    "32": Row(32, "bf16", against="bf16", most_time=1.05),
    "32 edit": Row(32, "bf16", job="edit", against="edit bf16", most_time=1.05),
    "fp8": Row(0, "fp8"),
    "24": Row(24, "fp8", against="fp8", most_peak=18.0, most_time=1.05),
    "edit fp8": Row(0, "fp8", job="edit"),
    "24 edit": Row(24, "fp8", job="edit", against="edit fp8", most_time=1.05),
    "nf4": Row(0, "nf4", against="bf16"),
    "16": Row(16, "nf4", against="bf16", most_peak=14.5, most_time=1.5),
    "16 edit": Row(16, "nf4", "auto", job="edit", against="edit bf16"),
    "12": Row(12, "nf4", against="bf16", most_peak=10.8, most_time=2.0),
    "24 bf11": Row(24, "bf11", against="bf16", most_time=1.2),
    "8": Row(8, "nf4", "auto", against="nf4", most_peak=7.3),
    "24 exact": Row(24, "bf16", "auto", against="bf16"),
    "8 exact": Row(8, "bf16", "auto", against="bf16"),
    "8 expandable": Row(8, "nf4", "auto", against="nf4", most_peak=7.3),
    "int8": Row(0, "int8", against="bf16"),
    "16 int8": Row(16, "int8", "auto", against="int8"),
    "12 edit": Row(12, "nf4", "auto", job="edit", against="edit bf16"),
    "8 edit": Row(8, "nf4", "auto", job="edit", against="edit bf16"),
}


def planned(row: Row) -> Plan:
    """What the planner gives a card of that size. Needs no GPU."""
    card = Card.imagined(f"{row.card:g}") if row.card else Card("the whole GPU", 79 * GIB, 78 * GIB)
    return choose(SEVEN_B, card, Demand.of(SEVEN_B, row.job), Ask(row.precision, row.offload))


def grouped(names: list[str]) -> list[list[str]]:
    """Rows with the same weights in the same places, in the order of the first."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        setup = planned(ROWS[name]).setup
        groups.setdefault((setup, name.endswith("expandable")), []).append(name)
    return list(groups.values())


# --- the model ---------------------------------------------------------------------------------------------------


def random_model(plan: Plan) -> checkpoint.Checkpoint:
    """As `checkpoint.load` does it: a tensor at a time, quantised on the GPU, then to its place."""
    torch.manual_seed(0)
    setup = plan.setup
    model, vae = checkpoint.build(SEVEN_B)
    where = placer(setup, DEVICE)
    for prefix, module in (("", model), ("vae.", vae)):
        for name, owner in list(module.named_modules()):
            packs = bool(setup.packed) and module is model and is_quantised(model, owner, str(setup.packed))
            for key, empty in list(owner._parameters.items()):
                if empty is None:
                    continue
                value = torch.empty(empty.shape, dtype=setup.dtype, device=DEVICE)
                ones = "norm" in f"{name}.{key}" and key == "weight"
                value.fill_(1) if ones else value.normal_(0, 0.02)
                place = DEVICE if packs else where(f"{prefix}{name}.{key}")
                owner._parameters[key] = nn.Parameter(value.to(place), requires_grad=False)
                del value
            if packs:
                packed = quantised(model, owner, str(setup.packed))
                assert packed is not None
                replace_module(model, owner, packed.to(where(f"{name}.weight")))
                owner._parameters.clear()
    return checkpoint.Checkpoint(SEVEN_B, model, vae, Tokenizer.from_folder(find_model("mini")))


def ready(row: Row, plan: Plan, folder: Path | None) -> tuple[Bagel, dict[str, Any]]:
    torch.cuda.reset_peak_memory_stats()
    host, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    if folder:
        bagel = Bagel.load(folder, device=DEVICE, precision=row.precision, offload=row.offload, job=row.job)
    else:
        made = random_model(plan)
        runtime = Runtime.of(made)
        arrange(made, plan.setup, DEVICE)
        measure_room(runtime, plan.setup)
        bagel = Bagel(runtime)
    torch.cuda.synchronize()
    return bagel, {
        "load_seconds": round(time.perf_counter() - began, 2),
        "load_peak_gib": gib(torch.cuda.max_memory_allocated()),
        "load_host_gib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - host) / 2**20, 2),
        "weights_gib": gib(torch.cuda.memory_allocated()),
    }


# --- a row -------------------------------------------------------------------------------------------------------


def limit(row: Row) -> None:
    """Lets this process have what a card of that size would leave it; the driver's share is left out."""
    total = torch.cuda.mem_get_info(DEVICE)[1]
    allowed = int(row.card * GIB) - DRIVER if row.card else total
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(allowed / total, 1.0), DEVICE)


class Updates:
    """Clock and bytes moved from the first update of a drawing to its last; the GPU is waited for at both."""

    def __init__(self, bagel: Bagel) -> None:
        self.bagel, self.marks = bagel, []

    def __call__(self, index: int, event: Any) -> None:
        if isinstance(event, ImageStep) and event.update in (1, event.updates):
            torch.cuda.synchronize()
            self.marks.append((time.perf_counter(), fetched(self.bagel), event.update))

    @property
    def seconds_and_bytes(self) -> tuple[float, float]:
        """Of one update."""
        (began, first, a), (ended, last, b) = self.marks
        return (ended - began) / (b - a), (last - first) / (b - a)


def job(bagel: Bagel, row: Row, timesteps: int, progress: Any = None) -> Any:
    options: dict[str, Any] = {"seed": 1, "num_timesteps": timesteps, "progress": progress}
    if row.job == "edit":
        return bagel.edit(noise_picture(1024), "make it night", **options)
    return bagel.draw("a red cube on a table", **options)


def measure(bagel: Bagel, name: str, timesteps: int, warm: set[str]) -> dict[str, Any]:
    row = ROWS[name]
    plan = planned(row)
    limit(row)
    if row.job not in warm:
        job(bagel, row, WARM_UP)  # compiles, brings what stays to its slot
        warm.add(row.job)
    job(bagel, row, 2)  # the allocator's pieces, within the limit
    torch.cuda.reset_peak_memory_stats()
    retries = torch.cuda.memory_stats()["num_alloc_retries"]
    updates, began = Updates(bagel), time.perf_counter()
    result = job(bagel, row, timesteps, updates)
    torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - began, torch.cuda.max_memory_allocated()
    each, moved = updates.seconds_and_bytes
    return {
        "row": name,
        **asdict(row),
        "setup": plan.setup.words,
        "tile": plan.setup.tile,
        "slots": plan.setup.slots,
        "seconds": round(seconds, 3),
        "update_ms": round(each * 1e3, 1),
        "phases": {key: round(value, 3) for key, value in result.stats.seconds.items()},
        "updates": result.stats.updates,
        "peak_gib": gib(peak),
        "planned_gib": gib(plan.peak),
        "planned_over_measured": round(plan.peak / peak, 3),
        "reserved_gib": gib(torch.cuda.max_memory_reserved()),
        "allocator_retries": torch.cuda.memory_stats()["num_alloc_retries"] - retries,
        "moved_gib_an_update": gib(moved),
        "planned_moved_gib": gib(plan.moved),
        "moved_gb_per_second": round(moved / each / 1e9, 2),
        "finite": bool(result.latent.isfinite().all()),
        "black": result.image.getextrema() == ((0, 0),) * 3,
    }


def attempt(bagel: Bagel, name: str, timesteps: int, warm: set[str]) -> dict[str, Any]:
    """`measure`; what fails is said, so that the other rows go on."""
    try:
        return measure(bagel, name, timesteps, warm)
    except Exception as error:
        return {"row": name, "failed": f"{type(error).__name__}: {error}"[:400]}


def fetched(bagel: Bagel) -> int:
    first = bagel.runtime.checkpoint.model.decoder.layers[0]
    return first.stream.fetched if isinstance(first, StreamedBlock) else 0


def gib(size: float) -> float:
    return round(size / GIB, 2)


def link() -> dict[str, Any]:
    """Host to device from pinned memory, pieces as large as a layer of nf4 and of bf16: the median of 12."""
    rates = {}
    for size in (124 * 2**20, 466 * 2**20):
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        there = torch.empty(size, dtype=torch.uint8, device=DEVICE)
        times = []
        for _ in range(12):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            there.copy_(host, non_blocking=True)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        rates[f"{size // 2**20} MiB"] = round(size / sorted(times)[len(times) // 2] / 1e6, 2)
    return {
        "row": "link",
        "gb_per_second": rates,
        "device": torch.cuda.get_device_name(DEVICE),
        "torch": torch.__version__,
        "free_gib": gib(torch.cuda.mem_get_info(DEVICE)[0]),
    }


@torch.inference_mode()
def velocity(bagel: Bagel) -> torch.Tensor:
    """Of one update of a picture of 512 x 512: the same random weights and noise in every precision."""
    engine, model, tokenizer = bagel.runtime.engine, bagel.runtime.checkpoint.model, bagel.runtime.checkpoint.tokenizer
    noise = torch.randn(1024, SEVEN_B.latent_width, generator=torch.Generator().manual_seed(1))
    context = engine.new_context()
    engine.forward([Read(context, TextPart(tokenizer.segment("a red cube on a table")))])
    part = LatentPart(noise.to(DEVICE), (32, 32), 0.7, noised=True)
    return model.velocity(engine.forward([Read(context, part, keep=False)])[0].latents).cpu()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    parser.add_argument("--timesteps", type=int, required=True)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.names == ["link"]:
        print(json.dumps(link()))
        return
    first, plan = ROWS[arguments.names[0]], planned(ROWS[arguments.names[0]])
    torch.zeros(1, device=DEVICE)
    smallest = min((ROWS[name].card or 1e6) for name in arguments.names)
    limit(replace(first, card=smallest if smallest < 1e6 else 0))  # loading has to fit the smallest of them too
    bagel, loaded = ready(first, plan, arguments.folder)
    kept, warm = arguments.keep / f"{plan.setup.precision}.pt", set[str]()
    for name in arguments.names:
        print(json.dumps(attempt(bagel, name, arguments.timesteps, warm) | loaded), flush=True)
    if not plan.setup.offload and not kept.exists():
        torch.save(velocity(bagel), kept)


if __name__ == "__main__":
    main()
