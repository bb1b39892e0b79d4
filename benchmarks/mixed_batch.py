"""Continuous batching of eight mixed requests against batches of one kind, on one device: what mixing costs.

    PYTHONPATH=src python benchmarks/mixed_batch.py --random 7b --out mixed.json

Four drawings (two of them small), two edits and two answers about a picture go through the scheduler together; then
each kind alone, as the batch that somebody would make by hand. `share` is the time of the separate batches over that
of the mixture: above 1, mixing is faster. One at a time is the third figure. Random weights of the full size cost
what real ones do; answers run to their limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bagel.bench.jobs import EDIT, PROMPT, Sizes, noise_picture
from bagel.bench.subject import Source, wait
from bagel.infer import jobs
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Finished, Job
from bagel.infer.pipeline import Bagel
from bagel.infer.scheduler import Limits, Scheduler
from bagel.options import ImageOptions, TextOptions, settle

Kind = tuple[str, list[Any]]


def requests(bagel: Bagel, sizes: Sizes, tokens: int) -> list[Kind]:
    """Ways to make the jobs of each kind; a job can run once."""
    runtime, presets = bagel.runtime, bagel.config.presets
    seen, source = noise_picture(min(sizes.seen, sizes.small)), noise_picture(sizes.picture)

    def options(job: str, side: int, seed: int, **fields: Any) -> ImageOptions:
        own = ImageOptions(height=side, width=side, seed=seed, num_timesteps=sizes.timesteps, **fields)
        return settle(own, job, presets)

    def answer(number: int) -> Job:
        chosen = settle(TextOptions(max_tokens=tokens, seed=number), "chat", presets)
        return jobs.answer(runtime, [seen, f"What is number {number}?"], chosen)

    # One side, seed and guidance for each, as clients send them.
    large = [
        lambda s=s: jobs.draw(runtime, [f"{PROMPT} {s}"], options("draw", sizes.picture, s, cfg_text_scale=3.0 + s))
        for s in (1, 2)
    ]
    small = [lambda s=s: jobs.draw(runtime, [f"{PROMPT} {s}"], options("draw", sizes.small, s)) for s in (3, 4)]
    edits = [lambda s=s: jobs.draw(runtime, [source, EDIT], options("edit", sizes.picture, s)) for s in (5, 6)]
    answers = [lambda n=n: answer(n) for n in (7, 8)]
    return [("two drawings", large), ("two small drawings", small), ("two edits", edits), ("two answers", answers)]


def run(runtime: Runtime, makers: Sequence[Any], active: int) -> float:
    """Seconds until the last of the jobs has ended."""
    wait(runtime.engine.model.device)
    began = time.perf_counter()
    scheduler = Scheduler(runtime.engine, Limits(active=active))
    for number, make in enumerate(makers):
        scheduler.submit(make(), owner=number)
    ended = 0
    while scheduler.busy:
        for _, event in scheduler.step():
            if isinstance(event, Finished):
                ended += 1
            elif type(event).__name__ in ("Failed", "Cancelled"):
                raise RuntimeError(f"a job ended with {event}")
    if ended != len(makers):
        raise RuntimeError(f"{ended} of {len(makers)} jobs ended well")
    wait(runtime.engine.model.device)
    return time.perf_counter() - began


def measure(bagel: Bagel, sizes: Sizes, tokens: int, repeat: int) -> dict[str, Any]:
    kinds = requests(bagel, sizes, tokens)
    everything = [make for _, makers in kinds for make in makers]
    ways: dict[str, tuple[Sequence[Any], int]] = {name: (makers, 8) for name, makers in kinds}
    ways |= {"all eight together": (everything, 8), "all eight, one at a time": (everything, 1)}
    with torch.inference_mode():
        run(bagel.runtime, everything, 8)
        found = {name: statistics.median(run(bagel.runtime, *way) for _ in range(repeat)) for name, way in ways.items()}
    apart = sum(found[name] for name, _ in kinds)
    together, alone = found["all eight together"], found["all eight, one at a time"]
    return {
        "seconds": {name: round(took, 4) for name, took in found.items()},
        "share": round(apart / together, 4),
        "against_one_at_a_time": round(alone / together, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a folder")
    parser.add_argument("--random", choices=("7b", "tiny"), help="random weights of these sizes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--timesteps", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=200, help="of each answer")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    source = Source.of(given.device, given.model, given.random)
    bagel, _ = source.load("plain")
    results = {"model": source.name, "device": str(source.device), "torch": torch.__version__}
    if source.device.type == "cuda":
        results["device"] = torch.cuda.get_device_name(source.device)
    results |= measure(bagel, Sizes.of(bagel, given.timesteps), given.tokens, given.repeat)
    print(json.dumps(results, indent=1))
    if given.out:
        given.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
