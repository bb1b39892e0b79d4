"""What `bagel draw` and `bagel edit` share: checks before the model is loaded, the batch, the files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bagel.app import show
from bagel.errors import InputError
from bagel.infer.inputs import check_size, checked_text, open_image
from bagel.infer.jobs import seed_of
from bagel.options import ImageOptions, settle

if TYPE_CHECKING:
    from bagel.app.model_flags import ModelFlags

MOST_PICTURES = 1000


def make_pictures(
    job: Literal["draw", "edit"],
    images: list[str],
    prompt: str,
    out: Path,
    count: int,
    json: bool,
    source: ModelFlags,
    options: ImageOptions,
) -> None:
    """Draws or edits `count` pictures as one batch, writes them and says where they are."""
    prompt = checked_text(prompt)
    show.check_out(out)
    if not 1 <= count <= MOST_PICTURES:
        raise InputError(f"count is {count}; ask for 1 to {MOST_PICTURES} pictures.")
    config = source.config()
    several: Any = {} if count == 1 else {"seed": _seeds(options, count)}
    last_seed = {"seed": several["seed"][-1]} if several else {}
    check_size(settle(replace(options, **last_seed), job, config.presets), config)
    opened = [open_image(path) for path in images]
    bagel = source.load()
    with show.working() as progress:
        if job == "draw":
            results = bagel.draw([prompt] * count, options, progress=progress, **several)
        else:
            results = bagel.edit([opened] * count, [prompt] * count, options, progress=progress, **several)
    source.caution()
    paths = [out] if count == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(count)]
    for path, result in zip(paths, results, strict=True):
        assert result.image is not None
        settings = show.settings_of(options, job=job, prompt=prompt, model=source.model)
        show.save_image(result.image, path, {**settings, "seed": result.seed})
        if result.text and not json:
            show.say(result.text)
        if not json:
            print(path)
    if json:
        done = [show.as_json(r, path=str(path)) for r, path in zip(results, paths, strict=True)]
        show.print_json(done[0] if count == 1 else {"pictures": done})


def _seeds(options: ImageOptions, count: int) -> list[int]:
    first = seed_of(options)
    return [first + i for i in range(count)]
