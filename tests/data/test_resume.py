"""A run that stops and goes on sees the same packs; on other numbers of ranks and workers no row is lost."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from bagel.data.config import DataConfig
from bagel.data.loader import PackLoader
from bagel.data.packing import TrainPack
from bagel.errors import InputError

from .make import data_config, t2i_rows, write_jsonl, write_parquet


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sets")
    texts = write_jsonl(folder / "t.jsonl", [{"text": f"{i} " * (1 + i % 9)} for i in range(61)])
    pictures = write_parquet(folder / "p.parquet", t2i_rows(23), group=4)
    return [
        {"name": "t", "recipe": "text", "path": str(texts), "weight": 2},
        {"name": "p", "recipe": "t2i", "path": str(pictures), "mandatory": True},
    ]


def taken(loader: PackLoader, count: int) -> list[TrainPack]:
    return list(itertools.islice(loader, count))


def as_saved(state: Any) -> Any:
    return json.loads(json.dumps(state))


def same(a: TrainPack, b: TrainPack) -> bool:
    tensors = ("levels", "normals", "noise", "draws", "ce_rows", "ce_labels", "mse_rows")
    return (a.samples, a.state) == (b.samples, b.state) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in tensors
    )


@pytest.mark.parametrize(("workers", "before"), [(0, 3), (2, 3), (2, 4)])
def test_exact_resume(sets: Any, model: Any, tokenizer: Any, workers: int, before: int) -> None:
    config = data_config(*sets, workers=workers)
    whole = taken(PackLoader(config, model, tokenizer), before + 4)
    first = PackLoader(config, model, tokenizer)
    taken(first, before)
    second = PackLoader(config, model, tokenizer)
    second.load_state_dict([as_saved(first.state_dict())])
    for a, b in zip(whole[before:], taken(second, 4), strict=True):
        assert same(a, b)
    assert second.state_dict()["next"] == (before + 4) % max(workers, 1)


def test_a_packs_own_state_goes_on_after_it(sets: Any, model: Any, tokenizer: Any) -> None:
    """For trainers that take packs ahead of the step."""
    config = data_config(*sets, workers=2)
    packs = taken(PackLoader(config, model, tokenizer), 5)
    again = PackLoader(config, model, tokenizer)
    again.load_state_dict([as_saved(packs[2].state)])
    assert all(same(a, b) for a, b in zip(packs[3:], taken(again, 2), strict=True))


def test_workers_do_not_change_what_a_consumer_sees(sets: Any, model: Any, tokenizer: Any) -> None:
    alone = taken(PackLoader(data_config(*sets, workers=0), model, tokenizer), 2)
    process = taken(PackLoader(data_config(*sets, workers=1), model, tokenizer), 2)
    assert all(same(a, b) for a, b in zip(alone, process, strict=True))


def rows_of(packs: list[TrainPack]) -> Counter[str]:
    return Counter(name for pack in packs for name in pack.samples)


@pytest.mark.parametrize(("ranks", "workers"), [(2, 1), (8, 1), (1, 3)])
def test_another_number_of_ranks(sets: Any, model: Any, tokenizer: Any, ranks: int, workers: int) -> None:
    """4 ranks stop; others go on until every row was seen `epochs` times by all of them together."""
    before = [PackLoader(config_for(sets), model, tokenizer, rank, 4) for rank in range(4)]
    seen = Counter[str]()
    for loader in before:
        seen += rows_of(taken(loader, 3))
    states = [as_saved(loader.state_dict()) for loader in before]
    after = [PackLoader(config_for(sets, workers), model, tokenizer, rank, ranks) for rank in range(ranks)]
    for loader in after:
        loader.load_state_dict(list(reversed(states)))
    left = remaining([loader.state_dict() for loader in after])
    rows = {"t": 61, "p": 23}
    for name, count in rows.items():
        used = sum(n for sample, n in seen.items() if sample.startswith(f"{name}: "))
        epoch = after[0].state_dict()["consumers"][0]["todos"][name]["epoch"]
        assert used + left[name] == epoch * count
    assert not any(consumer["waiting"] for loader in after for consumer in loader.state_dict()["consumers"])
    for loader in after:
        assert len(taken(loader, 1)) == 1


def config_for(sets: Any, workers: int = 0) -> DataConfig:
    return data_config(*sets, workers=workers, max_num_tokens=450)


def remaining(states: list[Any]) -> Counter[str]:
    """Rows in the spans of all consumers."""
    left = Counter[str]()
    for state in states:
        for consumer in state["consumers"]:
            for name, todo in consumer["todos"].items():
                left[name] += sum(stop - start for _, start, stop in todo["spans"])
    return left


def test_a_changed_data_set_is_refused(sets: Any, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    state = PackLoader(data_config(*sets), model, tokenizer).state_dict()
    shorter = {**sets[0], "max_rows": 10}
    with pytest.raises(InputError, match="'t' had 61 rows when the run was saved and has 10 now"):
        PackLoader(data_config(shorter, sets[1]), model, tokenizer).load_state_dict([state])
    new = {**sets[0], "name": "new"}
    loader = PackLoader(data_config(new, sets[1]), model, tokenizer)
    loader.load_state_dict([state])
    assert any(name.startswith("new: ") for pack in taken(loader, 3) for name in pack.samples)
    with pytest.raises(InputError, match=r"saved with data\.seed 42, and 7 is"):
        PackLoader(data_config(*sets, seed=7), model, tokenizer).load_state_dict([state])
    with pytest.raises(InputError, match="of all ranks"):
        PackLoader(data_config(*sets), model, tokenizer).load_state_dict([{**state, "world_size": 2}])


def test_a_workers_error_is_one_sentence(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": 1}, {"text": 2}])
    own = {"name": "t", "recipe": "text", "path": str(path)}
    for workers, bad in ((0, "skip"), (1, "skip"), (1, "stop")):
        loader = PackLoader(data_config(own, workers=workers, bad_rows=bad), model, tokenizer)
        with pytest.raises(InputError, match=r"^data set 't'.*text holds [12]; it must be a text\.$"):
            taken(loader, 1)


def test_data_sets_travel_to_other_processes(sets: Any, model: Any, tokenizer: Any) -> None:
    for dataset in PackLoader(data_config(*sets), model, tokenizer).datasets:
        first = dataset.encoded(0, 0)
        assert pickle.loads(pickle.dumps(dataset)).encoded(0, 0).name == first.name


def test_waiting_is_measured(sets: Any, model: Any, tokenizer: Any) -> None:
    loader = PackLoader(data_config(*sets), model, tokenizer)
    taken(loader, 1)
    assert loader.wait_seconds > 0
