"""Tokenizer, sizes, pieces: what training of `mini` starts from."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from bagel.errors import InputError
from bagel.mini import pieces
from bagel.mini.pictures import Pictures
from bagel.mini.sizes import BUDGET, MINI, active_per_token, parameter_table, with_layers
from bagel.mini.words import train_tokenizer, wording
from bagel.model.config import Layers
from bagel.tokens import SPECIAL, Tokenizer


def test_it_fits_the_budget() -> None:
    table = parameter_table(MINI)
    assert table["all"] < BUDGET - 150_000  # the tokenizer's files need room too
    assert sum(count for name, count in table.items() if name != "all") == table["all"]


def test_layers_of_any_kind_have_the_same_active_numbers() -> None:
    kinds = [with_layers(MINI, kind) for kind in Layers]
    assert len({active_per_token(config) for config in kinds}) == 1
    assert len({parameter_table(config)["all"] for config in kinds}) == 3


def test_tokenizer_in_the_official_layout(tmp_path: Path) -> None:
    made = train_tokenizer(wording(20), 700)
    assert len(made) == 700
    for name, text in made.files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for drop in ("", "tokenizer.json"):  # the one file, then the three that upstream reads
        if drop:
            (tmp_path / drop).unlink()
        read = Tokenizer.from_folder(tmp_path)
        assert [read.id_of(token) for token in SPECIAL] == [696, 697, 698, 699]
        for text in ("Draw a red circle.", "画一个红色的圆。", "naïve ✓ 😀\n"):
            assert read.decode(read.encode(text)) == text
            assert read.encode(text) == made.encode(text)


def test_words_are_short_in_tokens() -> None:
    made, texts = train_tokenizer(wording(60), 1500), list(islice(wording(70, seed=5), 400))
    letters, tokens = sum(map(len, texts)), sum(len(made.encode(text)) for text in texts)
    assert tokens < letters / 2.5


def test_pieces_there_and_back(tmp_path: Path) -> None:
    source, carried, out = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "large").write_bytes(bytes(range(256)) * 9)
    (source / "empty").write_bytes(b"")
    pieces.split(source, carried, limit=1000)
    assert all(path.stat().st_size <= 1000 for path in carried.iterdir() if path.suffix == ".piece")
    pieces.join(carried, out)
    assert (out / "deep" / "large").read_bytes() == (source / "deep" / "large").read_bytes()
    assert (out / "empty").read_bytes() == b""
    (carried / "00001.piece").write_bytes(b"other")
    with pytest.raises(InputError, match="is not what it was"):
        pieces.join(carried, tmp_path / "d")


def test_pictures_are_the_same_wherever_a_run_goes_on() -> None:
    first = list(islice(Pictures(3, seed=4), 3))
    again = next(iter(Pictures(3, seed=4, start=2)))
    assert first[2].shape == (3, 3, 128, 128)
    assert (again == first[2]).all()
