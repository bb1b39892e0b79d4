"""Configs and data sets that cannot work are refused before a run, with the place and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bagel.data import validate
from bagel.data.config import DataConfig
from bagel.errors import InputError

from .make import data_config, png, t2i_rows, write_jsonl, write_parquet

ROW = {"name": "a", "recipe": "t2i", "path": "x.jsonl"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_num_token": 5}, "'max_num_token' is not known; did you mean 'max_num_tokens'"),
        ({"datasets": []}, "datasets is empty"),
        ({"datasets": [{"name": "a", "path": "x"}]}, r"datasets\[0\]: the key 'recipe' is missing"),
        ({"datasets": [{**ROW, "wieght": 2}]}, "'wieght' is not known; did you mean 'weight'"),
        ({"datasets": [ROW, ROW]}, "two data sets are called 'a'"),
        ({"datasets": [{**ROW, "weight": 0}]}, "weight 0.0 would never be drawn"),
        ({"datasets": [{**ROW, "vae": {"max": 2}}]}, r"datasets\[0\].vae: the key 'max' is not known"),
        ({"datasets": [{**ROW, "format": "parket"}]}, "'parket' is not known; did you mean 'parquet'"),
        ({"text_dropout": 10}, "text_dropout is 10.0; it must lie between 0 and 1"),
        ({"seed": "one"}, "data.seed is 'one'; it must be a whole number"),
        ({"max_num_tokens": 10}, "expected_num_tokens 32768 is above data.max_num_tokens 10"),
        ({"max_num_tokens_per_sample": 99999}, "would fit no pack"),
    ],
)
def test_bad_configs(change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        DataConfig.from_dict({"datasets": [ROW], **change})


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"vae": {"max_size": 2000}}, r"data set 'a': vae.max_size 2000 .* 64 x 16 = 1024 pixels \(max_latent_size"),
        ({"vit": {"max_size": 1200}}, "vit.max_size 1200 is beyond .* 980 pixels"),
        ({"vae": {"stride": 8}}, "vae.stride 8 is no multiple of 16"),
        ({"vae": {"min_size": 500}}, "vae.min_size 500 is above vae.max_size 128"),
        ({"path": "no/such.jsonl"}, "data set 'a': no/such.jsonl names no"),
        ({"columns": {"image": "img"}}, "columns: there is no 'img'; the row has image, captions"),
    ],
)
def test_bad_data_sets(tmp_path: Path, model: Any, tokenizer: Any, own: Any, words: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", t2i_rows(2))
    report = validate(data_config({**ROW, "path": str(path), **own}), model, tokenizer)
    assert not report.ok
    with pytest.raises(InputError, match=words):
        report.raise_if_bad()


def test_bad_rows_are_named(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    (tmp_path / "ok.png").write_bytes(png(0))
    (tmp_path / "half.png").write_bytes(png(1)[:100])
    rows = [{"file_name": name, "text": "x"} for name in ("ok.png", "half.png", "gone.png", "ok.png")]
    path = write_jsonl(tmp_path / "metadata.jsonl", rows)
    path.write_text(path.read_text() + '{"file_name": "ok.png"\n', encoding="utf-8")
    report = validate(data_config({**ROW, "path": str(tmp_path)}), model, tokenizer)
    (found,) = report.datasets
    assert (found.rows, found.checked, found.bad) == (5, 5, 3)
    for line, words in ((2, "half.png.*damaged"), (3, "gone.png cannot be opened"), (5, "broken JSON")):
        assert any(f"metadata.jsonl, line {line}: " in problem for problem in found.problems)
        with pytest.raises(InputError, match=words):
            raise InputError(" ".join(found.problems))
    assert "5 rows in 1 files, 5 checked" in str(report)


def test_report_and_contact_sheet(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    path = write_parquet(tmp_path / "a.parquet", t2i_rows(40), group=5)
    config = data_config({**ROW, "path": str(path)})
    report = validate(config, model, tokenizer, rows=16, sheets=tmp_path / "sheets")
    (found,) = report.datasets
    assert report.ok
    assert found.checked == 16
    assert sum(found.tokens.values()) == sum(found.lengths)
    with Image.open(tmp_path / "sheets" / "a.png") as sheet:
        assert sheet.width > 300
    assert "tokens a sample: median" in str(report)


def test_a_picture_beyond_the_table_by_its_shape(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    """A rule inside the limits bounds every picture, however long and thin."""
    Image.new("RGB", (4000, 8)).save(tmp_path / "thin.png")
    path = write_jsonl(tmp_path / "a.jsonl", [{"image": "thin.png", "caption": "x"}])
    own = {**ROW, "path": str(path), "vae": {"max_size": 1024, "min_size": 512}}
    report = validate(data_config(own, max_num_tokens_per_sample=600), model, tokenizer)
    assert report.ok, str(report)
