"""Resizing on a device gives Pillow's levels."""

import numpy as np
import pytest
import torch
from PIL import Image

from bagel.images import to_levels
from bagel.infer.resample import resample

SIZES = [
    ((980, 976), (976, 980)),
    ((64, 48), (50, 70)),
    ((31, 57), (124, 14)),
    ((300, 200), (77, 99)),
    ((20, 20), (20, 33)),
]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_levels_are_pillows(old, new):
    noise = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    noise[: old[0] // 3] = np.where(noise[: old[0] // 3] > 127, 255, 0)  # steps that overshoot
    picture = Image.fromarray(noise)
    wanted = to_levels(picture.resize(new[::-1], Image.Resampling.BICUBIC))
    assert torch.equal(resample(to_levels(picture), new), wanted)


def test_the_same_size_is_left_alone():
    levels = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    assert resample(levels, (8, 9)) is levels


def test_reading_levels_is_reading_the_picture(bagel, pictures, monkeypatch):
    """As on a GPU: pictures are resized as levels on the device."""
    wide, runtime = pictures["wide"], type(bagel.runtime)
    options = {"num_timesteps": 3, "seed": 1}
    plain = bagel.edit(wide, "make it red", **options), bagel.chat([wide, "?"], max_tokens=8)
    monkeypatch.setattr(runtime, "placed", lambda self, image: to_levels(image))
    found = bagel.edit(wide, "make it red", **options), bagel.chat([wide, "?"], max_tokens=8)
    assert torch.equal(found[0].latent, plain[0].latent)
    assert found[0].image.size == plain[0].image.size
    assert found[1].token_ids == plain[1].token_ids


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_levels_are_the_same_on_a_gpu(old, new):
    levels = torch.randint(0, 256, (3, *old), dtype=torch.uint8)
    assert torch.equal(resample(levels.cuda(), new).cpu(), resample(levels, new))
