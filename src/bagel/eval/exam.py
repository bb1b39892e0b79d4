"""What is put to a model, and how."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from bagel import world
from bagel.errors import InputError
from bagel.eval.exercises import Plan
from bagel.options import ImageOptions, TextOptions

ORACLES = ("truth", "autoencoder")


@dataclass(frozen=True, kw_only=True)
class Exam:
    """All that decides what comes out. oracle: in place of the model's outputs the true ones, as they are (truth) or
    once through the autoencoder; name: of the model, for what is written."""

    plan: Plan
    image: ImageOptions = field(default_factory=ImageOptions)
    text: TextOptions = field(default_factory=TextOptions)
    oracle: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.oracle is not None and self.oracle not in ORACLES:
            raise InputError(f"the oracle {self.oracle!r} is not known; use {' or '.join(ORACLES)}.")

    def settings(self) -> dict[str, Any]:
        """Plain values. How many exercises there are is left out, as they may grow from run to run."""
        plan = {key: value for key, value in asdict(self.plan).items() if key != "count"}
        image, text = _given(self.image), _given(self.text)
        data = {"model": self.name, "oracle": self.oracle, "world": world.VERSION, "plan": plan, "image": image,
                "text": text}  # fmt: skip
        return dict(json.loads(json.dumps(data)))


def _given(options: ImageOptions | TextOptions) -> dict[str, Any]:
    return {key: value for key, value in asdict(options).items() if value is not None}
