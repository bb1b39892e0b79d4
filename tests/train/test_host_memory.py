"""Memory of the host while a run is loaded and saved: about one copy of the model in all, however many ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import make_checkpoint
from bagel.checkpoint import save

from .packs import run_config
from .ranks import finish, start

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
PER_RANK = 48e6
"""Bytes that a rank may take besides: its largest tensor (13 MB), the autoencoder, tokenizer and data."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_one_copy_a_node(tmp_path: Path) -> None:
    """On the CPU the ranks' shards are the copy; what comes on top is each rank's largest tensor."""
    folder = tmp_path / "model"
    made = make_checkpoint.made(make_checkpoint.config(llm=SIZES), seed=None)
    save(folder, made)
    weights = sum(value.numel() * value.element_size() for value in made.model.parameters())
    assert weights > 280e6
    del made
    torch.manual_seed(0)
    for ranks in (1, 2, 4):
        (tmp_path / str(ranks)).mkdir()
        config = run_config(tmp_path / str(ranks), model={"path": str(folder)})
        config["data"]["datasets"][0]["vae"] = {"max_size": 64, "min_size": 32}
        config["data"]["datasets"][0]["vit"] = {"max_size": 56, "min_size": 28}
        said = finish(start(config, ranks, worker="memory_worker.py"))
        found = [json.loads(line) for line in said.splitlines() if line.startswith('{"rank"')]
        assert len(found) == ranks
        loading, saving = (sum(rank[what] for rank in found) for what in ("loading", "saving"))
        print(
            f"{ranks} ranks, {weights / 1e6:.0f} MB of weights: loading takes {loading / 1e6:.0f} MB of the host in "
            f"all, saving {saving / 1e6:.0f} MB more"
        )
        assert loading < 1.1 * weights + ranks * PER_RANK
        assert saving < 1.1 * weights + ranks * PER_RANK
