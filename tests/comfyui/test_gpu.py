"""The node pack on a GPU, in inference mode as ComfyUI runs its nodes: results, and memory that comes back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bagel import Bagel
from comfyui.fake import Comfy, InterruptProcessingException, installed
from comfyui.test_nodes import SMALL, call, levels, load, quick, short
from conftest import CHECKPOINT

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def comfy(tmp_path: Any) -> Iterator[Comfy]:
    (tmp_path / "bagel").mkdir()
    (tmp_path / "bagel" / "small").symlink_to(CHECKPOINT, target_is_directory=True)
    with installed(tmp_path) as made, torch.inference_mode():
        made.device = "cuda:0"
        yield made


def held() -> int:
    """Bytes that PyTorch's tensors hold on the GPU."""
    gc.collect()
    return torch.cuda.memory_allocated()


def test_auto_is_comfyuis_device_and_pictures_are_the_pipelines(comfy: Comfy) -> None:
    model = load(comfy)
    assert model.get().runtime.checkpoint.model.device.type == "cuda"
    image, _ = call(comfy, "Draw", model=model, prompt="a cat", seed=5, knobs=quick(comfy), **SMALL)
    wanted = Bagel.load(CHECKPOINT, device="cuda:0").draw("a cat", seed=5, height=64, width=64, num_timesteps=4)
    assert image.device.type == "cpu"
    assert np.abs(levels(image)[0].astype(int) - np.asarray(wanted.image)).max() <= 1


@pytest.mark.parametrize("precision", ["default", "fp8", "nf4"])
def test_unloading_gives_all_memory_back(comfy: Comfy, precision: str) -> None:
    model = load(comfy, precision=precision)
    call(comfy, "Draw", model=model, knobs=quick(comfy), **SMALL)  # what libraries take once and keep
    model.unload()
    before = held()
    begun = call(comfy, "Talk", model=model)[0]
    drawn, image, _ = call(comfy, "TalkDraw", conversation=begun, message="a cat", knobs=quick(comfy), **SMALL)
    said, answer = call(comfy, "TalkSay", conversation=drawn, message="What?", knobs=short(comfy))
    assert held() > before + 1e6
    call(comfy, "Unload", model=model, after=image)
    assert held() <= before + 1e6
    again = call(comfy, "TalkSay", conversation=drawn, message="What?", knobs=short(comfy))[1]
    assert again == answer
    model.unload()
    del said


def test_cancelling_gives_a_requests_memory_back(comfy: Comfy) -> None:
    model, knobs = load(comfy), quick(comfy, num_timesteps=1000)
    for _ in range(2):  # the first one leaves captured graphs behind
        comfy.progress.clear()
        comfy.stop_after = 3
        before = held()
        with pytest.raises(InterruptProcessingException):
            call(comfy, "Draw", model=model, knobs=knobs, **SMALL)
    assert held() <= before + 1e5
    model.unload()
