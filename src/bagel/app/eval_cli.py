"""The commands that judge a model: eval world, eval closeness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bagel.app.knobs import flags_of, options_from, whole_number
from bagel.app.model_flags import ModelFlags
from bagel.options import ImageOptions

Number = Annotated[int, Parameter(converter=whole_number)]
Knobs = flags_of(ImageOptions, "draw", "Drawing")


def register(app: App) -> None:
    """Adds the commands to the command line."""
    judge = App(name="eval", help="Judge a model by what it makes.")
    judge.command(world)
    judge.command(closeness)
    app.command(judge)


def world(
    *,
    model: Annotated[str, Parameter(name=["--model", "-m"], env_var="BAGEL_MODEL")] = "mini",
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("out/eval-world"),
    limit: Number = 50,
    tasks: tuple[str, ...] = (),
    split: str = "heldout",
    exercises: Number = 1000,
    thoughts: bool = True,
    free: bool = False,
    see: tuple[Literal["context", "look"], ...] = ("context", "look"),
    batch: Number = 32,
    minutes: float | None = None,
    oracle: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    options: Knobs | None = None,  # type: ignore[valid-type]
) -> None:
    """Put exercises of the generated world to a model and judge its answers: bagel eval world --limit 20

    A run that was stopped goes on; a higher --limit adds to it.

    Parameters
    ----------
    model:
        A folder in the official layout, or mini.
    out:
        Folder for verdicts.jsonl, summary.json, summary.txt and failures.png.
    limit:
        Exercises of each category.
    tasks:
        Tasks (draw) or categories (draw/counting); all if not given.
    split:
        heldout or train.
    exercises:
        Seed of the exercises.
    thoughts:
        Ask for thoughts where the exercise has them.
    free:
        Let the model decide what comes next where several outputs are wanted.
    see:
        How given pictures are read where something is drawn, as the model was trained: context (latents), look (ViT).
    batch:
        Exercises side by side.
    minutes:
        No batch is begun later; give the command again for the rest.
    oracle:
        Judge the true outputs instead of the model's: truth, or autoencoder (once through it).
    device:
        auto, cpu, cuda.
    precision:
        bf16, fp16, fp32, bf11, fp8, int8, nf4.
    options:
        How pictures are drawn; what is not given is the checkpoint's preset of each job.
    """
    from bagel.app.show import check_folder, loading, progress_bar
    from bagel.eval.exam import Exam
    from bagel.eval.exercises import Plan
    from bagel.eval.runner import evaluate
    from bagel.eval.summary import table
    from bagel.infer.pipeline import Bagel

    plan = Plan(tasks=tasks, count=limit, seed=exercises, split=split, think=thoughts, free=free, see=see)
    name = model if precision is None else f"{model} in {precision}"  # one folder holds one precision
    exam = Exam(plan=plan, image=options_from(ImageOptions, options), oracle=oracle, name=name)
    check_folder(out)
    with loading(model) as report:
        bagel = Bagel.load(model, device=device, precision=precision, report=report)
    ModelFlags(model=model).caution()  # before the minutes that follow
    with progress_bar() as bar:
        task = bar.add_task("exercises", total=None)
        counts = evaluate(
            bagel,
            exam,
            out,
            batch=batch,
            minutes=minutes,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(table(counts))


def closeness(
    *,
    model: Annotated[tuple[str, ...], Parameter(name=["--model", "-m"])] = ("mini",),
    modes: str | None = None,
    tasks: tuple[str, ...] = ("draw", "edit"),
    count: Number = 2,
    prompts: Path | None = None,
    see: tuple[Literal["context", "look"], ...] = ("context", "look"),
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    device: str = "auto",
    precision: Literal["bf16", "fp16", "fp32"] | None = None,
    options: Knobs | None = None,  # type: ignore[valid-type]
) -> None:
    """How near the faster modes come to the exact picture (PSNR, SSIM, FLIP): bagel eval closeness -m mini

    Exercises of the generated world are judged as well, so that a picture that is another one and still right is told
    from one that is wrong.

    Parameters
    ----------
    model:
        A folder in the official layout, or mini; may be given several times.
    modes:
        With commas, from: guidance, forecast3, forecast5, taylorseer, euler-half, ab2, ab2-half, bf16, bf11, fp8,
        fp8+forecast3, fp8+forecast5, fp8+taylorseer, int8, nf4; all if not given.
    tasks:
        Tasks (draw) or categories (draw/counting) of the generated world that ask for a single picture.
    count:
        Exercises of each category.
    prompts:
        File with a prompt a line, drawn instead of the exercises.
    see:
        How given pictures are read where something is drawn, as the model was trained: context (latents), look (ViT).
    out:
        JSON file.
    device:
        auto, cpu, cuda.
    precision:
        Of the exact pictures; what the device computes in, if not given.
    options:
        How the exact pictures are drawn; what is not given is the checkpoint's preset of each job.
    """
    from bagel.eval.closeness import MODES, Settings, compare_all, read_prompts

    settings = Settings(
        modes=tuple(modes.split(",")) if modes else tuple(MODES),
        tasks=tasks,
        count=count,
        precision=precision,
        prompts=read_prompts(prompts) if prompts else (),
        see=see,
        options=options_from(ImageOptions, options),
    )
    compare_all(model, settings, device, out)
