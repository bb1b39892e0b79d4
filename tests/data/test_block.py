"""A pack on its way from a worker: one block of memory, the same values."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bagel.data.block import from_block, to_block
from bagel.data.loader import PackLoader
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer

from .make import data_config, t2i_rows, write_jsonl, write_parquet


@dataclass(frozen=True, slots=True)
class Inner:
    values: Tensor
    name: str


@dataclass(frozen=True, slots=True)
class Outer:
    first: Tensor
    inner: Inner | None
    count: int
    last: Tensor


def outer() -> Outer:
    return Outer(torch.arange(5), Inner(torch.tensor([True, False, True]), "x"), 3, torch.randn(2, 3, 4))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype is b.dtype and torch.equal(a, b)
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


def test_there_and_back() -> None:
    value = outer()
    block, parts = to_block(value)
    found = from_block(block, parts)
    assert same(found, value)
    assert {t.untyped_storage().data_ptr() for t in (found.first, found.inner.values, found.last)} == {block.data_ptr()}
    assert to_block(found)[0].data_ptr() == block.data_ptr()  # a second time without a copy
    assert same(from_block(*to_block(replace(value, inner=None))), replace(value, inner=None))


def test_views_of_something_larger_are_copied() -> None:
    whole = torch.arange(1000)
    value = Outer(whole[:5], None, 0, whole[900:910:2])
    block, parts = to_block(value)
    assert block.numel() < 200
    assert same(from_block(block, parts), value)


def test_no_tensors_and_empty_ones() -> None:
    empty = Outer(torch.empty(0, 3), None, 1, torch.empty(2, 0, dtype=torch.int64))
    assert same(from_block(*to_block(empty)), empty)


def test_a_pack_comes_from_a_worker_in_one_piece(tmp_path: Path, model: ModelConfig, tokenizer: Tokenizer) -> None:
    pictures = {"recipe": "t2i", "path": str(write_parquet(tmp_path / "p.parquet", t2i_rows(20), group=6))}
    sets = {"name": "p", **pictures}, {"name": "t", "recipe": "text", "path": str(texts(tmp_path))}
    alone, through = (
        iter(PackLoader(data_config(*sets, max_num_tokens=450, workers=workers), model, tokenizer, pin_memory=False))
        for workers in (0, 1)
    )
    for _ in range(3):
        a, b = next(alone), next(through)
        assert same(replace(a, state={}), replace(b, state={}))
        assert b.levels.untyped_storage().data_ptr() == b.pack.layout.order.untyped_storage().data_ptr()
        moved = b.to("cpu")
        assert moved.normals is b.normals
        assert same(moved, b)
        assert b.to("meta").pack.text_ids.is_meta


def texts(folder: Path) -> Path:
    return write_jsonl(folder / "texts.jsonl", [{"text": "x" * (1 + i)} for i in range(9)])
