"""A pack on its way from a worker: one block of memory, the same values."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, fields, is_dataclass, replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import get_sharing_strategy

from bagel.data import block as blocks
from bagel.data.block import Parcel, from_block, to_block
from bagel.data.loader import PackLoader
from bagel.data.packing import TrainPack
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


@pytest.fixture
def in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a worker process."""
    monkeypatch.setattr(blocks, "get_worker_info", lambda: "one")


@pytest.mark.usefixtures("in_a_worker")
@pytest.mark.parametrize("value", [outer(), Outer(torch.empty(0), None, 0, torch.empty(0, 2))], ids=["full", "empty"])
def test_parcels_are_shared_from_the_start(value: Outer) -> None:
    parcel = Parcel.of(value)
    assert parcel.block.is_shared() == bool(len(parcel.block))
    arrived: Parcel[Outer] = pickle.loads(ForkingPickler.dumps(parcel))
    assert same(arrived.opened(), value)


@pytest.mark.usefixtures("in_a_worker")
@pytest.mark.skipif(get_sharing_strategy() != "file_descriptor", reason="shared memory has no descriptor here")
def test_pinning_gives_the_shared_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)  # no GPU needed
    value = outer()
    parcel = Parcel.of(value)
    descriptor, size = parcel.block.untyped_storage()._share_fd_cpu_()
    assert os.fstat(descriptor).st_size == size
    assert same(parcel.pin_memory().opened(), value)
    assert os.fstat(descriptor).st_size == 0
    alone = Parcel.of(value).pin_memory()  # no memory of workers: nothing to give back
    assert same(alone.pin_memory().opened(), alone.opened())


@pytest.fixture
def sets(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    pictures = write_parquet(tmp_path / "p.parquet", t2i_rows(20), group=6)
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "x" * (1 + i)} for i in range(9)])
    return {"name": "p", "recipe": "t2i", "path": str(pictures)}, {"name": "t", "recipe": "text", "path": str(texts)}


def packs(sets: Any, workers: int, model: ModelConfig, tokenizer: Tokenizer) -> Any:
    return iter(PackLoader(data_config(*sets, max_num_tokens=450, workers=workers), model, tokenizer))


@pytest.mark.parametrize("wanted", [slice(0, 2), slice(1, 2)], ids=["all", "texts alone"])
def test_a_pack_comes_from_a_worker_in_one_piece(
    sets: Any, model: ModelConfig, tokenizer: Tokenizer, wanted: slice
) -> None:
    alone, through = (packs(sets[wanted], workers, model, tokenizer) for workers in (0, 1))
    for _ in range(3):
        a, b = next(alone), next(through)
        assert same(replace(a, state={}), replace(b, state={}))
        assert_one_piece(b)
        moved = b.to("cpu")
        assert same(moved, b)
        assert moved.normals.untyped_storage().data_ptr() != b.levels.untyped_storage().data_ptr()
        away = b.to("meta")
        assert away.pack.text_ids.is_meta
        assert away.pack.layout.position.shape == b.pack.layout.position.shape
        assert not away.normals.is_meta


def test_two_workers_take_turns(sets: Any, model: ModelConfig, tokenizer: Tokenizer) -> None:
    through = packs(sets, 2, model, tokenizer)
    names = [next(through).samples for _ in range(4)]
    again = packs(sets, 2, model, tokenizer)
    for samples in names:
        pack = next(again)
        assert pack.samples == samples
        assert_one_piece(pack)


def test_changed_packs_move_too(sets: Any, model: ModelConfig, tokenizer: Tokenizer) -> None:
    pack = next(packs(sets, 1, model, tokenizer))
    changed = replace(pack, runs=None, ce_weights=pack.ce_weights * 2).with_latents(pack.noise)
    assert same(changed.to("cpu"), changed)


def assert_one_piece(pack: TrainPack) -> None:
    tensors: list[Tensor] = []
    blocks._each(pack, tensors.append)
    assert len(tensors) > 20
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    assert all(tensor.storage_offset() * tensor.element_size() % 64 == 0 for tensor in tensors)
