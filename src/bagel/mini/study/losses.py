"""(a) Layers of three kinds, as many active numbers per token: the losses of text and pictures."""

from __future__ import annotations

from pathlib import Path

from bagel.mini.sizes import active_per_token, parameter_table, with_layers
from bagel.mini.study import results
from bagel.mini.study.trainings import curves, side_by_side, totals
from bagel.model.config import Layers, ModelConfig

FILE = "losses.json"


def losses(configs: Path, out: Path, start: Path, runs: Path, minutes: float, overrides: list[str]) -> None:
    """Trains `configs`/{mot,moe,dense}.yaml from the folder `start`, at once, for so many minutes; -> losses.json in
    `out`. overrides: key=value for all three."""
    folders = {kind.value: runs / f"study-{kind.value}" for kind in Layers}
    commands = {
        folder: [str(configs / f"{name}.yaml"), f"model.path={start}", *overrides] for name, folder in folders.items()
    }
    side_by_side(commands, minutes)
    config = ModelConfig.from_folder(start)
    found = {}
    for kind in Layers:
        folder, sized = folders[kind.value], with_layers(config, kind)
        numbers = {"active_per_token": active_per_token(sized), "parameters": parameter_table(sized)["all"]}
        found[kind.value] = {**numbers, **totals(folder), "curve": curves(folder)}
    results.write(out / FILE, {"made_with": results.made_with(), "runs": found})
