"""(c) Editing with pictures read as latents and ViT features, as latents, as ViT features: the trained model goes on
with each for the same steps, and is judged as it was trained."""

from __future__ import annotations

from pathlib import Path

from bagel.eval.exercises import Plan
from bagel.mini.study import results
from bagel.mini.study.judged import load, success
from bagel.mini.study.trainings import side_by_side, totals
from bagel.train.export_run import export_run

FILE = "seeing.json"
KINDS = {"both": ("context", "look"), "vae": ("context",), "vit": ("look",)}
"""Name of the config's ending -> how pictures are read."""
TASKS = ("edit", "reason")


def seeing(
    configs: Path, out: Path, trained: Path, runs: Path, minutes: float, limit: int, overrides: list[str]
) -> None:
    """Trains `configs`/see-*.yaml from `trained` at once, for so many minutes, and puts `limit` exercises of each
    category of editing to each; -> seeing.json in `out`."""
    folders = {name: runs / f"study-see-{name}" for name in KINDS}
    commands = {
        folder: [
            str(configs / f"see-{name}.yaml"),
            f"model.path={trained}",
            f"optim.decay_minutes={0.75 * minutes}",
            *overrides,
        ]
        for name, folder in folders.items()
    }
    side_by_side(commands, minutes)
    found = {}
    for name, see in KINDS.items():
        made = export_run(folders[name], runs / f"study-see-{name}-model").folder
        plan = Plan(tasks=TASKS, count=limit, see=see)
        judged = success(load(made), plan)
        found[name] = {"see": list(see), **totals(folders[name]), "results": judged}
        print(f"{name}: {judged['all']}", flush=True)
        results.write(out / FILE, {"made_with": results.made_with(), "limit": limit, "runs": found})
