"""The run: ceilings, then every job, warm, median of several; what is known so far is kept after each."""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from bagel.bench import ceilings as tops
from bagel.bench import exactness, start
from bagel.bench.account import INFERENCE, profiled
from bagel.bench.ceilings import FP8, PLAIN, Ceilings, seconds
from bagel.bench.jobs import JOBS, LOAD, START, VELOCITY, Job, Sizes
from bagel.bench.meter import CountedEngine, Work
from bagel.bench.subject import Source, forget, wait
from bagel.devices import pick_dtype
from bagel.errors import InputError
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.version import __version__

Results = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """names: of the jobs, in order; repeat: timed runs of each, after one that warms up; account: of
    these, too, where the time goes: they run a few times more, with few timesteps, once under the profiler."""

    names: tuple[str, ...]
    timesteps: int = 50
    repeat: int = 3
    account: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.timesteps < 4 or self.repeat < 1:
            raise InputError(f"timesteps {self.timesteps} and repeat {self.repeat} must be at least 4 and 1.")
        for name in self.account:
            if name not in self.names or name not in JOBS:
                raise InputError(f"no account of {name!r} can be given: it is not among the jobs that are timed.")


def bench(
    source: Source,
    settings: Settings,
    say: Callable[[str], None] = lambda text: None,
    keep: Callable[[Results], None] = lambda results: None,
) -> Results:
    """-> plain values, ready for JSON. say: told what is about to be measured; keep: called with all there is after
    each row, so that a run that is cut off loses one row and no more."""
    results = facts(source, settings)
    rows: list[Results] = results["rows"]
    if START in settings.names:
        say(START)
        rows.append({"job": START, "precision": PLAIN, **start.measure(source, settings.timesteps)})
        keep(results)
    say("ceilings")
    found = tops.measure(source.config.llm, source.device, pick_dtype("auto", source.device))
    results["ceilings"] = found.rounded()
    keep(results)
    bagel: Bagel | None = None
    for precision in (PLAIN, FP8):
        todo = [JOBS[name] for name in settings.names if name in JOBS and JOBS[name].precision == precision]
        if not todo and not (LOAD in settings.names and precision == PLAIN):
            continue
        say(f"loading, {precision}")
        if bagel is not None and source.folder is None and source.written is None:
            bagel, took = source.in_fp8(bagel), None
        else:
            bagel = None  # makes room for the next
            forget(source.device)
            bagel, took = source.load(precision)
        forget(source.device)
        if LOAD in settings.names and took is not None:
            rows.append({"job": LOAD, "precision": precision, "seconds": round(took.seconds, 3)})
            if took.host_bytes is not None:
                rows[-1]["host_gib"] = round(took.host_bytes / 2**30, 3)
            keep(results)
        for job in todo:
            say(job.name)
            rows.append(measured(job, bagel, source, settings, found))
            keep(results)
    if VELOCITY in settings.names:
        say(VELOCITY)
        bagel = None
        forget(source.device)
        rows.append({"job": VELOCITY, **exactness.measure(source)})
        keep(results)
    return results


def measured(job: Job, bagel: Bagel, source: Source, settings: Settings, ceilings: Ceilings) -> Results:
    """One row."""
    row: Results = {"job": job.name, "precision": job.precision, "what": job.what}
    sizes = Sizes.of(bagel, settings.timesteps)
    try:
        _once(job, bagel, sizes, source, ceilings)
        if source.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(source.device)
        taken = [_once(job, bagel, sizes, source, ceilings) for _ in range(settings.repeat)]
    except torch.cuda.OutOfMemoryError:
        forget(source.device)
        return {**row, "note": "out of memory"}
    typical = statistics.median(one.seconds for one in taken)
    last = taken[-1]
    row |= {
        "seconds": _digits(typical),
        "all_seconds": [_digits(one.seconds) for one in taken],
        "model_calls": round(last.calls, 3),
        "tflop": _digits(last.work.flop / 1e12),
        "tflops": _digits(last.work.flop / typical / 1e12),
        "floor_seconds": _digits(last.work.floor),
        "of_ceiling": _digits(last.work.floor / typical),
    }
    if source.device.type == "cuda":
        row["peak_gib"] = round(torch.cuda.max_memory_allocated(source.device) / 2**30, 2)
    if job.without is None:
        row["phases"] = {phase: round(value, 4) for phase, value in last.result.stats.seconds.items()}
    if job.name in settings.account:
        row["account"] = _account(job, bagel, sizes, source)
    return row


