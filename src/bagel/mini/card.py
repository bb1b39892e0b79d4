"""The model card: data, compute, scores and limits, from the logs of the runs and summaries of `bagel eval world`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagel import world
from bagel.errors import InputError
from bagel.mini.goals import long_table, results_of, unreached
from bagel.mini.sizes import parameter_table
from bagel.mini.study.results import read
from bagel.mini.study.trainings import totals
from bagel.model.config import ModelConfig
from bagel.train import config as configs

CARD = "README.md"
PARTS = {
    "embed": "embeddings of words", "vit": "ViT", "connector": "connector", "latent_in": "latents in",
    "time": "time", "decoder": "decoder", "lm_head": "language head", "latent_out": "latents out",
    "vae.encoder": "autoencoder, encoder", "vae.decoder": "autoencoder, decoder", "all": "**all**",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sources:
    """summary: of the model; oracle: of the true pictures once through the autoencoder; unthought: of the exercises
    with thoughts, without them; autoencoder: its run; runs: those of the model, in order, of which the logs are read;
    configs: of its stages, whose mixtures the card gives, if not those that the runs ended with; speed: what
    `bagel.mini speed` wrote; device: on which it was trained; note: what else is to be known of the training."""

    summary: Path
    oracle: Path | None = None
    unthought: Path | None = None
    autoencoder: Path | None = None
    runs: tuple[Path, ...] = ()
    configs: tuple[Path, ...] = ()
    speed: Path | None = None
    device: str = "one GPU"
    note: str = ""


def write_card(model: Path, sources: Sources) -> Path:
    """Writes README.md into the model's folder; -> its path. Raises InputError for files that do not hold what is
    wanted."""
    config = ModelConfig.from_folder(model)
    sections = [
        _head(config),
        _data(sources),
        _compute(sources),
        _scores(sources),
        _limits(results_of(sources.summary)),
    ]
    path = model / CARD
    path.write_text("\n".join(sections), encoding="utf-8")
    return path


def _head(config: ModelConfig) -> str:
    counts = parameter_table(config)
    rows = [f"| {PARTS.get(name, name)} | {count:,} |" for name, count in counts.items()]
    return "\n".join([
        "---", "license: apache-2.0", "language: [en, zh]", "pipeline_tag: any-to-any", "---", "",
        "# mini: a small BAGEL", "",
        f"A BAGEL of {counts['all'] / 1e6:.1f} million numbers, its autoencoder among them, that draws, edits,",
        "answers, thinks, predicts and navigates in a generated world of flat shapes, a room and stacks of blocks,",
        "128 x 128 pixels, English and Chinese. It is trained with the trainer and the recipe of this package",
        "(docs/mini.md), from random weights; nothing of the published model is in it.", "",
        "| part | numbers |", "|---|---:|", *rows, "",
    ])  # fmt: skip


def _data(sources: Sources) -> str:
    lines = [
        "## Data", "",
        "Exercises of `bagel.world`, made while they are read: nothing from the web, no "
        "pictures or texts of people. A picture shows what its program drew; an answer follows from the same state. "
        "Shares of the exercises:",
        "",
    ]  # fmt: skip
    paths = sources.configs or tuple(run / configs.RESOLVED for run in sources.runs)
    for name, path in zip(_names(paths), paths, strict=True):
        options = dict(configs.load(path).data.datasets[0].options)
        weights: Mapping[str, float] = options.get("tasks") or world.WEIGHTS
        of_task: dict[str, float] = defaultdict(float)
        for choice, weight in weights.items():
            of_task[choice.partition("/")[0]] += weight
        shares = ", ".join(f"{task} {_percent(weight / sum(of_task.values()))}" for task, weight in of_task.items())
        used = f", each {options['repeats']} times, with other noise" if options.get("repeats", 1) > 1 else ""
        lines.append(f"- `{name}`: {shares}; {_percent(options.get('chinese', 0.35), 0)} in Chinese{used}.")
    lines += [
        "",
        "About 15 % of the combinations (a shape in a colour, two shapes together, a number of a shape, a relation, "
        "an edit, a chain of actions ...) and a part of the sentence templates are kept out of training; the scores "
        "below are on exercises that name at least one such combination, half of them in such sentences too.",
        "",
    ]
    return "\n".join(lines)


def _compute(sources: Sources) -> str:
    lines = ["## Compute", "", f"On {sources.device}:", "", "| stage | steps | seen | hours |", "|---|---:|---:|---:|"]
    if sources.autoencoder:
        stage = autoencoder_totals(sources.autoencoder)
        lines.append(f"| autoencoder | {stage['steps']:,} | {stage['pictures']:,} pictures | {stage['hours']:.2f} |")
    for name, run in zip(_names(sources.runs), sources.runs, strict=True):
        done = totals(run)
        lines.append(
            f"| {name} | {done['steps']:,} | {done['tokens'] / 1e6:,.0f} M tokens, "
            f"{done['tokens_per_second']:,} a second | {done['hours']:.2f} |"
        )
    lines.append("")
    if sources.note:
        lines.append(f"{sources.note}\n")
    if sources.autoencoder:
        lines.append(f"Pictures unseen by the autoencoder come back at {stage['psnr']:.1f} dB.\n")
    if sources.speed:
        found = read(sources.speed)
        if not found:
            raise InputError(f"{sources.speed} holds no seconds; give what `bagel.mini speed` wrote.")
        lines += [
            "Measured on two CPU cores:",
            "",
            *(f"- {name}: {seconds:.2f} s" for name, seconds in found.items()),
            "",
        ]
    return "\n".join(lines)


def autoencoder_totals(run: Path) -> dict[str, Any]:
    """Steps, pictures, hours of stepping and the last measured decibels of a run of the autoencoder. Raises InputError
    for a folder without its config and log."""
    if not (run / "config.json").exists() or not (run / "log.jsonl").exists():
        raise InputError(f"{run} lacks config.json or log.jsonl; give the folder of a run of the autoencoder.")
    batch = int(json.loads((run / "config.json").read_text(encoding="utf-8"))["batch"])
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    hours, before = 0.0, 0
    for line in lines:
        if "pictures_per_second" in line:
            hours += (line["step"] - before) * batch / line["pictures_per_second"] / 3600
            before = line["step"]
    psnr = [line["psnr"] for line in lines if "psnr" in line]
    return {"steps": lines[-1]["step"], "pictures": lines[-1]["step"] * batch, "hours": hours, "psnr": psnr[-1]}


def _scores(sources: Sources) -> str:
    results = results_of(sources.summary)
    lines = ["## Scores", "", "`bagel eval world` on the held-out split, the model's own presets, seeds fixed:", ""]
    lines += [long_table(results), ""]
    if sources.unthought and "think" in results:
        without = results_of(sources.unthought)["think"]["share"]
        lines.append(
            f"The exercises with thoughts, asked without: {_percent(without)}; "
            f"with: {_percent(results['think']['share'])}.\n"
        )
    if sources.oracle:
        ceiling = results_of(sources.oracle)["all"]
        lines.append(
            f"The true pictures, once through the autoencoder, are found right in "
            f"{_percent(ceiling['share'], 2)} of {ceiling['count']:,} exercises: the most that any model behind it "
            "can reach.\n"
        )
    return "\n".join(lines)


def _limits(results: Mapping[str, Any]) -> str:
    short = unreached(results)
    lines = ["## Limits", ""]
    lines += ["Goals that were not reached:", "", *(f"- {line}" for line in short), ""] if short else []
    lines += [
        "- It knows this world and nothing else: ten shapes, nine colours, six backgrounds, numbers up to six, the "
        "words of its grammars. Photographs, other words and other sizes than 128 x 128 give nonsense.",
        "- Right means right by the checkers, which read the picture alone. They accept what lies within a few pixels "
        "and levels of what was asked.",
        "- A picture may be wrong and look plausible, and an answer may be wrong and sound sure.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _names(paths: Sequence[Path]) -> list[str]:
    """What to call runs, or the configs of runs and stages: by the folder above too where several share a name."""
    runs = [path.parent if path.name == configs.RESOLVED else path.with_suffix("") for path in paths]
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [f"{run.parent.name}/{run.name}" for run in runs]


def sources_of(items: Sequence[str]) -> Sources:
    """`name=path`, and `runs=a,b`. Raises InputError for an unknown name."""
    found: dict[str, Any] = {}
    for item in items:
        name, _, value = item.partition("=")
        if name in ("runs", "configs"):
            found[name] = tuple(Path(part) for part in value.split(","))
        elif name in ("device", "note"):
            found[name] = value
        elif name in ("summary", "oracle", "unthought", "autoencoder", "speed"):
            found[name] = Path(value)
        else:
            known = "summary, oracle, unthought, autoencoder, runs, configs, speed, device, note"
            raise InputError(f"{item!r} is not known; use {known}.")
    if "summary" not in found:
        raise InputError("the card needs summary=OUT/summary.json of `bagel eval world`.")
    return Sources(**found)
