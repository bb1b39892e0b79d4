"""What `bagel draw` and `bagel edit` share: checks before the model is loaded, the batch, the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bagel.app import show
from bagel.errors import InputError
from bagel.infer.inputs import check_size, checked_text, open_image
from bagel.infer.jobs import seed_of
from bagel.options import ImageOptions, settle

if TYPE_CHECKING:
    from PIL import Image

    from bagel.app.model_flags import ModelFlags
    from bagel.infer.pipeline import Bagel
    from bagel.infer.result import Result

MOST_PICTURES = 1000


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be made of a prompt, and for `edit` of images. count: pictures, as one batch, with seeds one apart."""

    job: Literal["draw", "edit"]
    prompt: str
    images: Sequence[str] = ()
    count: int = 1
    options: ImageOptions

    def seeds(self) -> list[int]:
        """One for each of several pictures; none for a single one, which takes that of the options."""
        if self.count == 1:
            return []
        first = seed_of(self.options)
        return [first + number for number in range(self.count)]


def make_pictures(wish: Wish, source: ModelFlags, out: Path, *, json: bool) -> None:
    """Makes the pictures, writes them and says where they are. What can be checked is, before the model is loaded."""
    wish = replace(wish, prompt=checked_text(wish.prompt))
    show.check_out(out)
    if not 1 <= wish.count <= MOST_PICTURES:
        raise InputError(f"count is {wish.count}; ask for 1 to {MOST_PICTURES} pictures.")
    config, seeds = source.config(), wish.seeds()
    last = replace(wish.options, seed=seeds[-1]) if seeds else wish.options
    check_size(settle(last, wish.job, config.presets), config)
    opened = [open_image(path) for path in wish.images]
    results = _made(source.load(wish.job), wish, opened, seeds)
    paths = [out] if wish.count == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(wish.count)]
    settings = show.settings_of(wish.options, job=wish.job, prompt=wish.prompt, model=source.model)
    for path, result in zip(paths, results, strict=True):
        assert result.image is not None
        show.save_image(result.image, path, {**settings, "seed": result.seed})
        if not json:
            _tell(result, path)
    if json:
        done = [show.as_json(r, path=str(path)) for r, path in zip(results, paths, strict=True)]
        show.print_json(done[0] if wish.count == 1 else {"pictures": done})


def _made(bagel: Bagel, wish: Wish, opened: list[Image.Image], seeds: list[int]) -> list[Result]:
    prompts = [wish.prompt] * wish.count
    several: dict[str, Any] = {"seed": seeds} if seeds else {}
    with show.working() as progress:
        if wish.job == "draw":
            return bagel.draw(prompts, wish.options, progress=progress, **several)
        return bagel.edit([opened] * wish.count, prompts, wish.options, progress=progress, **several)


def _tell(result: Result, path: Path) -> None:
    if result.text:
        show.say(result.text)
    print(path)
