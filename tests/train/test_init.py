"""What training starts from: the same weights as `checkpoint.load`, models built from parts, and from nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import bagel
from bagel import checkpoint as checkpoints
from bagel.errors import CheckpointError, InputError
from bagel.model.config import Layers
from bagel.tokens import Tokenizer
from bagel.train import init
from bagel.train.coverage import Origin
from conftest import CHECKPOINT

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return load_file(CHECKPOINT / "ema.safetensors")


def parameters(start: init.Start) -> dict[str, Tensor]:
    return dict(start.checkpoint().model.named_parameters())


def test_an_official_folder_gives_what_load_gives():
    start = init.from_folder(CHECKPOINT)
    ours, theirs = start.checkpoint(), checkpoints.load(CHECKPOINT, CPU, torch.float32)
    for a, b in ((ours.model, theirs.model), (ours.vae, theirs.vae)):
        wanted = dict(b.named_parameters())
        got = dict(a.named_parameters())
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert start.coverage().share == 1
    assert ours.config == theirs.config


def test_init_und_copies_the_expert_and_zeroes_the_head():
    start = init.from_folder(CHECKPOINT, init="und", seed=3)
    stored, new = dict(checkpoints.load(CHECKPOINT, CPU, torch.float32).model.named_parameters()), parameters(start)
    for name, value in new.items():
        if ".gen." in name or "gen_norm" in name:
            assert torch.equal(value, new[name.replace(".gen.", ".und.").replace("gen_norm", "und_norm")])
        elif name.startswith(("latent_in", "latent_out", "time")):
            assert value.count_nonzero() == 0 or not torch.equal(value, stored[name])
        else:
            assert torch.equal(value, stored[name])
    assert not new["latent_out.weight"].any()
    parts = start.coverage().parts
    assert parts["gen expert"][Origin.FILE] == 0
    assert parts["und expert"][Origin.NEW] == parts["ViT"][Origin.NEW] == 0


def test_scratch_depends_on_the_seed_alone():
    one, two, other = (parameters(init.from_folder(CHECKPOINT, init="scratch", seed=s)) for s in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])
    assert not torch.equal(one["decoder.layers.0.und.o.weight"], one["decoder.layers.1.und.o.weight"])
    assert torch.equal(one["decoder.layers.1.gen.o.weight"], one["decoder.layers.1.und.o.weight"])
    assert torch.equal(one["decoder.layers.0.und.q_norm.weight"], torch.ones(16))
    assert not one["latent_out.weight"].any()


@pytest.mark.parametrize("kind", list(Layers))
def test_every_kind_of_layers_saves_and_loads(kind, tmp_path):
    start = init.from_folder(CHECKPOINT, layers=kind)
    assert start.coverage().share == 1
    checkpoints.save(tmp_path, start.checkpoint())
    again = checkpoints.load(tmp_path, CPU, torch.float32)
    assert again.config.llm.layers is kind
    grown = init.from_folder(tmp_path, layers=Layers.MOT)
    parts = grown.coverage().parts["gen expert"]
    assert (parts[Origin.FILE] > 0) == (kind is not Layers.DENSE)
    assert (parts[Origin.UND] > 0) == (kind is not Layers.MOT)
    gen, und = (grown.parameter(f"decoder.layers.1.{e}.qkv.weight") for e in ("gen", "und"))
    assert torch.equal(gen, und) == (kind is not Layers.MOT)


def test_another_latent_size_and_an_unknown_setting():
    assert init.from_folder(CHECKPOINT, max_latent_size=88).config.max_latent_size == 88
    with pytest.raises(InputError, match="max_latent"):
        init.from_folder(CHECKPOINT, max_latents=88)
    with pytest.raises(InputError, match=r"model\.settings: vit_max_num_patch_per_side is 1000"):
        init.from_folder(CHECKPOINT, vit_max_num_patch_per_side=1000)
    with pytest.raises(InputError, match="use checkpoint, und or scratch"):
        init.from_folder(CHECKPOINT, init="new")


# --- from parts ------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path, published) -> Path:
    """A Qwen2-like, a SigLIP-like and a VAE as others publish them, cut out of the random model."""
    config = json.loads((CHECKPOINT / "llm_config.json").read_text())
    make_llm(tmp_path / "llm", published, config, tied=False, norms=True)
    vit = tmp_path / "vit"
    vit.mkdir()
    sizes = json.loads((CHECKPOINT / "vit_config.json").read_text())
    side = 9
    (vit / "config.json").write_text(
        json.dumps({"model_type": "siglip", "vision_config": {**sizes, "image_size": side * 14}})
    )
    prefix = "vit_model."
    tensors = {n.removeprefix(prefix): v for n, v in published.items() if n.startswith(prefix)}
    last = sizes["num_hidden_layers"] - 1
    tensors |= {n.replace("layers.0.", f"layers.{last}."): v.clone() for n, v in tensors.items() if "layers.0." in n}
    patch = "vision_model.embeddings.patch_embedding.weight"
    tensors[patch] = tensors[patch].unflatten(1, (14, 14, 3)).permute(0, 3, 1, 2)
    tensors["vision_model.embeddings.position_embedding.weight"] = ramp(side, sizes["hidden_size"])
    tensors |= {
        "vision_model.head.probe": torch.zeros(1, 1, 4),
        "text_model.x": torch.zeros(2),
        "logit_scale": torch.zeros(1),
    }
    save_file({n: v.contiguous() for n, v in tensors.items()}, vit / "model.safetensors")
    (tmp_path / "vae").mkdir()
    for name in ("ae.safetensors", "ae_config.json"):
        shutil.copy(CHECKPOINT / name, tmp_path / "vae")
    return tmp_path


def ramp(side: int, width: int) -> Tensor:
    """A table that says where each place is: its row and its column."""
    places = torch.arange(side * side)
    return torch.stack((places // side, places % side), 1).float().repeat(1, width // 2)


def make_llm(folder: Path, published: dict[str, Tensor], config: dict, *, tied: bool, norms: bool) -> None:
    """Two shards and an index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": tied}))
    prefix = "language_model."
    tensors = {
        n.removeprefix(prefix): v
        for n, v in published.items()
        if n.startswith(prefix)
        and "moe_gen" not in n
        and (norms or "_norm.w" not in n.replace("layernorm", "") or "model.norm" in n)
    }
    if tied:
        tensors.pop("lm_head.weight")
    names = sorted(tensors)
    index = {}
    for number, share in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in share}, folder / file)
        index |= dict.fromkeys(share, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(CHECKPOINT / name, folder)


def test_from_parts(parts, tmp_path):
    start = init.from_parts(parts / "llm", parts / "vit", parts / "vae" / "ae.safetensors", seed=1)
    stored, new = dict(checkpoints.load(CHECKPOINT, CPU, torch.float32).model.named_parameters()), parameters(start)
    for name, value in new.items():
        if ".und." in name or name.startswith(("embed", "lm_head", "vit.")):
            assert name == "vit.position.weight" or torch.equal(value, stored[name]), name
        elif ".gen." in name:
            assert torch.equal(value, new[name.replace(".gen.", ".und.")])
    assert not new["latent_out.weight"].any()
    table = new["vit.position.weight"].unflatten(0, (70, 70))
    assert table.shape[:2] == (70, 70)
    assert table[35, 10, 0] > table[34, 10, 0]
    assert table[35, 10, 1] > table[35, 9, 1]
    coverage = start.coverage()
    assert coverage.parts["connector"][Origin.NEW]
    assert coverage.parts["gen expert"][Origin.FILE] == 0
    assert coverage.parts["und expert"][Origin.NEW] == 0
    assert "copied from und" in "\n".join(coverage.lines())
    checkpoints.save(tmp_path / "out", start.checkpoint())
    assert bagel.Bagel.load(tmp_path / "out", device="cpu").chat("hello", max_tokens=3).token_ids


def test_from_parts_with_a_position_table_as_asked_for(parts):
    """Smaller than the usual 70 places a side."""
    start = init.from_parts(parts / "llm", parts / "vit", parts / "vae", vit_max_num_patch_per_side=6)
    assert start.config.vit_max_num_patch_per_side == start.config.vit.table_side == 6
    assert len(parameters(start)["vit.position.weight"]) == 36


def test_tied_embeddings_and_no_norms(parts, tmp_path, published):
    config = json.loads((CHECKPOINT / "llm_config.json").read_text())
    make_llm(tmp_path / "tied", published, config, tied=True, norms=False)
    start = init.from_parts(tmp_path / "tied", parts / "vit", parts / "vae")
    assert torch.equal(start.parameter("lm_head.weight"), start.parameter("embed.weight"))
    assert torch.equal(start.parameter("decoder.layers.2.und.k_norm.weight"), torch.ones(16))
    assert start.origin("language_model.model.layers.0.self_attn.q_norm.weight") is Origin.NEW


def test_missing_special_tokens_make_the_tables_grow(parts, tmp_path):
    described = json.loads((parts / "llm" / "tokenizer.json").read_text())
    described["added_tokens"] = [t for t in described["added_tokens"] if "vision" not in t["content"]]
    (parts / "llm" / "tokenizer.json").write_text(json.dumps(described))
    rows = max(Tokenizer.from_folder(parts / "llm").backend.get_vocab().values()) - 1
    for shard in (parts / "llm").glob("*.safetensors"):
        tensors = load_file(shard)
        save_file(
            {n: v[:rows].contiguous() if "embed" in n or "lm_head" in n else v for n, v in tensors.items()}, shard
        )
    config = json.loads((parts / "llm" / "config.json").read_text())
    (parts / "llm" / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    start = init.from_parts(parts / "llm", parts / "vit", parts / "vae")
    assert start.config.llm.vocab_size == rows + 2
    table = start.parameter("embed.weight")
    torch.testing.assert_close(table[-1], table[:rows].mean(0))
    checkpoints.save(tmp_path / "out", start.checkpoint())
    checkpoints.load(tmp_path / "out", CPU, torch.float32)


def test_wrong_parts_are_named(parts):
    where = parts / "llm", parts / "vit", parts / "vae"
    config = json.loads((where[0] / "config.json").read_text())
    for change, says in (
        ({"model_type": "llama"}, "llama"),
        ({"head_dim": 99}, "99"),
        ({"hidden_size": None}, "hidden_size"),
    ):
        (where[0] / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=says):
            init.from_parts(*where)
    (where[0] / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(CheckpointError, match="lacks"):
        init.from_parts(*where)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        init.from_parts(where[0], where[2], where[2])


def test_sharded_parameters_are_filled_from_files(tmp_path):
    """One process, a mesh of one: the code path of many."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        start = init.from_folder(CHECKPOINT)
        fully_shard(start.model, mesh=init_device_mesh("cpu", (1,)))
        start.model.to_empty(device="cpu")
        start.fill(start.model)
        wanted = dict(checkpoints.load(CHECKPOINT, CPU, torch.float32).model.named_parameters())
        for name, value in start.model.named_parameters():
            assert torch.equal(value.full_tensor(), wanted[name])
    finally:
        dist.destroy_process_group()
