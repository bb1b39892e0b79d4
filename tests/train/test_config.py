from __future__ import annotations

import re
from pathlib import Path

import pytest

from bagel.errors import InputError
from bagel.train.config import TrainConfig, load

from .packs import ROOT, run_config

DATASETS = "data.datasets=[{name: a, recipe: t2i, path: rows.parquet}]"


STAGES = ("alignment", "pretrain", "continued", "sft")
PAPER = {
    "optim.lr": (1e-3, 1e-4, 1e-4, 2.5e-5),
    "optim.schedule": ("cosine", "constant", "constant", "constant"),
    "optim.weight_decay": (0.0,) * 4,
    "optim.clip": (1.0,) * 4,
    "optim.beta1": (0.9,) * 4,
    "optim.beta2": (0.95,) * 4,
    "optim.eps": (1e-15,) * 4,
    "optim.warmup": (250, 2500, 2500, 500),
    "optim.ema": (None, 0.9999, 0.9999, 0.995),
    "steps": (5_000, 200_000, 100_000, 15_000),
    "loss.ce_weight": (1.0, 0.25, 0.25, 0.25),
    "loss.mse_weight": (0.0, 1.0, 1.0, 1.0),
    "data.expected_num_tokens": (32 * 1024, 32 * 1024, 40 * 1024, 40 * 1024),
    "data.max_num_tokens": (36 * 1024, 36 * 1024, 45 * 1024, 45 * 1024),
    "data.max_num_tokens_per_sample": (16 * 1024, 16 * 1024, 40 * 1024, 40 * 1024),
    "data.timestep_shift": (None, 1.0, 4.0, 4.0),
}
"""arXiv 2505.14683, table 3; in alignment no picture is generated."""


@pytest.mark.parametrize("key", PAPER)
def test_stages_are_the_papers(key: str) -> None:
    found = []
    for stage in STAGES:
        value = load(ROOT / "configs" / f"{stage}.yaml", [DATASETS])
        for name in key.split("."):
            value = getattr(value, name)
        found.append(value)
    assert tuple(found) == PAPER[key]


def test_a_stage_without_data_says_so() -> None:
    with pytest.raises(InputError, match="name at least one data set"):
        load(ROOT / "configs" / "sft.yaml")


def test_a_file_that_is_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(InputError, match="its own base"):
        load(tmp_path / "a.yaml")


def test_overrides_and_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text((ROOT / "configs" / "sft.yaml").read_text())
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nrun: runs/mine\noptim: {lr: 3e-6}\n")
    words = [DATASETS, "optim.clip=0.5", "data.datasets.0.path=other.parquet", "model.path=mini", "optim.ema=null"]
    config = load(tmp_path / "mine.yaml", words)
    assert (config.run, config.optim.lr, config.optim.clip, config.optim.ema) == ("runs/mine", 3e-6, 0.5, None)
    assert config.optim.warmup == 500
    assert config.data.datasets[0].path == ("other.parquet",)


def test_on_and_off_are_words_and_true_is_none(tmp_path: Path) -> None:
    found = load(ROOT / "configs" / "sft.yaml", [DATASETS, "parallel.compile=off", "latents.sample=true"])
    assert (found.parallel.compile, found.latents.sample) == ("off", True)
    with pytest.raises(InputError, match=r"latents\.sample is 'yes'"):
        load(ROOT / "configs" / "sft.yaml", [DATASETS, "latents.sample=yes"])


def test_resolved_config_reads_back(tmp_path: Path) -> None:
    config = TrainConfig.from_dict(run_config(tmp_path))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimm": {}}, "config: the key 'optimm' is not known; did you mean 'optim'"),
        ({"optim": {"learning_rat": 1}}, "config.optim: the key 'learning_rat' is not known"),
        ({"freeze": {"vae": True}}, "config.freeze: the key 'vae' is not known"),
        ({"optim": {"lr": "fast"}}, "config.optim.lr is 'fast'; it must be a number"),
        ({"optim": {"schedule": "cosinus"}}, "optim.schedule: 'cosinus' is not known; did you mean 'cosine'"),
        ({"parallel": {"recompute": "block"}}, "parallel.recompute"),
        ({"loss": {"ce_weight": 0, "mse_weight": 0}}, "nothing would be learnt"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"optim": {"warmup": 9}}, "optim.warmup 9 is not below steps 4"),
        ({"optim": {"ema": 1.5}}, "optim.ema is 1.5"),
        ({"optim": {"ema_warmup": True}}, "optim.ema_warmup does nothing"),
        ({"optim": {"momentum": 0.9}}, "optim.momentum does nothing while optim.name is adamw"),
        ({"optim": {"name": "muon", "momentum": 1.0}}, "optim.momentum is 1.0"),
        ({"optim": {"beta2": 1.0}}, "optim.beta2 is 1.0; it must be at least 0 and below 1"),
        ({"optim": {"eps": -1.0}}, "optim.eps is -1.0; it must be at least 0"),
        ({"optim": {"rest_share": 0.1}}, "optim.rest_share does nothing while optim.name is adamw"),
        ({"optim": {"name": "muon", "rest_share": 0.0}}, "optim.rest_share is 0.0"),
        ({"optim": {"schedule": "wsd"}}, "which needs one of them"),
        ({"optim": {"decay_steps": 2}}, "are for wsd"),
        ({"optim": {"schedule": "wsd", "decay_steps": 5}}, "optim.decay_steps 5 is above steps 4"),
        ({"optim": {"schedule": "wsd", "decay_minutes": 1}}, "the last of max_minutes, which is null"),
        ({"save": {"minutes": 0}}, "save.minutes is 0.0; it must be above 0"),
        ({"model": {}}, "give either path, or all of llm, vit and vae"),
        ({"samples": {"every": 2}}, "nothing under samples"),
        ({"lora": {"rank": 4}, "freeze": {"vit": True}}, "freeze does nothing beside lora"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        TrainConfig.from_dict({**run_config(tmp_path), **change})
    assert said in str(error.value)


def test_an_override_without_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"write section\.key=value"):
        load(ROOT / "configs" / "sft.yaml", [DATASETS, "optim.lr"])


@pytest.mark.parametrize("page", ["train.md", "train.zh.md"])
def test_the_configs_of_the_guide_can_be_trained(page: str, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs", target_is_directory=True)
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        config = load(path)
        assert config.lora
        assert config.parallel.recompute == "full"
