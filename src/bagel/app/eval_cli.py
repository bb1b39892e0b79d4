"""The commands that judge a model: eval world, eval closeness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bagel.app.eval_flags import ClosenessFlags, ExerciseFlags, Knobs, RunFlags
from bagel.app.knobs import FLAT, options_from
from bagel.app.words import ModelName, Out
from bagel.options import ImageOptions


def register(app: App) -> None:
    """Adds the commands to the command line."""
    judge = App(name="eval", help="Judge a model by what it makes.")
    judge.command(world)
    judge.command(closeness)
    app.command(judge)


def world(
    *,
    model: ModelName = "mini",
    out: Out = Path("out/eval-world"),
    asked: Annotated[ExerciseFlags, FLAT] | None = None,
    run: Annotated[RunFlags, FLAT] | None = None,
    options: Knobs | None = None,
) -> None:
    """Put exercises of the generated world to a model and judge its answers: bagel eval world --limit 20

    A run that was stopped goes on; a higher --limit adds to it.

    Parameters
    ----------
    model:
        A folder in the official layout, or mini.
    out:
        Folder for verdicts.jsonl, summary.json, summary.txt and failures.png.
    options:
        How pictures are drawn; what is not given is the checkpoint's preset of each job.
    """
    from bagel.app.show import check_folder, loading, progress_bar
    from bagel.eval.exam import Exam
    from bagel.eval.runner import evaluate
    from bagel.eval.summary import table
    from bagel.infer.pipeline import Bagel

    run = run or RunFlags()
    exam = Exam(
        plan=(asked or ExerciseFlags()).plan(),
        image=options_from(ImageOptions, options),
        oracle=run.oracle,
        name=model if run.precision is None else f"{model} in {run.precision}",  # one folder holds one precision
    )
    check_folder(out)
    with loading(model) as report:
        bagel = Bagel.load(model, device=run.device, precision=run.precision, report=report)
    with progress_bar() as bar:
        task = bar.add_task("exercises", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        counts = evaluate(bagel, exam, out, batch=run.batch, minutes=run.minutes, report=show)
    print(table(counts))


def closeness(
    *,
    model: Annotated[tuple[str, ...], Parameter(name=["--model", "-m"])] = ("mini",),
    compared: Annotated[ClosenessFlags, FLAT] | None = None,
    out: Out | None = None,
    device: str = "auto",
    precision: Literal["bf16", "fp16", "fp32"] | None = None,
    options: Knobs | None = None,
) -> None:
    """How near the faster modes come to the exact picture (PSNR, SSIM, FLIP): bagel eval closeness -m mini

    Exercises of the generated world are judged as well, so that a picture that is another one and still right is told
    from one that is wrong.

    Parameters
    ----------
    model:
        A folder in the official layout, or mini; may be given several times.
    out:
        JSON file.
    device:
        auto, cpu, cuda.
    precision:
        Of the exact pictures; what the device computes in, if not given.
    options:
        How the exact pictures are drawn; what is not given is the checkpoint's preset of each job.
    """
    from bagel.eval.closeness import compare_all

    settings = (compared or ClosenessFlags()).settings(precision, options_from(ImageOptions, options))
    compare_all(model, settings, device, out)