ACCOUNT_TIMESTEPS = 6
"""Of a picture under the profiler, whose record of a whole drawing would be long: updates like those of any other."""


def _account(job: Job, bagel: Bagel, sizes: Sizes, source: Source) -> Results:
    """Milliseconds by kind of work and of the longest kernels, of the whole job with few updates; `gaps`: of the same
    without the profiler, in which no kernel runs."""
    few = replace(sizes, timesteps=min(sizes.timesteps, ACCOUNT_TIMESTEPS))

    def run() -> Result:
        return job.run(bagel, few)

    stats = run().stats
    whole = 1000 * seconds(run, source.device, 3, warm=0)
    found = profiled(run, source.device, 1, INFERENCE)
    return {
        "ms": _digits(whole),
        "updates": stats.updates,
        "tokens": stats.tokens,
        "gaps_ms": _digits(max(0.0, whole - found.busy)),
        "kinds_ms": {kind: _digits(took) for kind, took in found.kinds.items()},
        "kernels": [kernel._asdict() for kernel in found.kernels],
    }


@dataclass(frozen=True)
class Taken:
    """One run of a job, or a part of it: see `Job`. calls: branches of guidance; of text, passes."""

    seconds: float
    calls: float
    work: Work
    result: Result


def _once(job: Job, bagel: Bagel, sizes: Sizes, source: Source, ceilings: Ceilings) -> Taken:
    base_seconds, base_work = 0.0, Work()
    if job.without is not None:
        base_seconds, base_work, _ = _timed(job.without, job.precision, bagel, sizes, source, ceilings)
    seconds, work, result = _timed(job.run, job.precision, bagel, sizes, source, ceilings)
    parts = job.pictures if job.without is None else max(work.passes - base_work.passes, 1)
    rest = work.less(base_work, parts)
    calls = result.stats.model_calls / parts or rest.passes
    return Taken((seconds - base_seconds) / parts, calls, rest, result)


def _timed(
    run: Callable[[Bagel, Sizes], Result],
    precision: str,
    bagel: Bagel,
    sizes: Sizes,
    source: Source,
    ceilings: Ceilings,
) -> tuple[float, Work, Result]:
    engine = bagel.runtime.engine
    assert isinstance(engine, CountedEngine)
    engine.done.clear()
    wait(source.device)
    began = time.perf_counter()
    result = run(bagel, sizes)
    wait(source.device)
    return time.perf_counter() - began, Work.of(engine.done, ceilings, precision), result


def facts(source: Source, settings: Settings) -> Results:
    """What the numbers hold for."""
    device: Results = {"name": platform.processor() or platform.machine(), "type": source.device.type}
    versions: Results = {"bagel": __version__, "python": platform.python_version(), "torch": torch.__version__}
    if source.device.type == "cuda":
        properties = torch.cuda.get_device_properties(source.device)
        device |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    else:
        device["threads"] = torch.get_num_threads()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "device": device,
        "versions": versions,
        "model": source.name,
        "plain": str(source.dtype).removeprefix("torch."),
        "fast": source.fast,
        "timesteps": settings.timesteps,
        "repeat": settings.repeat,
        "rows": [],
    }


def _digits(value: float) -> float:
    """Five that matter."""
    return float(f"{value:.5g}")
