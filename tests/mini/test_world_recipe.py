"""The world as training data: segments, labels, dropout groups, splits, resume."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import world
from bagel.data import DataConfig, PackLoader
from bagel.data.config import DatasetConfig
from bagel.data.loader import open_datasets
from bagel.data.recipes import Cook
from bagel.data.recipes.world import KEPT, WorldOptions, exercise, exercise_of_row, parts_of
from bagel.data.sample import Picture, Text, Use
from bagel.errors import InputError
from bagel.images import patchify
from bagel.mini.folder import new_vae
from bagel.mini.sizes import TOY
from bagel.mini.words import train_tokenizer, wording
from bagel.tokens import THINK_PROMPT
from bagel.train.config import LatentsPart
from bagel.train.noise import LatentEncoder
from bagel.world.splits import heldout

BOTH = (Use.CONTEXT, Use.LOOK)


def told(parts: list[Any]) -> list[tuple[str, str | None]]:
    """Kind of each part and what its last marker teaches."""
    return [
        ("text" if isinstance(p, Text) else p.use.value, p.then.value if p.then else None)  #
        for p in parts
    ]


def test_drawing() -> None:
    parts = parts_of(world.make("draw", "colours", 0, 0), BOTH)
    assert told(parts) == [("text", "image"), ("target", None)]
    assert parts[0].drop is not None


def test_the_end_is_learnt_where_the_picture_is_read_back() -> None:
    parts = parts_of(world.make("draw", "colours", 0, 0), BOTH, read_back=True)
    assert told(parts) == [("text", "image"), ("target", None), ("context", None), ("look", "end")]


def test_asking_reads_through_the_vit_alone() -> None:
    parts = parts_of(world.make("ask", "colour", 0, 0), BOTH)
    assert {p.use for p in parts if isinstance(p, Picture)} == {Use.LOOK}
    assert told(parts)[-2:] == [("text", "text"), ("text", "end")]
    assert parts[-1].loss
    assert all(p.drop is None for p in parts)


def test_steps_are_thought_and_drawn_in_turn() -> None:
    parts = parts_of(world.make("think", "steps", 0, 0), BOTH)
    assert told(parts) == [
        ("text", None), ("context", None), ("look", None), ("text", "text"), ("text", "image"),
        ("target", None), ("context", None), ("look", "text"), ("text", "image"),
        ("target", None), ("context", None), ("look", "end"),
    ]  # fmt: skip
    assert parts[0].text == THINK_PROMPT["image"]
    prompt, first, second = parts[3], parts[4], parts[8]
    assert prompt.drop == first.drop != second.drop
    assert len({p.drop for p in parts if isinstance(p, Picture) and p.use is not Use.TARGET}) == 1
    assert isinstance(parts[1].image, Image.Image)
    assert parts[5].image is parts[6].image  # encoded once


def test_a_picture_to_draw_is_shown_at_several_noise_levels_where_pictures_are_given() -> None:
    edited = parts_of(world.make("edit", "add", 0, 0), BOTH, noises=3)
    assert [p.use.value for p in edited if isinstance(p, Picture)] == ["context", "look"] + 3 * ["target"]
    assert len({id(p.image) for p in edited[-3:]}) == 1  # encoded once
    drawn = parts_of(world.make("draw", "colours", 0, 0), BOTH, noises=3)
    assert told(drawn) == [("text", "image"), ("target", None)]


def test_noise_levels_of_one_picture_differ_and_do_not_see_each_other() -> None:
    config = DataConfig.from_dict(
        {
            "datasets": [{"name": "w", "recipe": "world", "options": {"tasks": {"edit/add": 1}, "noises": 3}}],
            "expected_num_tokens": 400, "max_num_tokens": 1024, "max_num_tokens_per_sample": 1024,
            "prefer_buffer_before": 300, "vae_dropout": 0.0, "vit_dropout": 0.0, "text_dropout": 0.0, "workers": 0,
        }
    )  # fmt: skip
    made = next(iter(PackLoader(config, TOY, train_tokenizer(wording(10), 600))))
    times, pictures = made.pack.times[:4].tolist(), made.picture_of[:4]
    assert times[0] == 0.0
    assert len(set(times)) == 4
    assert pictures == (0, 1, 1, 1)
    layout = made.pack.layout
    noised = layout.hidden & (layout.sample == 0)
    assert len(layout.segment[noised].unique()) == 3
    assert len(layout.position[noised].unique()) == 1  # none uses up a position


def test_what_was_said_in_a_talk_is_learnt_and_ends_there() -> None:
    sample = world.make("ask", "dialogue", 0, 0)
    said = [part.text for part in sample.parts if isinstance(part, world.Said)]
    parts = parts_of(sample, BOTH)
    assert said
    learnt = [p.text for p in parts if isinstance(p, Text) and p.loss]
    assert learnt == [*said, sample.parts[-1].text]
    assert all(p.then is not None and p.then.value == "end" for p in parts if isinstance(p, Text) and p.loss)
    assert all(part in sample.prompt for part in sample.parts[:-1])


def rows_of(number: int, repeats: int) -> list[int]:
    """Where exercise `number` is used."""
    return [repeats * (number + use * ((KEPT - 1) // repeats)) + use for use in range(repeats)]


def test_an_exercise_is_used_again_painted_once() -> None:
    options = WorldOptions(tasks={"edit/add": 1, "think/steps": 1}, repeats=3, noises=2)
    (first, paint), (again, paint_again), (third, _) = (exercise_of_row(options, row) for row in rows_of(5, 3))
    assert first == again == third == exercise_of_row(WorldOptions(tasks=options.tasks), 5)[0]
    shown = [part for part in first.parts if isinstance(part, world.Picture)]
    for part, same in zip(shown, [p for p in again.parts if isinstance(p, world.Picture)], strict=True):
        assert paint(part) is paint_again(same)
        assert (np.asarray(paint(part)) == part.pixels()).all()


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_every_so_manieth_row_is_new_and_the_others_are_kept(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(options: WorldOptions, number: int) -> world.Sample:
        made.append(number)
        return exercise(WorldOptions(tasks={"ask/colour": 1}), 0)

    monkeypatch.setattr("bagel.data.recipes.world.exercise", counted)
    options = WorldOptions(seed=repeats, tasks={"ask/colour": 1}, repeats=repeats)
    begin = 100_000 * repeats
    for row in range(begin, begin + 3 * KEPT * repeats):
        exercise_of_row(options, row)
        if row == begin + KEPT * repeats:
            del made[:]  # by then what came before the beginning is known
    assert made == list(range(100_001 + KEPT, 100_000 + 3 * KEPT))


def test_uses_of_an_exercise_differ_in_noise_alone() -> None:
    own = {"name": "w", "recipe": "world", "options": {"tasks": {"edit/add": 1}, "repeats": 2}, "shuffle": False}
    config = DataConfig.from_dict(
        {
            "datasets": [own], "expected_num_tokens": 400, "max_num_tokens": 1024, "max_num_tokens_per_sample": 1024,
            "prefer_buffer_before": 300, "vae_dropout": 0.0, "vit_dropout": 0.0, "text_dropout": 0.0, "workers": 0,
        }
    )  # fmt: skip
    (dataset,) = open_datasets(config, TOY, train_tokenizer(wording(10), 600))
    one, two = (dataset.encoded(0, place) for place in rows_of(3, 2))
    assert [piece.part.segment for piece in one.pieces] == [piece.part.segment for piece in two.pieces]
    assert all((a == b).all() for a, b in zip(one.pictures, two.pictures, strict=True))
    assert [piece.normal for piece in one.pieces] != [piece.normal for piece in two.pieces]
    assert [piece.noise_seed for piece in one.pieces] != [piece.noise_seed for piece in two.pieces]


def test_train_exercises_hold_no_heldout_combination() -> None:
    options = WorldOptions()
    for number in range(300):
        assert not any(heldout(combo) for combo in exercise(options, number).combos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": {"drwa": 1}}, "did you mean 'draw'"),
        ({"tasks": {"draw/colour": 1}}, "did you mean 'colours'"),
        ({"tasks": {"draw": 0}}, "every weight is 0"),
        ({"chinese": 2.0}, "between 0 and 1"),
        ({"see": ["pixels"]}, "see"),
        ({"noises": 0}, "whole number from 1 to 16"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cook(DatasetConfig(name="w", recipe="world", options=options))


def test_no_path_is_wanted() -> None:
    with pytest.raises(InputError, match="reads no files"):
        DataConfig.from_dict({"datasets": [{"name": "w", "recipe": "world", "path": "x"}]})


def test_language_and_tasks_as_asked() -> None:
    options = WorldOptions(tasks={"draw/colours": 1, "turn": 1}, chinese=1.0)
    made = [exercise(options, number) for number in range(20)]
    assert {sample.task for sample in made} == {"draw", "turn"}
    assert {sample.language for sample in made} == {"zh"}


def test_thoughts_are_left_out_as_often_as_asked() -> None:
    cook = Cook(DatasetConfig(name="w", recipe="world", options={"tasks": {"think": 1}, "unthought": 1.0}))
    sample = cook.sample({"number": 3}, "", "w", Random(0))
    assert not any(isinstance(part, Text) and "<think>" in part.text for part in sample.parts)


def test_a_stream_goes_on_exactly() -> None:
    tokenizer = train_tokenizer(wording(10), 600)
    config = DataConfig.from_dict(
        {
            "datasets": [{"name": "world", "recipe": "world"}],
            "expected_num_tokens": 1500, "max_num_tokens": 2048, "max_num_tokens_per_sample": 2048,
            "prefer_buffer_before": 700, "workers": 0,
        }
    )  # fmt: skip
    loader = PackLoader(config, TOY, tokenizer)
    packs = iter(loader)
    first = next(packs)
    rest = [next(packs) for _ in range(2)]
    again = PackLoader(config, TOY, tokenizer)
    again.load_state_dict([first.state])
    for pack, same in zip(rest, iter(again), strict=False):
        assert pack.samples == same.samples
        assert (pack.pack.text_ids == same.pack.text_ids).all()
        assert (pack.levels == same.levels).all()
        assert not pack.skipped
    ends = [label for label in first.ce_labels.tolist() if label == tokenizer.start_of_image]
    assert ends


def test_pictures_of_one_size_are_encoded_as_they_would_be_one_by_one() -> None:
    tokenizer = train_tokenizer(wording(10), 600)
    config = DataConfig.from_dict(
        {
            "datasets": [{"name": "world", "recipe": "world", "options": {"tasks": {"frames": 1, "edit": 1}}}],
            "expected_num_tokens": 1200, "max_num_tokens": 2048, "max_num_tokens_per_sample": 2048,
            "prefer_buffer_before": 600, "workers": 0,
        }
    )  # fmt: skip
    pack = next(iter(PackLoader(config, TOY, tokenizer)))
    vae = new_vae(TOY).eval().requires_grad_(False)
    tokens = LatentEncoder(vae, LatentsPart(sample=False), 2)(pack)
    assert len(pack.picture_sizes) < len(pack.picture_of)  # some appear noised and clean
    for rows, number in zip(pack.latent_rows, pack.picture_of, strict=True):
        alone = patchify(vae.encode(pack.picture(number)[None])[0], 2)
        torch.testing.assert_close(tokens[rows], alone, atol=1e-5, rtol=1e-4)
