"""What is measured: each job as a user asks for it, with the official app's presets unless said."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from bagel.bench.ceilings import FP8, PLAIN
from bagel.errors import InputError
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.options import PRESETS

PROMPT = "a red cube on a wooden table by a window, soft morning light"
EDIT = "make it night"
WRITTEN = 100
"""Tokens whose mean time is that of the next one."""
_WORDS = "Describe what can be seen here: which things there are, where they stand, and how the light falls. "
_ANSWER = 2  # the start token, and the first one of the answer


@dataclass(frozen=True)
class Sizes:
    """Sides in pixels: of a picture drawn and edited, of a small one, and of one that is asked about; `words`: the
    question; timesteps: of a picture."""

    picture: int
    small: int
    seen: int
    words: str
    timesteps: int

    @classmethod
    def of(cls, bagel: Bagel, timesteps: int) -> Sizes:
        """As large as the model is used: 1024, 512 and 980 for the published one; about 130 tokens of text, which is
        what 100 English words are."""
        config = bagel.config
        preset = {**PRESETS["draw"], **config.presets.get("draw", {})}
        picture = max(preset["height"], preset["width"])
        small = max(picture // 2 // config.latent_stride, 1) * config.latent_stride
        return cls(picture, small, config.images.vit.max_size, _question(bagel), timesteps)


def _question(bagel: Bagel) -> str:
    words = (_WORDS * 6).split()[:100]
    while len(words) > 1 and len(bagel.runtime.checkpoint.tokenizer.segment(" ".join(words))) > 132:
        words.pop()
    return " ".join(words)


@functools.lru_cache(maxsize=4)
def noise_picture(side: int) -> Image.Image:
    """Something to look at, the same every time; there before the clock runs."""
    levels = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Image.fromarray(levels.numpy())


@dataclass(frozen=True)
class Job:
    """run: does it once; pictures: that come of it, each has its share. without: what is done as well and is to be
    taken off; the rest is then shared among its passes, a token each."""

    name: str
    precision: str
    what: str
    run: Callable[[Bagel, Sizes], Result]
    without: Callable[[Bagel, Sizes], Result] | None = None
    pictures: int = 1


def _draw(**fields: Any) -> Callable[[Bagel, Sizes], Result]:
    def run(bagel: Bagel, sizes: Sizes) -> Result:
        asked: dict[str, Any] = {
            "num_timesteps": sizes.timesteps,
            "height": sizes.picture,
            "width": sizes.picture,
            **fields,
        }
        return bagel.draw(PROMPT, seed=1, **asked)

    return run


def _draw_small(bagel: Bagel, sizes: Sizes) -> Result:
    return _draw(height=sizes.small, width=sizes.small)(bagel, sizes)


def _draw_halved(bagel: Bagel, sizes: Sizes) -> Result:
    return _draw(solver="ab2", num_timesteps=sizes.timesteps // 2)(bagel, sizes)


def _draw_four(bagel: Bagel, sizes: Sizes) -> Result:
    fields: dict[str, Any] = {"num_timesteps": sizes.timesteps, "height": sizes.picture, "width": sizes.picture}
    results: Sequence[Result] = bagel.draw([PROMPT] * 4, seed=[1, 2, 3, 4], **fields)
    whole = results[0]
    whole.stats.model_calls = sum(result.stats.model_calls for result in results)
    return whole


def _edit(bagel: Bagel, sizes: Sizes) -> Result:
    return bagel.edit(noise_picture(sizes.picture), EDIT, seed=1, num_timesteps=sizes.timesteps)


def _answer(tokens: int) -> Callable[[Bagel, Sizes], Result]:
    return lambda bagel, sizes: bagel.chat([noise_picture(sizes.seen), sizes.words], max_tokens=tokens)


def _in(precision: str, end: str) -> list[Job]:
    first, many = _answer(_ANSWER), _answer(_ANSWER + WRITTEN)
    return [
        Job(f"draw{end}", precision, "draw", _draw()),
        Job(f"edit{end}", precision, "edit", _edit),
        Job(f"draw-small{end}", precision, "draw at half the side", _draw_small),
        Job(f"first-token{end}", precision, "first token after a picture and a question", first),
        Job(
            f"next-token{end}",
            precision,
            f"next token behind them, mean of {WRITTEN}",
            many,
            first,
        ),
    ]


LOAD, START, VELOCITY = "load", "first-picture", "velocity"
"""Not in `JOBS`: they are measured before them, the last one behind them."""
JOBS = {
    job.name: job
    for job in (
        *_in(PLAIN, ""),
        Job("draw-4", PLAIN, "draw four in one batch, a picture's share", _draw_four, pictures=4),
        Job("draw-ab2", PLAIN, "draw, solver ab2, half the timesteps", _draw_halved),
        Job("draw-guidance", PLAIN, "draw, step cache guidance", _draw(step_cache="guidance")),
        *_in(FP8, "-fp8"),
        Job("draw-fp8-taylorseer", FP8, "draw, step cache taylorseer", _draw(step_cache="taylorseer")),
        Job("draw-fp8-forecast3", FP8, "draw, step cache forecast3", _draw(step_cache="forecast3")),
        Job("draw-fp8-forecast5", FP8, "draw, step cache forecast5", _draw(step_cache="forecast5")),
    )
}
NAMES = (LOAD, START, *JOBS, VELOCITY)


def chosen(words: str | None) -> list[str]:
    """Names with commas, in the order in which they are measured; all without. Raises InputError."""
    asked = [word.strip() for word in words.split(",")] if words else list(NAMES)
    for name in asked:
        if name not in NAMES:
            raise InputError(f"there is no job {name!r}; there are {', '.join(NAMES)}.")
    return [name for name in NAMES if name in asked]
