"""docs/study.md and its charts, from the result files that are there. Sentences say what the numbers say; what one
thinks of them goes into a file's `note`, which is printed as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bagel.errors import InputError
from bagel.eval.intervals import wilson
from bagel.mini.study import checkpoints, knobs, losses, results, seeing
from bagel.mini.study.chart import Line, chart

HEAD = """# Study: the method's claims at the size of `mini`

Four questions that the paper answers at 7B + 7B, asked again with 13.5 million numbers and a generated world whose
answers can be checked. Everything here comes from the result files in [study/](study/) by one command; each section
names the commands that made its file. Counts are held-out exercises ([mini.md](mini.md)), in brackets 95 % intervals
(Wilson). Such small models say what holds at their own size, no more.

```bash
python -m bagel.mini study page docs
```
"""
NAMES = {"mot": "MoT", "moe": "MoE", "dense": "dense"}
SEEN = {"both": "latents and ViT", "vae": "latents alone", "vit": "ViT alone"}


def page(docs: Path) -> Path:
    """Writes docs/study.md and the charts into docs/study; -> the page's path. Raises InputError where there are no
    result files."""
    folder = docs / "study"
    if not folder.is_dir():
        raise InputError(f"there is no {folder}; the other commands of the study put their files there.")
    parts = {"MoT against MoE and dense": _losses, "what is learnt when": _checkpoints,
             "how given pictures are read": _seeing, "the knobs of drawing": _knobs}  # fmt: skip
    made = {title: list(part(folder)) for title, part in parts.items()}
    missing = [title for title, sections in made.items() if not sections]
    sections = [HEAD, *(section for own in made.values() for section in own)]
    if missing:
        sections.append(f"Not made yet: {'; '.join(missing)}.\n")
    path = docs / "study.md"
    path.write_text("\n".join(sections), encoding="utf-8")
    return path


def _losses(folder: Path) -> Iterator[str]:
    found = results.read(folder / losses.FILE)
    if not found:
        return
    runs = found["runs"]
    yield "## MoT, MoE, dense at equal active numbers\n"
    yield _command("study losses configs/mini/study docs/study minutes=7.5")
    yield (
        f"{_made(found)} The three train side by side on the same exercises from the same seed. The paper (section "
        "3.1) finds that MoT learns fastest, most of all on pictures.\n"
    )
    for name, title in (("mse", "pictures: squared velocity error"), ("ce", "text: cross-entropy")):
        lines = [_curve(NAMES[kind], run["curve"], name) for kind, run in runs.items()]
        yield _chart(folder, f"losses-{name}", title, "million tokens", name, lines, _upper(lines))
    common = min(run["tokens"] for run in runs.values())
    yield f"Means over the last tenth before {common / 1e6:,.0f} M tokens, which all three have seen:\n"
    rows = [
        [NAMES[kind], f"{run['parameters']:,}", f"{run['active_per_token']:,}", f"{run['steps']:,}",
         *(f"{_late(run['curve'], name, common):.4f}" for name in ("mse", "ce"))]
        for kind, run in runs.items()
    ]  # fmt: skip
    yield _table(["layers", "numbers in all", "active a token", "steps", "pictures", "text"], rows)
    yield from _note(found)


def _curve(name: str, curve: Mapping[str, Sequence[float]], key: str) -> Line:
    """Without the first twentieth, which would flatten the rest."""
    skip = len(curve[key]) // 20
    return Line(name, [tokens / 1e6 for tokens in curve["tokens"][skip:]], curve[key][skip:])


def _upper(lines: Sequence[Line]) -> tuple[float, float]:
    """Room for where the curves end rather than for where they begin."""
    low = min(min(line.ys) for line in lines)
    middle = max(line.ys[len(line.ys) // 8] for line in lines)
    return 0.9 * low, 1.1 * middle


def _late(curve: Mapping[str, Sequence[float]], key: str, tokens: float) -> float:
    values = [y for x, y in zip(curve["tokens"], curve[key], strict=True) if 0.9 * tokens <= x <= tokens]
    return sum(values) / len(values) if values else float(curve[key][-1])


def _checkpoints(folder: Path) -> Iterator[str]:
    found = results.read(folder / checkpoints.FILE)
    if not found:
        return
    points = found["points"]
    tasks = [task for task in results.TASKS if task in points[-1]["results"]]
    yield "## What is learnt when\n"
    yield _command(f"study checkpoints runs/mini docs/study limit={found['limit']}")
    yield (
        f"{_made(found)} {len(points)} checkpoints of one run, each put to the same exercises, of every category "
        f"{found['limit']}. The paper (figure 7) sees understanding and generation first, then basic editing, then "
        "intelligent editing.\n"
    )
    lines = [
        Line(task, [p["tokens"] / 1e6 for p in points], [_share(p["results"][task]) for p in points]) for task in tasks
    ]
    yield _chart(folder, "checkpoints", "success by tokens seen", "million tokens", "share right", lines, (0, 1))
    yield "Tokens (million) after which a task first reached a share of what it reached at the end:\n"
    yield _table(
        ["", "half", "85 %", "at the end"],
        [[task, *(_first(points, task, share) for share in (0.5, 0.85)), _said(points[-1]["results"][task])]
         for task in tasks],
    )  # fmt: skip
    yield from _note(found)


def _first(points: Sequence[Mapping[str, Any]], task: str, share: float) -> str:
    last = _share(points[-1]["results"][task])
    reached = (p["tokens"] / 1e6 for p in points if last and _share(p["results"][task]) >= share * last)
    found = next(reached, None)
    return "never" if found is None else f"{found:,.0f}"


def _seeing(folder: Path) -> Iterator[str]:
    found = results.read(folder / seeing.FILE)
    if not found:
        return
    runs = found["runs"]
    yield "## How given pictures are read\n"
    yield _command("study seeing configs/mini/study docs/study trained=models/mini minutes=4")
    steps = ", ".join(f"{run['steps']:,}" for run in runs.values())
    yield (
        f"{_made(found)} The trained model goes on with editing alone ({steps} steps), its given pictures read in one "
        "of three ways, and is judged the same way. The paper (section 6) finds that intelligent editing suffers most "
        "without the ViT.\n"
    )
    names = [name for name in next(iter(runs.values()))["results"] if name.partition("/")[0] != "all"]
    names.sort(key=lambda name: (seeing.TASKS.index(name.partition("/")[0]), "/" in name))
    rows = [[_category(name), *(_said(run["results"][name]) for run in runs.values())] for name in names]
    yield _table(["", *(SEEN[kind] for kind in runs)], rows)
    yield from _note(found)


def _knobs(folder: Path) -> Iterator[str]:
    found = results.read(folder / knobs.FILE)
    if not found:
        return
    yield "## The knobs of drawing\n"
    yield _command(f"study knobs models/mini docs/study limit={found['limit']}")
    yield (
        f"{_made(found)} One knob at a time, the others at the presets of `mini` or as said; exercises of "
        f"every category: {found['limit']}. Rows of pictures share their noise; a frame is green where the checker "
        "agrees.\n"
    )
    for knob in (name for name in knobs.SWEEPS if name in found["sweeps"]):
        sweep = found["sweeps"][knob]
        yield f"### `{knob}`\n"
        if sweep["fixed"]:
            fixed = ", ".join(f"`{name}` {value}" for name, value in sweep["fixed"].items())
            yield f"With {fixed}.\n"
        points = sweep["points"]
        tasks = [task for task in results.TASKS if task in points[0]["results"]]
        rows = [
            [knobs.shown_value(point["value"]), *(_said(point["results"][task]) for task in tasks),
             f"{1000 * point['seconds_a_picture']:.0f} ms"]
            for point in points
        ]  # fmt: skip
        yield _table([knob, *tasks, "a picture"], rows)
        if (folder / f"knob-{knob}.png").exists():
            yield f"![Pictures by {knob}](study/knob-{knob}.png)\n"
    yield from _note(found)


def _share(count: Sequence[int]) -> float:
    return count[0] / count[1]


def _said(count: Sequence[int]) -> str:
    low, high = wilson(count[0], count[1])
    return f"{_share(count):.0%} ({100 * low:.0f} to {100 * high:.0f})"


def _category(name: str) -> str:
    task, _, category = name.partition("/")
    return f"{task}: {category}" if category else f"**{task}**"


def _made(found: Mapping[str, Any]) -> str:
    with_ = found["made_with"]
    return f"Made on {with_['device']} with PyTorch {with_['torch']}."


def _note(found: Mapping[str, Any]) -> Iterator[str]:
    if found.get("note"):
        yield f"{found['note']}\n"


def _command(arguments: str) -> str:
    return f"```bash\npython -m bagel.mini {arguments}\n```\n"


def _chart(
    folder: Path, name: str, title: str, x: str, y: str, lines: Sequence[Line], y_range: tuple[float, float]
) -> str:
    (folder / f"{name}.svg").write_text(chart(title, x, y, lines, y_range), encoding="utf-8")
    return f"![{title}](study/{name}.svg)\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"
