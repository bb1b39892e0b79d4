"""Models that `transformers` saves become the same models here: a Qwen3 (which has q/k norms, as BAGEL) answers with
the same logits, a SigLIP sees the same."""

from __future__ import annotations

import shutil

import pytest
import torch

from bagel import checkpoint as checkpoints
from bagel.images import patch_index, patchify
from bagel.model.attention import PackAttention
from bagel.pack import PackRules, TextPart, pack
from bagel.train import init
from conftest import CHECKPOINT

SIDE = 6
pytestmark = pytest.mark.slow  # importing transformers takes seconds


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("theirs")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    llm = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            **sizes, intermediate_size=96, num_key_value_heads=2, head_dim=16, vocab_size=448, tie_word_embeddings=True
        )
    ).eval()
    vit = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**sizes, intermediate_size=96, image_size=14 * SIDE, patch_size=14)
    ).eval()
    for module in (*llm.modules(), *vit.modules()):
        if "Norm" in type(module).__name__:
            torch.nn.init.normal_(module.weight, 1.0, 0.1)
    llm.save_pretrained(folder / "llm")
    vit.save_pretrained(folder / "vit")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CHECKPOINT / name, folder / "llm")
    start = init.from_parts(folder / "llm", folder / "vit", CHECKPOINT, vit_max_num_patch_per_side=SIDE)
    return llm, vit, start.checkpoint()


@torch.no_grad()
def test_qwen3_answers_the_same(theirs):
    llm, _, ours = theirs
    ids = list(range(40))
    inputs = pack([[TextPart(ids)]], PackRules(423, 424, SIDE, 64))
    und, _ = ours.model(inputs, PackAttention(inputs.layout))
    wanted = llm(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(ours.model.logits(und), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_siglip_sees_the_same(theirs):
    _, vit, ours = theirs
    pixels = torch.randn(3, 14 * SIDE, 14 * SIDE)
    hidden = vit(pixels[None], output_hidden_states=True).hidden_states[-2][0]
    norm = next(module for name, module in vit.named_modules() if name.endswith("post_layernorm"))
    index = patch_index((SIDE, SIDE), SIDE, False)
    seen = ours.model.vit(patchify(pixels, 14), index, (SIDE * SIDE,))
    torch.testing.assert_close(seen, norm(hidden), rtol=1e-4, atol=1e-4)


def test_the_result_saves_and_loads(theirs, tmp_path):
    checkpoints.save(tmp_path, theirs[2])
    checkpoints.load(tmp_path, torch.device("cpu"), torch.float32)
