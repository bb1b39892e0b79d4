"""The commands around training: train, export, data check; and bench train, which `bench_cli` hangs up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from bagel.app.words import ModelName, Whole


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(train)
    app.command(export)
    data = App(name="data", help="Look at training data before a GPU is touched.")
    data.command(check)
    app.command(data)


def train(config: Path, *overrides: str) -> None:
    """Train, or go on from the newest checkpoint of the run: bagel train configs/sft.yaml run=runs/mine

    Alone or under torchrun.

    Parameters
    ----------
    config:
        YAML file; the ones in configs/ hold the paper's stages.
    overrides:
        KEY=VALUE, on top of the file: steps=100 optim.lr=1e-5.
    """
    from bagel.train.loop import run

    run(config, overrides)


def export(
    source: Path,
    out: Path,
    *,
    base: Path | None = None,
    ema: bool = True,
    step: Whole | None = None,
    dtype: str | None = None,
) -> None:
    """Write a whole official-layout folder: bagel export runs/mine models/mine

    Parameters
    ----------
    source:
        A run folder, an adapter folder, a folder or safetensors file with some or all tensors, or mini.
    out:
        Folder to write.
    base:
        Model that what is missing comes from: a folder, mini, or a hub name; a run knows its own.
    ema:
        The running mean of the weights, where the run has one.
    step:
        A checkpoint of the run; its newest if not given.
    dtype:
        bf16, fp16 or fp32; the base's if not given.
    """
    from bagel.infer.pipeline import find_model
    from bagel.train import export as exports

    if str(source) == "mini" and not source.exists():
        source = find_model("mini")
    under = base if base is None or base.exists() else find_model(str(base))
    done = exports.export(source, out, base=under, ema=ema, step=step, dtype=dtype)
    print(f"{done.folder}  ({done.replaced} tensors from {source}, {done.kept} from the base, {done.dtype})")


def check(
    config: Path,
    *overrides: str,
    model: ModelName = "mini",
    rows: Whole | None = 200,
    sheets: Path | None = None,
) -> None:
    """Check data sets against their schema and the model's limits: bagel data check data.yaml -m models/BAGEL-7B-MoT

    Parameters
    ----------
    config:
        YAML file with `data`, as for `bagel train`, or what stands under it.
    overrides:
        KEY=VALUE, on top of the file, as for `bagel train`.
    model:
        The model that is to be trained; its sizes are the limits.
    rows:
        Rows of each data set to look at; 0 looks at all.
    sheets:
        Folder for a contact sheet of each data set's first samples.
    """
    from bagel.infer.pipeline import find_model
    from bagel.train.check_file import check_file

    report = check_file(config, find_model(model), overrides, rows=rows or None, sheets=sheets)
    print(report)
    report.raise_if_bad()


def bench_train(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Speed of training on this device: bagel bench train --lora (its flags: bagel bench train -- --help)

    Parameters
    ----------
    arguments:
        Flags of the benchmark.
    """
    from bagel.train.bench.__main__ import main

    main(list(arguments))
