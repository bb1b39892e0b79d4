"""The commands that measure: bench, bench train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bagel.app.train_cli import bench_train
from bagel.app.words import ModelName, Out, Whole


def register(app: App) -> None:
    """Adds the commands to the command line."""
    bench = App(name="bench")
    bench.default(bench_all)
    bench.command(bench_train, name="train")
    app.command(bench)


def bench_all(
    *,
    model: ModelName | None = None,
    random: Literal["7b", "tiny"] | None = None,
    jobs: str | None = None,
    timesteps: Whole = 50,
    repeat: Whole = 3,
    write: Path | None = None,
    plain: Annotated[bool, Parameter(negative=())] = False,
    account: str | None = None,
    out: Out | None = None,
    device: str = "auto",
) -> None:
    """Speed of every job on this device, beside what the device can do: bagel bench --random 7b -o benchmarks/results

    Parameters
    ----------
    model:
        A model folder, or mini.
    random:
        Random weights of these sizes instead; they cost the same time as real ones.
    jobs:
        With commas, as in the table; all if not given: load, first-picture, draw, edit, draw-small, first-token,
        next-token, draw-4, draw-ab2, draw-guidance, the first five with -fp8, draw-fp8-taylorseer,
        draw-fp8-forecast3, draw-fp8-forecast5, velocity.
    timesteps:
        Of a picture.
    repeat:
        Timed runs of each job, after one that warms up; the median counts.
    write:
        Folder to write the random weights to, so that they are loaded as a user's are.
    plain:
        Without the kernels and captured graphs made for a GPU.
    account:
        Of these jobs, with commas, also where the time goes, by kinds of kernels.
    out:
        JSON file, or a folder to put one into.
    device:
        auto, cpu, cuda.
    """
    from bagel.bench.__main__ import measure_all
    from bagel.bench.jobs import chosen
    from bagel.bench.run import Settings
    from bagel.bench.subject import Source

    source = Source.of(device, None if random else model, random, write, not plain)
    explained = tuple(chosen(account)) if account else ()
    measure_all(source, Settings(tuple(chosen(jobs)), timesteps, repeat, explained), out)
