"""Packs: budget, mixture, dropout, targets, and that all of it follows from the seed."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from bagel.data.encode import TooLongError
from bagel.data.loader import PackLoader
from bagel.data.packing import assemble
from bagel.data.sample import SEEN, Clip, Drops, Picture, Sample, Text, Use, picture

from .make import data_config, image, t2i_rows, write_jsonl, write_parquet


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Any]:
    rows = [{"text": "x" * (1 + 7 * i % 60)} for i in range(40)]
    return {"recipe": "text", "path": str(write_jsonl(tmp_path / "texts.jsonl", rows))}


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Any]:
    return {"recipe": "t2i", "path": str(write_parquet(tmp_path / "p.parquet", t2i_rows(20), group=6))}


def test_budget_mixture_and_mandatory(texts: Any, pictures: Any, first_packs: Any) -> None:
    sets = {"name": "t", **texts, "weight": 3}, {"name": "p", **pictures, "weight": 1, "mandatory": True}
    packs = first_packs(data_config(*sets, max_num_tokens=450), 30)
    for pack in packs:
        assert 400 <= len(pack) <= 450
        assert pack.samples[0].startswith("p: ")
        assert sum(pack.sample_lengths) == len(pack)
        assert pack.counts["text"] + pack.counts["vit"] + pack.counts["latent"] == len(pack)
    drawn = Counter(name[0] for pack in packs for name in pack.samples[1:])
    assert 2 < drawn["t"] / drawn["p"] < 4.5


def test_no_sample_is_lost_between_packs(texts: Any, first_packs: Any) -> None:
    """What did not fit comes later: an epoch's samples are those of its packs and of the buffer."""
    config = data_config({"name": "t", **texts}, expected_num_tokens=100, max_num_tokens=110, max_buffer_size=2,
                         max_num_tokens_per_sample=80)  # fmt: skip
    packs = first_packs(config, 30)
    seen = Counter(name for pack in packs for name in pack.samples)
    epochs = packs[-1].state["todos"]["t"]["epoch"]
    assert epochs > 1
    assert set(seen.values()) <= {epochs - 1, epochs, epochs - 2}
    total = sum(seen.values()) + len(packs[-1].state["waiting"])
    spans = packs[-1].state["todos"]["t"]["spans"]
    assert total == epochs * 40 - sum(stop - start for _, start, stop in spans)
    assert all(len(pack) <= 110 for pack in packs)


def test_few_good_rows_of_a_small_data_set_are_found(tmp_path: Path, first_packs: Any) -> None:
    """In one epoch the good one may come first, in the next last, with more bad ones between than there are rows."""
    rows = [{"text": "good"}] + [{"text": 5}] * 6
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    own = {"name": "d", "recipe": "text", "path": str(path)}
    packs = first_packs(data_config(own, expected_num_tokens=1, max_buffer_size=0), 30)
    assert all(len(pack.samples) == 1 for pack in packs)


def test_too_long_samples_are_skipped_and_counted(tmp_path: Path, opened: Any, first_packs: Any) -> None:
    rows = [{"text": "y" * (400 if i == 3 else 20)} for i in range(8)]
    own = {"recipe": "text", "path": str(write_jsonl(tmp_path / "a.jsonl", rows)), "shuffle": False}
    (pack,) = first_packs(data_config({"name": "t", **own}))
    assert len(pack.samples) == 19
    assert len(pack.skipped) == 3
    assert "line 4: the sample has 402 tokens, more than max_num_tokens_per_sample 300" in pack.skipped[0]
    with pytest.raises(TooLongError):
        opened(own).encoded(0, 3)


def encoded(opened: Any, own: Any, parts: list[Any], seed: int, **settings: Any) -> Any:
    return opened(own, **settings).encoder.encode(Sample("s", tuple(parts)), Random(seed))


