"""The flags of `bagel eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from bagel.app.knobs import flags_of
from bagel.app.words import Whole
from bagel.options import ImageOptions

if TYPE_CHECKING:
    from bagel.eval.closeness import Settings
    from bagel.eval.exercises import Plan

Knobs = flags_of(ImageOptions, "draw", "Drawing")
Tasks = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]
See = Annotated[
    tuple[Literal["context", "look"], ...],
    Parameter(
        consume_multiple=True,
        help="How given pictures are read where something is drawn, as the model was trained: context (latents), look "
        "(ViT).",
    ),
]

Modes = Annotated[
    str | None,
    Parameter(
        help="With commas, from: guidance, forecast3, forecast5, taylorseer, euler-half, ab2, ab2-half, bf16, bf11, "
        "fp8, fp8+forecast3, fp8+forecast5, fp8+taylorseer, int8, nf4; all if not given."
    ),
]


@dataclass(frozen=True, kw_only=True)
class ExerciseFlags:
    """Which exercises, and how they are put."""

    limit: Whole = 50
    """Exercises of each category."""
    tasks: Tasks = ()
    """Tasks (draw) or categories (draw/counting); all if not given."""
    split: str = "heldout"
    """heldout or train."""
    exercises: Whole = 1000
    """Seed of the exercises."""
    thoughts: bool = True
    """Ask for thoughts where the exercise has them."""
    free: bool = False
    """Let the model decide what comes next where several outputs are wanted."""
    see: See = ("context", "look")

    def plan(self) -> Plan:
        """Raises InputError for values that cannot be."""
        from bagel.eval.exercises import Plan

        return Plan(
            tasks=self.tasks,
            count=self.limit,
            seed=self.exercises,
            split=self.split,
            think=self.thoughts,
            free=self.free,
            see=self.see,
        )


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """How a run goes."""

    batch: Whole = 32
    """Exercises side by side."""
    minutes: float | None = None
    """No batch is begun later; give the command again for the rest."""
    oracle: str | None = None
    """Judge the true outputs instead of the model's: truth, or autoencoder (once through it)."""
    device: str = "auto"
    """auto, cpu, cuda."""
    precision: str | None = None
    """bf16, fp16, fp32, bf11, fp8, int8, nf4."""


@dataclass(frozen=True, kw_only=True)
class ClosenessFlags:
    """What is compared, and on what."""

    modes: Modes = None
    tasks: Tasks = ("draw", "edit")
    """Tasks (draw) or categories (draw/counting) of the generated world that ask for a single picture."""
    count: Whole = 2
    """Exercises of each category."""
    prompts: Path | None = None
    """File with a prompt a line, drawn instead of the exercises."""
    see: See = ("context", "look")

    def settings(self, precision: str | None, options: ImageOptions) -> Settings:
        """Raises InputError for values that cannot be."""
        from bagel.eval.closeness import MODES, Settings, read_prompts

        return Settings(
            modes=tuple(self.modes.split(",")) if self.modes else tuple(MODES),
            tasks=self.tasks,
            count=self.count,
            prompts=read_prompts(self.prompts) if self.prompts else (),
            see=self.see,
            options=options,
            precision=precision,
        )
