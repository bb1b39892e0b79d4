"""Shares of layers, by threads of one process: what each gives is summed as ranks would sum it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bagel import InputError
from bagel import checkpoint as checkpoints
from bagel.errors import CheckpointError
from bagel.infer.lead import deal
from bagel.memory.cards import Card
from bagel.memory.plan import Ask, MemoryPlanError, choose
from bagel.memory.sizes import Demand
from bagel.model.attention import PackAttention
from bagel.model.config import Layers
from bagel.model.published import SEVEN_B
from bagel.model.quantise import quantise
from bagel.pack import LatentPart, PackRules, TextPart, VitPart, pack
from bagel.parallel import shares
from bagel.parallel.grid import Grid, candidates, check, parse
from bagel.parallel.shares import Cut, cut_model, experts
from conftest import error
from make_checkpoint import config, made

HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 256}


class ThreadShare:
    """`GroupShare` for threads: the last to come sums."""

    def __init__(self, count: int) -> None:
        self.barrier, self.held = threading.Barrier(count), [torch.empty(0)] * count

    def of(self, index: int) -> ThreadShare:
        child = object.__new__(ThreadShare)
        child.__dict__.update(self.__dict__, index=index, adds=index == 0)
        return child

    def slices(self, rows: int) -> list[slice]:
        return shares.GroupShare(None, True).slices(rows)

    def sum(self, x: Tensor) -> Callable[[], object]:
        self.held[self.index] = x.clone()
        self.barrier.wait(60)
        x.copy_(torch.stack(self.held).sum(0))
        self.barrier.wait(60)
        return lambda: None


def inputs(sizes):
    generator = torch.Generator().manual_seed(0)
    vit = VitPart(torch.randn(12, sizes.vit.patch_width, generator=generator), (3, 4))
    latent = LatentPart(torch.randn(20, sizes.latent_width, generator=generator), (4, 5), 0.5, noised=True)
    rules = PackRules(1, 2, sizes.vit_max_num_patch_per_side, sizes.max_latent_size, sizes.interpolate_pos)
    return pack([[TextPart(range(5, 17)), vit], [TextPart(range(9)), latent]], rules)


@torch.inference_mode()
def run(model, sizes):
    batch = inputs(sizes)
    und, gen = model(batch, PackAttention(batch.layout))
    return model.logits(und), model.velocity(gen)


def shared(models, sizes):
    """The same by threads, one a share; -> what each has."""
    together, found = ThreadShare(len(models)), [None] * len(models)
    for index, model in enumerate(models):
        for expert in experts(model):
            expert.share = together.of(index)

    def work(index):
        try:
            found[index] = run(models[index], sizes)
        except BaseException:
            together.barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


@pytest.mark.parametrize("layers", Layers)
@pytest.mark.parametrize("count", [2, 4])
def test_shares_add_up(layers, count):
    sizes = config(llm={**HEADS, "layers": layers})
    wanted = run(made(sizes).model, sizes)
    models = [made(sizes).model for _ in range(count)]
    for index, model in enumerate(models):
        cut_model(model, Cut(index, count))
        assert model.local.num_key_value_heads == 4 // count
    for found in shared(models, sizes):
        assert error(found[0], wanted[0]) < 1e-5
        assert error(found[1], wanted[1]) < 1e-5


def test_long_passes_go_in_slices(monkeypatch):
    monkeypatch.setattr(shares, "_LONG", 8)
    monkeypatch.setattr(shares, "_SLICE", 7)
    test_shares_add_up(Layers.MOT, 2)


def test_a_share_is_read_as_it_is_cut(tmp_path):
    """From the file, the same as cut from the whole; a fraction of the memory is ever used."""
    sizes = config(llm=HEADS)
    checkpoints.save(tmp_path, made(sizes))
    for index in range(4):
        read = checkpoints.load(tmp_path, torch.device("cpu"), torch.float32, cut=Cut(index, 4)).model
        whole = made(sizes).model
        cut_model(whole, Cut(index, 4))
        for (name, found), (_, wanted) in zip(read.named_parameters(), whole.named_parameters(), strict=True):
            assert torch.equal(found, wanted), name


@pytest.mark.parametrize(("precision", "most"), [("int8", 1e-5), ("fp8", 1e-5), ("nf4", 1e-5)])
def test_packed_folders_are_cut(tmp_path, precision, most):
    """Packed whole and cut: the same numbers."""
    sizes = config(llm={**HEADS, "hidden_size": 128})
    packed = made(sizes)
    quantise(packed.model, precision)
    wanted = run(packed.model, sizes)
    checkpoints.save(tmp_path, packed)
    models = [
        checkpoints.load(tmp_path, torch.device("cpu"), torch.float32, cut=Cut(index, 2)).model for index in range(2)
    ]
    for found in shared(models, sizes):
        assert error(found[0], wanted[0]) < most
        assert error(found[1], wanted[1]) < most


def test_groups_of_nf4_are_not_parted(tmp_path):
    packed = made(config(llm=HEADS))
    quantise(packed.model, "nf4")
    checkpoints.save(tmp_path, packed)
    with pytest.raises(CheckpointError, match="4 ways"):
        checkpoints.load(tmp_path, torch.device("cpu"), torch.float32, cut=Cut(0, 4))


@pytest.mark.parametrize("name", ["qkv", "mlp.gate_up", "o", "mlp.down", "input_norm"])
def test_rows_that_come_piece_by_piece(name):
    """As files that have to be decoded give them."""
    stored = torch.arange(80).view(8, 10)
    parameter = f"decoder.layers.0.gen.{name}.weight"
    for cut in (Cut(0, 2), Cut(1, 2)):
        found = torch.cat(list(cut.parts(parameter, stored.split(3), 8)))
        assert torch.equal(found, cut(parameter, stored))


# --- grids -------------------------------------------------------------------------------------------------------


def test_grids():
    assert parse("rows", 4) == Grid(rows=4)
    assert parse("branches=2,tensor=2", 4) == Grid(branches=2, tensor=2)
    grid = Grid(2, 2, 2)
    assert [grid.rank(*grid.place(rank)) for rank in range(8)] == list(range(8))
    assert grid.groups("tensor") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert grid.groups("rows") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert grid.groups("branches") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert candidates(4, SEVEN_B.llm) == [Grid(rows=4), Grid(rows=2, tensor=2), Grid(tensor=4)]
    assert candidates(8, SEVEN_B.llm)[-1] == Grid(rows=2, tensor=4)
    assert Grid(rows=2, tensor=4).words == "rows=2,tensor=4"


@pytest.mark.parametrize(
    ("words", "count", "said"),
    [("columns", 2, "unknown"), ("rows=x", 2, "unknown"), ("rows=0", 2, "unknown"), ("tensor=2", 4, "2 devices")],
)
def test_wrong_grids(words, count, said):
    with pytest.raises(InputError, match=said):
        parse(words, count)


def test_layers_are_shared_by_key_heads():
    assert check(Grid(tensor=4), SEVEN_B.llm).tensor == 4
    with pytest.raises(InputError, match="4 key heads"):
        check(Grid(tensor=8), SEVEN_B.llm)


def test_plan_of_shared_layers():
    """bf16 does not fit one card of 24 GB, but two that share the layers."""
    sizes, card = SEVEN_B, Card.imagined("24")
    demand = Demand.of(sizes, "draw")
    with pytest.raises(MemoryPlanError):
        choose(sizes, card, demand, Ask("bf16"))
    shared = choose(sizes, card, demand, Ask("bf16", tensor=2))
    assert shared.setup.tensor == 2
    assert 14 * 2**30 < shared.weights.total < 17 * 2**30


def test_dealing():
    class Part:
        def __init__(self, length):
            self.segment = self
            self.length = length

    class Read:
        def __init__(self, length, keep=False):
            self.part, self.keep = Part(length), keep

    assert deal([Read(9), Read(9), Read(9)], 2) == [0, 1, 0]
    assert deal([Read(9), Read(5, keep=True), Read(9)], 2) == [0, None, 1]
    assert deal([Read(1), Read(9), Read(8)], 2) == [1, 0, 1]