def test_dropout(opened: Any, texts: Any) -> None:
    """A dropped image uses up its position, a dropped text does not; parts of one number go together."""
    encoder = opened(texts).encoder
    seen, kinds = image(0), Counter[str]()
    for seed in range(250):
        drops = Drops()
        said = drops.new()
        parts = (*picture(seen, SEEN, drops), Text("abc", drop=said), Text("d", loss=True, drop=said))
        parts = (*parts, Picture(seen, Use.TARGET))
        made = assemble([encoder.encode(Sample("s", parts), Random(seed))], encoder.rules, 1.0, False)
        kinds["text"] += len(made.ce_rows) == 0
        kinds["clean"] += made.counts["latent"] == 20
        kinds["vit"] += made.counts["vit"] == 0
        position = made.pack.layout.position
        assert position.max() == 2 + (8 if len(made.ce_rows) else 0)
        assert len(made.mse_rows) == 20
        assert len(made.picture_sizes) == 1
    assert 10 < kinds["text"] < 45
    assert 50 < kinds["clean"] < 100
    assert 50 < kinds["vit"] < 100


def test_dropped_clip_uses_up_its_positions(opened: Any, texts: Any) -> None:
    clip = Clip((image(0), image(1)), (3, None), drop=0)
    parts = [clip, Text("abc", loss=True)]
    for chance in (0.0, 1.0):
        sample = encoded(opened, texts, parts, 0, vae_dropout=chance)
        made = assemble([sample], opened(texts).encoder.rules, 1.0, False)
        assert made.pack.layout.position[made.ce_rows[0]] == 4


def test_clips_are_one_segment(opened: Any, texts: Any) -> None:
    frames = tuple(image(i) for i in range(3))
    parts = [Text("a"), Clip(frames, (2, 2, None), loss=True), Text("b", loss=True)]
    made = assemble([encoded(opened, texts, parts, 0)], opened(texts).encoder.rules, 3.0, False)
    layout = made.pack.layout
    gen = slice(layout.num_und, None)
    assert layout.segment[gen].unique().numel() == 1
    assert not layout.hidden.any()
    assert layout.position[gen].unique().tolist() == [3, 5, 7]
    assert made.pack.times.unique().numel() == 1
    assert len({made.noise[rows.start, 0].item() for rows in made.latent_rows}) == 3


def test_labels_and_weights(opened: Any, texts: Any, tokenizer: Any) -> None:
    parts = [Text("abcd", loss=True), Picture(image(0), Use.LOOK), Text("ef", loss=True)]
    encoder = opened(texts).encoder
    sample = encoder.encode(Sample("s", tuple(parts)), Random(0))
    plain = assemble([sample, sample], encoder.rules, 1.0, False)
    ids = [*tokenizer.encode("abcd"), tokenizer.eos, *tokenizer.encode("ef"), tokenizer.eos]
    assert plain.ce_labels.tolist() == ids * 2
    assert plain.ce_weights.tolist() == [1.0] * len(ids) * 2
    und = torch.empty(plain.pack.layout.num_und, dtype=torch.int64)
    und[plain.pack.layout.text_rows] = plain.pack.text_ids
    start = tokenizer.bos
    given = [start, *tokenizer.encode("abcd"), start, *tokenizer.encode("ef")]
    assert und[plain.ce_rows].tolist() == given * 2
    weighted = assemble([sample], encoder.rules, 1.0, True).ce_weights
    assert torch.allclose(weighted, torch.tensor([5**-0.5] * 5 + [3**-0.5] * 3))


def test_one_seed_rules_all(texts: Any, pictures: Any, first_packs: Any) -> None:
    sets = {"name": "t", **texts}, {"name": "p", **pictures}
    a, b = first_packs(data_config(*sets), 4), first_packs(data_config(*sets), 4)
    other = first_packs(data_config(*sets, seed=1), 4)
    for left, right in itertools.zip_longest(a, b):
        assert left.samples == right.samples
        assert torch.equal(left.levels, right.levels)
        assert torch.equal(left.normals, right.normals)
        assert torch.equal(left.noise, right.noise)
    assert [pack.samples for pack in a] != [pack.samples for pack in other]


