"""Two tables of a small trained model: what the faster modes and fewer bits do to its pictures, and to how many of its
pictures and answers are right. Exercises of the generated world, held out of training, the same for every row.

    python benchmarks/mini_tables.py modes -m DIR --count 8 -o out/modes.json --write docs/performance.md
    python benchmarks/mini_tables.py precisions -m DIR --count 8 -o out/precisions \
        --write docs/memory.md docs/memory.zh.md

`modes` is `bagel eval closeness` with every mode; `precisions` is `bagel eval world` once a precision, into a folder
each, and goes on when it is given again. --write puts the table between its marks (`table:modes`, `table:precisions`),
in Chinese where the page is (`*.zh.md`; `precisions` alone).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bagel import Bagel
from bagel.devices import pick_device
from bagel.errors import BagelError
from bagel.eval.closeness import Settings, compare_all
from bagel.eval.closeness_table import markdown
from bagel.eval.exam import Exam
from bagel.eval.exercises import Plan
from bagel.eval.intervals import wilson
from bagel.eval.record import VERDICTS
from bagel.eval.runner import evaluate
from bagel.mini.goals import WHAT_ZH, put

PRECISIONS = ("fp32", "bf16", "bf11", "fp8", "int8", "nf4")
"""The first is what the others are compared with."""
ABOUT = "precision.json"


# --- how near each mode comes -----------------------------------------------------------------------------------


def modes(options: argparse.Namespace) -> Callable[[bool], str]:
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    tasks = tuple(options.tasks.split(",")) if options.tasks else ("draw", "edit")
    settings = Settings(tasks=tasks, count=options.count, batch=options.batch, precision=options.exact)
    compare_all([options.model], settings, options.device, out)
    (found,) = json.loads(out.read_text(encoding="utf-8"))
    return lambda _: f"{markdown(found)}\n\n{device_words(options.device)}, exact pictures in {found['exact_in']}."


# --- how much is right in each precision ------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """megabytes: of all weights; seconds: of the last run; verdicts: (right, what was written) by exercise."""

    megabytes: float
    seconds: float
    verdicts: Mapping[str, tuple[bool, str | None]]


def precisions(options: argparse.Namespace) -> Callable[[bool], str]:
    names = options.precisions.split(",")
    for name in names:
        print(f"{options.model} in {name}", file=sys.stderr, flush=True)
        _judge(options, name)
    found = {name: read(options.out / name) for name in names}
    end = device_words(options.device)
    return lambda chinese: f"{precision_table(found, chinese)}\n\n{end}{'。' if chinese else '.'}"


def _judge(options: argparse.Namespace, precision: str) -> None:
    bagel = Bagel.load(options.model, device=options.device, precision=precision)
    plan = Plan(tasks=tuple(options.tasks.split(",")) if options.tasks else (), count=options.count)
    exam, out = Exam(plan=plan, name=f"{options.model} in {precision}"), options.out / precision
    began = time.perf_counter()
    evaluate(bagel, exam, out, batch=options.batch, minutes=options.minutes)
    about = {"bytes": _bytes_of(bagel), "seconds": round(time.perf_counter() - began, 1)}
    (out / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
    del bagel
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _bytes_of(bagel: Bagel) -> int:
    checkpoint = bagel.runtime.checkpoint
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for module in (checkpoint.model, checkpoint.vae)
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensors.values())


def read(folder: Path) -> Judged:
    """What `precisions` left in a folder."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    lines = (folder / VERDICTS).read_text(encoding="utf-8").splitlines()[1:]
    verdicts = {one["name"]: (one["ok"], one["text"]) for one in map(json.loads, lines)}
    return Judged(about["bytes"] / 1e6, about["seconds"], verdicts)


HEADS = ("precision", "weights, MB", "right", "95 % interval", "lost", "won", "same words")
HEADS_ZH = ("精度", "权重，MB", "答对", "95 % 区间", "失", "得", "文字相同")
SAID = (
    "Of {count:,} held-out exercises. lost: right in {reference} and wrong here; won: the other way round. "
    "same words: of {written:,} answers and thoughts. The last columns: right, by task."
)
SAID_ZH = (
    "共 {count:,} 道训练中没有的题目。失：{reference} 答对、此处答错；得：反过来。"
    "文字相同：{written:,} 段回答和思考中，与 {reference} 一字不差的比例。最后几列：各任务答对的比例。"
)


def precision_table(found: Mapping[str, Judged], chinese: bool = False) -> str:
    """Markdown, of the exercises that were judged in every precision."""
    first, *others = (one.verdicts for one in found.values())
    common = [name for name in first if all(name in verdicts for verdicts in others)]
    written = [name for name in common if first[name][1]]
    tasks = list(dict.fromkeys(name.partition("/")[0] for name in common))
    reference = next(iter(found))
    heads = [*(HEADS_ZH if chinese else HEADS), *(WHAT_ZH.get(task, task) if chinese else task for task in tasks)]
    rows = []
    for precision, one in found.items():
        ok = {name: one.verdicts[name][0] for name in common}
        low, high = wilson(sum(ok.values()), len(common))
        same = sum(one.verdicts[name][1] == first[name][1] for name in written)
        rows.append([
            f"`{precision}`",
            f"{one.megabytes:.1f}",
            f"{sum(ok.values()) / max(len(common), 1):.1%}",
            f"{low:.1%} {'至' if chinese else 'to'} {high:.1%}",
            str(sum(first[name][0] and not ok[name] for name in common)),
            str(sum(ok[name] and not first[name][0] for name in common)),
            f"{same / len(written):.1%}" if written else "",
            *(_share([ok[name] for name in common if name.startswith(f"{task}/")]) for task in tasks),
        ])  # fmt: skip
    table = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    words = SAID_ZH if chinese else SAID
    said = words.format(count=len(common), reference=reference, written=len(written))
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", said])


def _share(ok: Sequence[bool]) -> str:
    return f"{sum(ok) / len(ok):.0%}"


# --- the command --------------------------------------------------------------------------------------------------


def device_words(name: str) -> str:
    device = pick_device(name)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return f"{kind}, PyTorch {torch.__version__.split('+')[0]}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, out in (("modes", "out/modes.json"), ("precisions", "out/precisions")):
        flags = kinds.add_parser(kind)
        flags.add_argument("-m", "--model", default="mini")
        flags.add_argument("--count", type=int, default=8, help="exercises of each category")
        flags.add_argument("--tasks", help="with commas; draw,edit for modes and all for precisions, if not given")
        flags.add_argument("--batch", type=int, default=32)
        flags.add_argument("--device", default="auto")
        flags.add_argument("-o", "--out", type=Path, default=Path(out))
        flags.add_argument("--write", type=Path, nargs="+", default=[], help="pages whose table is replaced")
    kinds.choices["modes"].add_argument("--exact", help="precision of the exact pictures: bf16, fp16, fp32")
    kinds.choices["precisions"].add_argument("--precisions", default=",".join(PRECISIONS), help="with commas")
    kinds.choices["precisions"].add_argument("--minutes", type=float, help="of each precision; then it is cut short")
    options = parser.parse_args(words)
    try:
        table: Any = {"modes": modes, "precisions": precisions}[options.kind](options)
        print(table(False))
        for page in options.write:
            put(page, options.kind, table(page.name.endswith(".zh.md")))
    except BagelError as error:
        sys.exit(f"mini_tables: {error}")


if __name__ == "__main__":
    main()
