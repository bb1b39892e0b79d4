"""Cards of 8 to 32 GB on one large GPU: memory is limited per process to the card's size, and every row of the
table of docs/memory.md is measured at the full 7B size with random weights, peak against plan, time against the
unlimited time of the same precision.

    python benchmarks/memory.py [--folder DIR] [--rows NAME ...] [--timesteps N] [--out FILE]

A row runs in a process of its own, which makes the weights on the GPU one by one and quantises them as loading
does (`--folder`: loads that folder instead, by Bagel.load, and times it). Rows: see ROWS. `link` measures the
link's ceiling, `quality` the velocity of every precision against bf16.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bagel import Bagel, MemoryPlanError, checkpoint
from bagel.bench.jobs import noise_picture
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Read
from bagel.infer.loading import measure_room
from bagel.infer.pipeline import find_model
from bagel.memory.cards import DRIVER, Card
from bagel.memory.place import arrange, placer
from bagel.memory.plan import Plan, choose
from bagel.memory.sizes import GIB, Demand
from bagel.memory.stream import StreamedBlock
from bagel.model.published import SEVEN_B
from bagel.model.quantise import is_quantised, quantised, replace_module
from bagel.pack import LatentPart, TextPart
from bagel.tokens import Tokenizer

DEVICE = torch.device("cuda", 0)


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
    "fp8": Row(0, "fp8"),
    "int8": Row(0, "int8", against="bf16"),
    "nf4": Row(0, "nf4", against="bf16"),
    "edit bf16": Row(0, "bf16", job="edit"),
    "edit fp8": Row(0, "fp8", job="edit"),
    "edit nf4": Row(0, "nf4", job="edit", against="edit bf16"),
    "32": Row(32, "bf16", against="bf16", most_time=1.05),
    "32 edit": Row(32, "bf16", job="edit", against="edit bf16", most_time=1.05),
    "24": Row(24, "fp8", against="fp8", most_peak=18.0, most_time=1.05),
    "24 edit": Row(24, "fp8", job="edit", against="edit fp8", most_time=1.05),
    "24 exact": Row(24, "bf16", "auto", against="bf16"),
    "16": Row(16, "nf4", against="bf16", most_peak=14.5, most_time=1.5),
    "16 edit": Row(16, "nf4", "auto", job="edit", against="edit bf16"),
    "12": Row(12, "nf4", against="bf16", most_peak=10.8, most_time=2.0),
    "12 edit": Row(12, "nf4", "auto", job="edit", against="edit bf16"),
    "8": Row(8, "nf4", "auto", against="bf16", most_peak=7.3),
    "8 edit": Row(8, "nf4", "auto", job="edit", against="edit bf16"),
    "8 exact": Row(8, "bf16", "auto", against="bf16"),
}


# --- one row, in a process of its own ----------------------------------------------------------------------------


def limited(row: Row) -> Card:
    """Limits this process, and says what the planner may count on: what the driver would take is left out."""
    torch.zeros(1, device=DEVICE)
    card = Card.of(DEVICE)
    if not row.card:
        return card
    allowed = int(row.card * GIB) - DRIVER
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info(DEVICE)[1], DEVICE)
    return replace(card, name=f"{row.card:g} GB of {card.name}", total=int(row.card * GIB), free=allowed)


def random_model(plan: Plan) -> checkpoint.Checkpoint:
    """As `checkpoint.load` does it: a tensor at a time, quantised on the GPU, then to its place."""
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
        bagel = Bagel.load(folder, device=DEVICE, precision=row.precision, offload=row.offload)
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


def measure(name: str, timesteps: int, folder: Path | None) -> dict[str, Any]:
    row = ROWS[name]
    card = limited(row)
    demand = Demand.of(SEVEN_B, row.job)
    try:
        plan = choose(SEVEN_B, card, demand, row.precision, row.offload)
    except MemoryPlanError as error:
        return {"row": name, "refused": str(error)}
    bagel, loaded = ready(row, plan, folder)
    options: dict[str, Any] = {"seed": 1, "num_timesteps": timesteps}
    scene = noise_picture(1024)

    def job() -> Any:
        if row.job == "edit":
            return bagel.edit(scene, "make it night", **options)
        return bagel.draw("a red cube on a table", **options)

    job()  # compiles, captures, brings what stays to its slot
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, began = fetched(bagel), time.perf_counter()
    result = job()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak, moved = torch.cuda.max_memory_allocated(), fetched(bagel) - before
    return {
        "row": name,
        **asdict(row),
        **loaded,
        "setup": plan.setup.words,
        "tile": plan.setup.tile,
        "slots": plan.setup.slots,
        "seconds": round(seconds, 3),
        "phases": {key: round(value, 3) for key, value in result.stats.seconds.items()},
        "updates": result.stats.updates,
        "peak_gib": gib(peak),
        "planned_gib": gib(plan.peak),
        "planned_over_measured": round(plan.peak / peak, 3),
        "reserved_gib": gib(torch.cuda.max_memory_reserved()),
        "moved_gib": gib(moved),
        "moved_gb_per_second": round(moved / result.stats.seconds.get("draw", seconds) / 1e9, 2),
        "finite": bool(result.latent.isfinite().all()),
        "black": result.image.getextrema() == ((0, 0),) * 3,
    }


def fetched(bagel: Bagel) -> int:
    first = bagel.runtime.checkpoint.model.decoder.layers[0]
    return first.stream.fetched if isinstance(first, StreamedBlock) else 0


def gib(size: int) -> float:
    return round(size / GIB, 2)


# --- the link, and quality ---------------------------------------------------------------------------------------


def link() -> dict[str, Any]:
    """Host to device from pinned memory, pieces as large as a layer of nf4 and of bf16."""
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
    return {"row": "link", "gb_per_second": rates}


def quality() -> dict[str, Any]:
    """Relative error of one velocity against bf16, the same random weights in each precision."""
    found: dict[str, torch.Tensor] = {}
    card = Card.of(DEVICE)
    for precision in ("bf16", "fp8", "int8", "nf4"):
        torch.manual_seed(0)
        plan = choose(SEVEN_B, card, Demand.of(SEVEN_B, "draw"), precision)
        runtime = Runtime.of(random_model(plan))
        model, engine = runtime.checkpoint.model, runtime.engine
        noise = torch.randn(1024, SEVEN_B.latent_width, generator=torch.Generator().manual_seed(1))
        context = engine.new_context()
        with torch.inference_mode():
            engine.forward([Read(context, TextPart(runtime.checkpoint.tokenizer.segment("a red cube on a table")))])
            part = LatentPart(noise.to(DEVICE), (32, 32), 0.7, noised=True)
            found[precision] = model.velocity(engine.forward([Read(context, part, keep=False)])[0].latents).cpu()
        del runtime, model, engine, context
        torch.cuda.empty_cache()
    exact = found.pop("bf16").double()
    errors = {name: float((v.double() - exact).norm() / exact.norm()) for name, v in found.items()}
    return {"row": "quality", "velocity_error": {name: round(value, 5) for name, value in errors.items()}}


# --- all rows ----------------------------------------------------------------------------------------------------


def verdicts(rows: list[dict[str, Any]]) -> None:
    """Adds to each row how it stands to what is to be reached."""
    by_name = {row["row"]: row for row in rows if "seconds" in row}
    ceiling = max((max(row["gb_per_second"].values()) for row in rows if row["row"] == "link"), default=0.0)
    for row in by_name.values():
        wanted = by_name.get(row["against"] or "")
        row["within_10_percent"] = abs(row["planned_over_measured"] - 1) <= 0.1
        if row["most_peak"]:
            row["peak_reached"] = row["peak_gib"] <= row["most_peak"]
        if wanted:
            row["times_of_unlimited"] = round(row["seconds"] / wanted["seconds"], 3)
            if row["most_time"]:
                row["time_reached"] = row["times_of_unlimited"] <= row["most_time"]
        if row["moved_gib"] and ceiling:
            row["of_the_link"] = round(row["moved_gb_per_second"] / ceiling, 3)
            transfer = row["moved_gib"] * GIB / ceiling / 1e9
            compute = wanted["phases"]["draw"] if wanted else 0.0
            row["of_the_bound"] = round(max(compute, transfer) / row["phases"]["draw"], 3)


def child(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, __file__, "--one", name, "--timesteps", str(arguments.timesteps)]
    words += ["--folder", str(arguments.folder)] if arguments.folder else []
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"row": name, "failed": done.stderr[-600:]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rows", nargs="*", default=["link", *ROWS, "quality"])
    parser.add_argument("--timesteps", type=int, default=50)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        single = {"link": link, "quality": quality}.get(arguments.one)
        found = single() if single else measure(arguments.one, arguments.timesteps, arguments.folder)
        print(json.dumps(found))
        return
    rows = []
    for name in arguments.rows:
        rows.append(child(name, arguments))
        print(json.dumps(rows[-1]), flush=True)
    verdicts(rows)
    whole = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    print(json.dumps(whole))
    if arguments.out:
        arguments.out.write_text(json.dumps(whole, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
