"""LoRA: what it adds, its files, merging, stacking; and that peft reads the same numbers."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from bagel import Bagel, lora, lora_files
from bagel.checkpoint import load, pieces
from bagel.errors import CheckpointError, InputError
from bagel.lora import LoraConfig
from bagel.model.attention import PackAttention
from bagel.model.bagel import BagelModel
from bagel.pack import LatentPart, Pack, PackRules, TextPart, VitPart, pack
from conftest import CHECKPOINT

RULES = PackRules(423, 424, 70, 64)


@pytest.fixture
def model() -> BagelModel:
    return load(CHECKPOINT, torch.device("cpu"), torch.float32).model


@pytest.fixture(scope="module")
def inputs() -> Pack:
    torch.manual_seed(1)
    text = TextPart([421, *range(10, 30), 422])
    latents = LatentPart(torch.randn(12, 64), (3, 4), time=0.4, noised=True)
    return pack([[text, latents], [VitPart(torch.randn(12, 588), (3, 4)), text]], RULES)


def run(model: BagelModel, inputs: Pack) -> Tensor:
    und, gen = model(inputs, PackAttention(inputs.layout))
    return torch.cat((model.logits(und).flatten(), model.velocity(gen).flatten()))


def randomise(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for adapter in lora.adapters(model):
        with torch.no_grad():
            adapter.B.copy_(torch.randn(adapter.B.shape, generator=generator) * 0.3)


def rel(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def test_new_adapter_changes_nothing_and_trains_alone(model, inputs):
    before = run(model, inputs)
    parameters = lora.attach(model, LoraConfig(rank=4))
    assert torch.equal(run(model, inputs), before)
    run(model, inputs).square().mean().backward()
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in parameters}
    assert all(p.grad is not None for p in parameters)


@pytest.mark.parametrize(
    ("experts", "projections"),
    [(("und",), ("q",)), (("gen",), ("k", "up")), (("gen",), ("o", "down")), (lora.EXPERTS, lora.PROJECTIONS)],
)
def test_merged_equals_unmerged_equals_a_changed_weight(model, inputs, experts, projections):
    before = run(model, inputs)
    lora.attach(model, LoraConfig(rank=3, alpha=5, rslora=True, experts=experts, projections=projections))
    randomise(model)
    with torch.no_grad():
        apart = run(model, inputs)
        assert rel(apart, before) > 1e-3
        lora.merge(model)
        lora.merge(model)  # a second time does nothing
        assert rel(run(model, inputs), apart) < 1e-4
        lora.unmerge(model)
        assert rel(run(model, inputs), apart) < 1e-4
        lora.remove(model)
        assert rel(run(model, inputs), before) < 1e-4
    assert not lora.layers(model)


def test_only_the_rows_of_the_chosen_projection_change(model):
    before = {name: value.clone() for name, value in model.named_parameters()}
    plan = pieces(model)
    lora.attach(model, LoraConfig(rank=2, experts=("gen",), projections=("k",)))
    randomise(model)
    lora.merge(model)
    lora.remove(model)
    for name, value in model.named_parameters():
        changed = (value != before[name]).flatten(1).any(1) if value.ndim > 1 else value != before[name]
        hit = [p for n, p in plan.items() if p.parameter == name and n.endswith("k_proj_moe_gen.weight")]
        wanted = torch.zeros_like(changed)
        if hit:
            wanted[hit[0].start : hit[0].start + (hit[0].rows or 0)] = True
        assert torch.equal(changed, wanted), name


def test_files_go_round_and_stack_with_weights(model, inputs, tmp_path):
    base = run(model, inputs)
    outs = []
    for seed, config in enumerate((LoraConfig(rank=4), LoraConfig(rank=2, experts=("und",), projections=("o", "v")))):
        name = f"a{seed}"
        lora.attach(model, config, name, seed=seed)
        randomise(model, seed)
        lora_files.save(model, tmp_path / name, name, base="some/model")
        outs.append(run(model, inputs))
        lora.remove(model)
    assert rel(outs[0], outs[1]) > 1e-3
    for seed in (0, 1):
        lora_files.load(model, tmp_path / f"a{seed}")
        assert rel(run(model, inputs), outs[seed]) < 1e-6
        lora.remove(model)
    lora_files.load(model, tmp_path / "a0", 0.5)
    lora_files.load(model, tmp_path / "a1", -1.0)
    both = run(model, inputs)
    lora.set_weight(model, "a0", 0.0)
    lora.set_weight(model, "a1", 0.0)
    assert rel(run(model, inputs), base) < 1e-6
    lora.remove(model)
    lora_files.apply(model, [(tmp_path / "a0", 0.5), (tmp_path / "a1", -1.0)])
    assert rel(run(model, inputs), both) < 1e-4


def test_dropout_only_in_training(model, inputs):
    lora.attach(model, LoraConfig(rank=4, dropout=0.5))
    randomise(model)
    still = run(model.eval(), inputs)
    assert torch.equal(run(model, inputs), still)
    assert not torch.equal(run(model.train(), inputs), still)


def test_bagel_load_takes_adapters(model, tmp_path):
    lora.attach(model, LoraConfig(rank=4), "x")
    randomise(model)
    lora_files.save(model, tmp_path / "x", "x")
    kinds = [{}, {"lora": tmp_path / "x"}, {"lora": [(tmp_path / "x", 0.0)]}, {"lora": [str(tmp_path / "x")]}]
    answers = [
        Bagel.load(CHECKPOINT, device="cpu", **kind).draw("a cat", seed=1, num_timesteps=4, height=64, width=64).latent
        for kind in kinds
    ]
    assert torch.equal(answers[0], answers[2])
    assert torch.equal(answers[1], answers[3])
    assert rel(answers[1], answers[0]) > 1e-3


def test_peft_computes_the_same(model, tmp_path):
    """peft loads our files on modules with the published names and gives the same products, and the other way
    round: files that peft writes load here."""
    peft = pytest.importorskip("peft")
    lora.attach(model, LoraConfig(rank=4, alpha=6, rslora=True, projections=("q", "v", "gate", "down")))
    randomise(model)
    lora_files.save(model, tmp_path / "ours")
    official = skeleton(model)
    wrapped = peft.PeftModel.from_pretrained(official, tmp_path / "ours")
    found = {name: module for name, module in wrapped.named_modules() if hasattr(module, "lora_A")}
    ours = {a.published: a for a in lora.adapters(model)}
    assert {name.removeprefix("base_model.model.") for name in found} == ours.keys()
    for name, module in found.items():
        delta = module.get_delta_weight("default")
        assert rel(delta, ours[name.removeprefix("base_model.model.")].product()) < 1e-5
    wrapped.save_pretrained(tmp_path / "theirs")
    products = {name: a.product() for name, a in ours.items()}
    lora.remove(model)
    lora_files.load(model, tmp_path / "theirs")
    for adapter in lora.adapters(model):
        assert rel(adapter.product(), products[adapter.published]) < 1e-6


def skeleton(model: BagelModel) -> nn.Module:
    """A tree of Linears with the official model's module names, the ViT's among them."""
    root = nn.Module()
    for name, piece in pieces(model).items():
        value = model.get_parameter(piece.parameter)
        if not name.endswith("proj.weight") and "proj_moe_gen.weight" not in name:
            continue
        *path, last = name.removesuffix(".weight").split(".")
        parent = root
        for step in path:
            if step not in parent._modules:
                parent.add_module(step, nn.Module())
            parent = parent._modules[step]
        parent.add_module(last, nn.Linear(value.shape[1], piece.rows or len(value), bias=False))
    return root


def test_shared_projections_of_a_moe_model(inputs):
    from dataclasses import replace

    from bagel.checkpoint import build, read_config
    from bagel.model.config import Layers

    config = read_config(CHECKPOINT)
    for kind, count in ((Layers.MOE, 2), (Layers.DENSE, 1)):
        model, _ = build(replace(config, llm=replace(config.llm, layers=kind)))
        found = lora.places(model)
        per_layer = len(found) // config.llm.num_hidden_layers
        assert per_layer == 4 + 3 * count
        lora.attach(model, LoraConfig(rank=2))
        block = model.decoder.layers[0]
        assert block.und.qkv is block.gen.qkv
        assert isinstance(block.gen.qkv, lora.LoraLinear)
        if kind is Layers.DENSE:
            lora.remove(model)
            with pytest.raises(InputError, match="dense"):
                lora.attach(model, LoraConfig(rank=2, experts=("gen",)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rank": 0}, "at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"experts": ("vit",)}, "und, gen"),
        ({"projections": ()}, "none"),
    ],
)
def test_bad_settings_are_named(fields, says):
    with pytest.raises(InputError, match=says):
        LoraConfig(**fields)


def test_bad_files_are_named(model, tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is missing"):
        lora_files.load(model, tmp_path)
    zeros = torch.zeros(2, 64), torch.zeros(64, 2)
    q = "language_model.model.layers.0.self_attn.q_proj"
    for index, (values, says) in enumerate(
        [
            ({"language_model.model.layers.9.self_attn.q_proj": zeros}, "another model"),
            ({q: (torch.zeros(2, 32), zeros[1])}, "another size"),
        ]
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        lora_files.write(folder, values, LoraConfig(rank=2))
        with pytest.raises(CheckpointError, match=says):
            lora_files.load(model, folder)
    described = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**described, "use_dora": True}))
    with pytest.raises(CheckpointError, match="use_dora"):
        lora_files.load(model, folder)
    with pytest.raises(InputError, match="must be a number"):
        lora_files.weighted([(folder, "much")])
    with pytest.raises(InputError, match="lora is 3; give an adapter folder"):
        lora_files.weighted(3)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "products", "mlp", "full"])
def test_compiled_blocks_are_one_graph_for_all_layers_and_sizes(model, inputs, recompute):
    """Two graphs: no gradient goes into the first layer."""
    from torch._dynamo.utils import counters

    from bagel.train import parallel

    def gradients(pack_: Pack) -> list[Tensor]:
        model.zero_grad()
        run(model, pack_).square().mean().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    lora.attach(model, LoraConfig(rank=4))
    randomise(model)
    text = TextPart([421, *range(10, 45), 422])
    other = pack([[VitPart(torch.randn(8, 588), (2, 4)), text, LatentPart(torch.randn(6, 64), (3, 2))]], RULES)
    eager = [gradients(inputs), gradients(other)]
    torch._dynamo.reset()
    counters.clear()
    for block in model.decoder.layers:
        parallel._wrap(block, recompute, False, 2 * model.config.llm.intermediate_size)
        block.forward = torch.compile(block.forward, dynamic=True, backend="aot_eager")
    for wanted, pack_ in zip(eager, (inputs, other), strict=True):
        for a, b in zip(gradients(pack_), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


def test_folders_taken_for_adapters_say_where_the_adapter_is(model, tmp_path):
    """What `bagel export` wrote, and a run."""
    lora.attach(model, LoraConfig(rank=2))
    lora_files.save(model, tmp_path / "out" / "adapter")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"the adapter of this folder is .*out.adapter"):
        lora_files.load(model, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"it is a run, whose adapter `bagel export .*run OUT` writes"):
        lora_files.load(model, tmp_path / "run")
