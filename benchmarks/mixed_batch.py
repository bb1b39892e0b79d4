"""Continuous batching of eight mixed requests against batches of one kind, on one device: what mixing costs.

    PYTHONPATH=src python benchmarks/mixed_batch.py --random 7b --seconds 240 --out mixed.json

Four drawings (two of them small), two edits and two answers about a picture go through the scheduler together; each
kind goes alone, as the batch that somebody would make by hand; and all eight go one at a time. `share` is the time of
the separate batches over that of the mixture: above 1, mixing is faster. Random weights of the full size cost what
real ones do; answers run to their limit.

Every part is printed, and written to --out, as soon as it is known. The parts come in rounds, each way once, so that
a run that is stopped has something to say about all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bagel.bench.jobs import EDIT, PROMPT, Sizes, noise_picture
from bagel.bench.subject import Source, wait
from bagel.infer import jobs
from bagel.infer.conversation import Runtime
from bagel.infer.engine import Finished, Job
from bagel.infer.pipeline import Bagel
from bagel.infer.scheduler import Cancelled, Failed, Limits, Scheduler
from bagel.options import ImageOptions, TextOptions, settle

USUAL = 50
"""Timesteps of a picture, beside answers of 200 tokens."""
TOKENS_A_TIMESTEP = 4
WARM_UP = 7
"""Timesteps of the warm-up: with the usual shift of the times, the fewest that end in an update without guidance."""
KINDS = ("two drawings", "two small drawings", "two edits", "two answers")
TOGETHER, ALONE = "all eight together", "all eight, one at a time"

Makers = Sequence[Callable[[], Job]]
"""Ways to make jobs; a job can run once."""


def requests(bagel: Bagel, sizes: Sizes, tokens: int) -> dict[str, Makers]:
    """The jobs of each kind."""
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
    return dict(zip(KINDS, (large, small, edits, answers), strict=True))


def everything(kinds: dict[str, Makers]) -> Makers:
    return [make for makers in kinds.values() for make in makers]


@torch.inference_mode()
def run(runtime: Runtime, makers: Makers, active: int) -> float:
    """Seconds until the last of the jobs has ended, `active` at a time."""
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
            elif isinstance(event, (Failed, Cancelled)):
                raise RuntimeError(f"a job ended with {event}")
    if ended != len(makers):
        raise RuntimeError(f"{ended} of {len(makers)} jobs ended well")
    wait(runtime.engine.model.device)
    return time.perf_counter() - began


@dataclass
class Report:
    """What is known so far. began: of the whole program, which `limit` counts from; repeat: rounds that are wanted."""

    facts: dict[str, Any]
    repeat: int
    out: Path | None = None
    limit: float | None = None
    began: float = field(default_factory=time.perf_counter)
    runs: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*KINDS, TOGETHER, ALONE)})

    @property
    def is_over(self) -> bool:
        return self.limit is not None and time.perf_counter() - self.began >= self.limit

    def say(self, text: str) -> None:
        print(f"{time.perf_counter() - self.began:7.1f} s  {text}", flush=True)

    def keep(self) -> None:
        if self.out:
            self.out.write_text(json.dumps(self.results(), indent=1), encoding="utf-8")

    def results(self) -> dict[str, Any]:
        """With the ratios as soon as there is one run of what they compare."""
        seconds = {name: statistics.median(taken) for name, taken in self.runs.items() if taken}
        found: dict[str, Any] = {"seconds": {name: round(taken, 4) for name, taken in seconds.items()}}
        if {*KINDS, TOGETHER} <= set(seconds):
            found["share"] = round(sum(seconds[name] for name in KINDS) / seconds[TOGETHER], 4)
        if {TOGETHER, ALONE} <= set(seconds):
            found["against_one_at_a_time"] = round(seconds[ALONE] / seconds[TOGETHER], 4)
        return {
            **self.facts,
            **found,
            "all_seconds": {name: [round(one, 4) for one in taken] for name, taken in self.runs.items()},
            "not_run": self.not_run(),
            "elapsed": round(time.perf_counter() - self.began, 1),
        }

    def not_run(self) -> list[str]:
        missing = {name: self.repeat - len(taken) for name, taken in self.runs.items()}
        return [f"{name} ({count} of {self.repeat})" for name, count in missing.items() if count]


def measure(bagel: Bagel, report: Report, timesteps: int, tokens: int) -> None:
    """Parts until all are there or the time is over."""
    if report.is_over:
        return
    # What is still cold behind this (one request alone, say) makes the first round slower, which a median drops.
    few = requests(bagel, Sizes.of(bagel, min(timesteps, WARM_UP)), min(tokens, 8))
    took = run(bagel.runtime, everything(few), 8)
    report.facts["warm_up_seconds"] = round(took, 2)
    report.say(f"{took:8.3f} s  warm-up: all eight together, fewer timesteps and tokens")
    report.keep()
    kinds = requests(bagel, Sizes.of(bagel, timesteps), tokens)
    all_eight = everything(kinds)
    ways: dict[str, tuple[Makers, int]] = {name: (makers, 8) for name, makers in kinds.items()}
    ways |= {TOGETHER: (all_eight, 8), ALONE: (all_eight, 1)}
    for number in range(1, report.repeat + 1):
        for name, way in ways.items():
            if report.is_over:
                return
            took = run(bagel.runtime, *way)
            report.runs[name].append(took)
            report.say(f"{took:8.3f} s  round {number} of {report.repeat}: {name}")
            report.keep()


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a folder")
    parser.add_argument("--random", choices=("7b", "tiny"), help="random weights of these sizes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--timesteps", type=int, default=10, help=f"of a picture; usual are {USUAL}")
    parser.add_argument(
        "--tokens", type=int, help=f"of each answer; {TOKENS_A_TIMESTEP} for each timestep if not given"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds; each figure is their median")
    parser.add_argument("--seconds", type=float, help="since the start; no part begins after them")
    parser.add_argument("--out", type=Path, help="a file for the results as JSON, written again after every part")
    given = parser.parse_args(words)
    tokens = given.tokens or TOKENS_A_TIMESTEP * given.timesteps
    source = Source.of(given.device, given.model, given.random)
    facts = {
        "model": source.name,
        "device": torch.cuda.get_device_name(source.device) if source.device.type == "cuda" else str(source.device),
        "torch": torch.__version__,
        "timesteps": given.timesteps,
        "tokens": tokens,
        "repeat": given.repeat,
    }
    report = Report(facts, given.repeat, given.out, given.seconds)
    report.say(f"{source.name} on {facts['device']}: {given.timesteps} timesteps, answers of {tokens} tokens")
    if given.timesteps < USUAL:
        facts["note"] = (
            f"{given.timesteps} timesteps where {USUAL} are usual, to be short; it is the ratios that count. What a "
            "request costs once (reading its inputs, decoding its picture) weighs more than usual."
        )
        report.say(facts["note"])
    bagel, _ = source.load("plain")
    wait(source.device)
    report.say("the weights are there")
    measure(bagel, report, given.timesteps, tokens)
    results = report.results()
    print(json.dumps(results, indent=1))
    if results["not_run"]:
        print(f"Stopped after {given.seconds:g} s. Not run: {'; '.join(results['not_run'])}.", flush=True)
    report.keep()


if __name__ == "__main__":
    main()
