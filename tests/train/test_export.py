"""Export: complete folders from partial fine-tunes, adapters, runs and models in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from bagel import Bagel, lora, lora_files
from bagel import checkpoint as checkpoints
from bagel.data.config import DataConfig, DatasetConfig
from bagel.data.encode import Encoder
from bagel.data.packing import TrainPack, assemble
from bagel.data.sample import Picture, Sample, Text, Use
from bagel.errors import CheckpointError, InputError
from bagel.infer.pipeline import find_model
from bagel.tokens import Tokenizer
from bagel.train import config as configs
from bagel.train.config import TrainConfig
from bagel.train.export import export, write
from bagel.train.loop import train
from conftest import CHECKPOINT

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The random model in bf16, its VAE in float32, as official folders are."""
    folder = tmp_path_factory.mktemp("base")
    write(checkpoints.load(CHECKPOINT, CPU, torch.float32), folder, dtype=torch.bfloat16)
    return folder


def is_gen(name: str) -> bool:
    return "_moe_gen" in name or name.startswith(("vae2llm", "llm2vae", "time_embedder"))


def draws(folder: Path) -> Tensor:
    made = Bagel.load(folder, device="cpu", dtype="fp32").draw("a cat", seed=1, num_timesteps=3, height=64, width=64)
    return made.latent


def test_written_from_memory_is_the_same_folder(base):
    stored, written = load_file(CHECKPOINT / "ema.safetensors"), load_file(base / "ema.safetensors")
    assert stored.keys() == written.keys()
    for name, value in written.items():
        assert value.dtype is torch.bfloat16
        if name not in checkpoints.COMPUTED:
            assert torch.equal(value, stored[name].bfloat16()), name
    vae = load_file(base / "ae.safetensors")
    assert all(value.dtype is torch.float32 for value in vae.values())


@pytest.mark.parametrize("generation", [True, False])
def test_half_a_fine_tune_becomes_whole(base, tmp_path, generation):
    tuned = {
        name: value + 0.01
        for name, value in load_file(CHECKPOINT / "ema.safetensors").items()
        if is_gen(name) == generation and name not in checkpoints.COMPUTED
    }
    half = tmp_path / "half"
    half.mkdir()
    save_file(tuned, half / "model.safetensors")
    for file in ("llm_config.json", "vit_config.json", "config.json", "ae_config.json"):
        (half / file).write_bytes((base / file).read_bytes())
    for file in ("ae.safetensors", "tokenizer.json"):
        (half / file).write_bytes((base / file).read_bytes())
    with pytest.raises(CheckpointError, match="bagel export"):
        checkpoints.load(half, CPU, torch.float32)
    done = export(half, tmp_path / "out", base=base)
    assert done.replaced == len(tuned)
    assert done.dtype is torch.bfloat16
    original, out = load_file(base / "ema.safetensors"), load_file(tmp_path / "out" / "ema.safetensors")
    assert original.keys() == out.keys()
    for name, value in out.items():
        wanted = tuned[name].bfloat16() if name in tuned else original[name]
        assert torch.equal(value, wanted), name
    assert not torch.equal(draws(tmp_path / "out"), draws(base))
    export(half / "model.safetensors", tmp_path / "fp32", base=base, dtype="fp32")
    assert {v.dtype for v in load_file(tmp_path / "fp32" / "ema.safetensors").values()} == {torch.float32}


def test_an_adapter_is_merged(base, tmp_path):
    model = checkpoints.load(base, CPU, torch.bfloat16).model
    lora.attach(model, lora.LoraConfig(rank=2, experts=("gen",)))
    for adapter in lora.adapters(model):
        torch.nn.init.normal_(adapter.B, std=0.2)
    lora_files.save(model, tmp_path / "adapter")
    done = export(tmp_path / "adapter", tmp_path / "out", base=base)
    assert done.replaced == len(lora.adapters(model))
    lora.merge(model)
    lora.remove(model)
    merged = dict(model.named_parameters())
    for name, value in checkpoints.load(tmp_path / "out", CPU, torch.bfloat16).model.named_parameters():
        assert torch.equal(value, merged[name]), name
    with pytest.raises(InputError, match="--base"):
        export(tmp_path / "adapter", tmp_path / "out")


def test_the_first_run_of_the_guide(tmp_path, monkeypatch):
    """docs/train.md's first commands: an adapter on the embedded model, exported, answers."""
    monkeypatch.chdir(tmp_path)
    train(configs.load(ROOT / "configs" / "first-lora.yaml", ["steps=3", "save.every=3"]))
    done = export("runs/first-lora", "models/first")
    assert done.replaced > 0
    assert (tmp_path / "models" / "first" / "adapter" / "adapter_config.json").exists()
    before, after = (load_file(folder / "ema.safetensors") for folder in (find_model("mini"), done.folder))
    changed = [name for name, value in before.items() if not torch.equal(value.float(), after[name].float())]
    assert 0 < len(changed) <= done.replaced
    assert Bagel.load(done.folder, device="cpu").chat("How many?", max_tokens=4).text is not None