def test_spread_of_noise_levels(pictures: Any, first_packs: Any) -> None:
    """The same draws, half as far from the middle."""
    plain, narrow = (
        first_packs(data_config({"name": "p", **pictures}, timestep_spread=spread), 2) for spread in (1.0, 0.5)
    )
    for one, other in zip(plain, narrow, strict=True):
        noised = one.normals.isfinite()
        assert noised.any()
        assert torch.allclose(other.normals[noised], one.normals[noised] / 2)
        assert torch.equal(other.normals.isfinite(), noised)


def test_noise_belongs_to_the_sample_not_to_the_pack(opened: Any, pictures: Any) -> None:
    dataset = opened(pictures)
    one, two = dataset.encoded(0, 0), dataset.encoded(0, 1)
    alone = assemble([two], dataset.encoder.rules, 1.0, False)
    behind = assemble([one, two], dataset.encoder.rules, 1.0, False)
    assert torch.equal(alone.noise, behind.noise[behind.latent_rows[1]])
    assert torch.equal(alone.draws, behind.draws[-len(alone.draws) :])
    assert torch.equal(alone.picture(0), behind.picture(1))
    assert dataset.encoded(1, 0).pieces[-1].normal != one.pieces[-1].normal


def test_shapes_agree(pictures: Any, first_packs: Any) -> None:
    (pack,) = first_packs(data_config({"name": "p", **pictures}))
    for k, (height, width) in enumerate(pack.picture_sizes):
        assert pack.picture(k).shape == (3, height, width)
        assert pack.grids[k] == (height // 16, width // 16)
        assert pack.latent_rows[k].stop - pack.latent_rows[k].start == height * width // 256
    assert torch.equal(pack.mse_rows, torch.arange(pack.counts["latent"]))
    noised = pack.with_latents(pack.noise)
    assert noised.pack.latents is not None
    assert noised.pack.latents.shape == (pack.counts["latent"], 64)
    assert pack.pack.layout.hidden.any()


def test_texts_alone(texts: Any, first_packs: Any) -> None:
    (pack,) = first_packs(data_config({"name": "t", **texts}))
    assert pack.pack.latents is None
    assert pack.pack.patches is None
    assert not len(pack.levels)
    assert not len(pack.mse_rows)
    assert pack.noise.shape == (0, 64)
    assert not len(pack.draws)
    assert pack.counts["ce"] == len(pack) - len(pack.samples)


def test_keys_name_the_pixels(pictures: Any, opened: Any) -> None:
    dataset = opened(pictures)
    two = dataset.encoded(0, 1)
    behind = assemble([dataset.encoded(0, 0), two], dataset.encoder.rules, 1.0, False)
    alone = assemble([two], dataset.encoder.rules, 1.0, False)
    assert alone.picture_key(0) == behind.picture_key(1) != behind.picture_key(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_packs_move(pictures: Any, model: Any, tokenizer: Any) -> None:
    config = data_config({"name": "p", **pictures}, workers=1)
    pack = next(iter(PackLoader(config, model, tokenizer, pin_memory=True)))
    assert pack.levels.is_pinned()
    assert pack.pack.layout.position.is_pinned()
    moved = pack.to("cuda")
    assert torch.equal(moved.picture(0).cpu(), pack.picture(0))
    assert moved.pack.layout.order.is_cuda
    assert torch.equal(moved.noise.cpu(), pack.noise)


def test_without_sampling_no_draws_are_made(pictures: Any, model: Any, tokenizer: Any) -> None:
    config = data_config({"name": "p", **pictures}, workers=0)
    with_draws, without = (next(iter(PackLoader(config, model, tokenizer, draws=draws))) for draws in (True, False))
    assert len(with_draws.draws)
    assert not len(without.draws)
    assert torch.equal(with_draws.noise, without.noise)