def test_a_model_in_memory_is_written_with_its_adapters_and_left_alone(tmp_path):
    checkpoint = checkpoints.load(CHECKPOINT, CPU, torch.float32)
    lora.attach(checkpoint.model, lora.LoraConfig(rank=2))
    for adapter in lora.adapters(checkpoint.model):
        torch.nn.init.normal_(adapter.B, std=0.2)
    before = {name: value.detach().clone() for name, value in checkpoint.model.named_parameters()}
    write(checkpoint, tmp_path / "out")
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.named_parameters())
    again = checkpoints.load(tmp_path / "out", CPU, torch.float32).model
    lora.merge(checkpoint.model)
    lora.remove(checkpoint.model)
    for name, value in checkpoint.model.named_parameters():
        assert torch.equal(again.get_parameter(name), value)


def test_what_does_not_fit_is_named(base, tmp_path):
    name = "language_model.model.norm_moe_gen.weight"
    for tensors, says in (
        ({name: torch.ones(32)}, r"\[32\] instead of \[64\]"),
        ({"language_model.model.layers.7.mlp.up_proj.weight": torch.ones(1)}, "unknown"),
    ):
        save_file(tensors, tmp_path / "part.safetensors")
        with pytest.raises(CheckpointError, match=says):
            export(tmp_path / "part.safetensors", tmp_path / "out", base=base)
    with pytest.raises(CheckpointError, match="there is no"):
        export(tmp_path / "nothing", tmp_path / "out", base=base)
    with pytest.raises(InputError, match="another folder"):
        export(base, base)
    with pytest.raises(InputError, match="unknown"):
        export(base, tmp_path / "out", dtype="int3")
    assert not (tmp_path / "out").exists()


class Packs:
    """One pack of a picture to draw and a question about one, again and again."""

    def __init__(self) -> None:
        model, tokenizer = checkpoints.read_config(CHECKPOINT), Tokenizer.from_folder(CHECKPOINT)
        data = DataConfig(max_num_tokens=512, expected_num_tokens=256, datasets=())
        encoder = Encoder(data, DatasetConfig(name="x", recipe="t2i", path=("x",)), model, tokenizer)
        image = Image.effect_noise((64, 64), 50).convert("RGB")
        draw = Sample("draw", (Text("a cat"), Picture(image, Use.TARGET)))
        look = Sample("look", (Picture(image, Use.LOOK), Text("what?"), Text("noise", loss=True)))
        made = [encoder.encode(sample, Random(0)) for sample in (draw, look)]
        self.pack = assemble(made, encoder.rules, 1.0, False)

    def __iter__(self) -> Iterator[TrainPack]:
        return itertools.repeat(self.pack)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, states: Any) -> None: ...


@pytest.mark.parametrize(
    "change",
    [
        {"freeze": {"und": True}, "optim": {"lr": 1e-2, "ema": 0.5}},
        {"lora": {"rank": 2, "experts": ["gen"]}, "optim": {"lr": 1e-2}},
    ],
)
def test_a_run_of_part_of_the_model_becomes_whole(tmp_path, change):
    run = tmp_path / "run"
    data = {"datasets": [{"name": "x", "recipe": "t2i", "path": str(CHECKPOINT)}]}
    model = {"path": str(CHECKPOINT)}
    settings = {"run": str(run), "model": model, "data": data, "steps": 2, "device": "cpu", **change}
    settings["loss"] = {"ce_limit": None, "mse_limit": None}
    settings["log"] = {"tensorboard": False}
    train(TrainConfig.from_dict(settings), Packs())
    done = export(run, tmp_path / "out")
    original, out = load_file(CHECKPOINT / "ema.safetensors"), load_file(tmp_path / "out" / "ema.safetensors")
    assert original.keys() == out.keys()
    changed = {n for n in out if not torch.equal(out[n], original[n]) and n not in checkpoints.COMPUTED}
    assert changed
    trained_too = {"language_model.lm_head.weight", "language_model.model.norm.weight"}
    assert all(is_gen(name) or name in trained_too for name in changed)
    assert done.dtype is torch.float32
    assert not torch.equal(draws(tmp_path / "out"), draws(CHECKPOINT))
    if "lora" in change:
        made = Bagel.load(CHECKPOINT, device="cpu", lora=tmp_path / "out" / "adapter")
        picture = made.draw("a cat", seed=1, num_timesteps=3, height=64, width=64)
        torch.testing.assert_close(picture.latent, draws(tmp_path / "out"), rtol=1e-4, atol=1e-4)
    else:
        export(run, tmp_path / "raw", ema=False)
        raw = load_file(tmp_path / "raw" / "ema.safetensors")
        assert any(not torch.equal(raw[name], out[name]) for name in changed)
    with pytest.raises(CheckpointError, match="has no checkpoint of step 7; it has 2"):
        export(run, tmp_path / "seven", step=7)
