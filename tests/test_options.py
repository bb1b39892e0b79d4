"""The knobs: defaults, presets, ranges, and numbers of other libraries."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bagel import BagelError, InputError
from bagel.devices import pick_device, pick_dtype
from bagel.errors import DeviceError
from bagel.infer.inputs import split_fields
from bagel.options import PRESETS, ImageOptions, TextOptions, make, settle


def settled(job: str = "draw", **fields):
    return settle(make(TextOptions if job == "chat" else ImageOptions, None, fields), job, {})


def test_presets_are_the_official_apps():
    draw, edit, chat = settled("draw"), settled("edit"), settled("chat")
    assert (draw.height, draw.width, draw.num_timesteps, draw.timestep_shift) == (1024, 1024, 50, 3.0)
    assert (draw.cfg_text_scale, draw.cfg_image_scale, draw.cfg_interval) == (4.0, 1.5, (0.4, 1.0))
    assert (draw.cfg_renorm_min, draw.cfg_renorm_type, draw.max_tokens) == (0.0, "global", 1000)
    assert (edit.height, edit.cfg_image_scale, edit.cfg_interval) == (None, 2.0, (0.0, 1.0))
    assert edit.cfg_renorm_type == "text_channel"
    assert (chat.max_tokens, chat.do_sample, chat.temperature, chat.think) == (512, False, 0.3, False)


def test_given_before_the_checkpoints_preset_before_the_official_one():
    presets = {"draw": {"height": 64, "num_timesteps": 9, "cfg_interval": [0.1, 0.9]}}
    found = settle(ImageOptions(num_timesteps=5), "draw", presets)
    assert (found.num_timesteps, found.height, found.width, found.cfg_interval) == (5, 64, 1024, (0.1, 0.9))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("height", np.int64(32), 32),
        ("height", np.uint8(32), 32),
        ("height", 32.0, 32),
        ("height", torch.tensor(32), 32),
        ("num_timesteps", np.float32(5), 5),
        ("cfg_text_scale", np.float32(3.5), 3.5),
        ("cfg_text_scale", 3, 3.0),
        ("cfg_text_scale", torch.tensor(3.5), 3.5),
        ("think", np.bool_(True), True),
        ("seed", np.uint64(2**63 - 1), 2**63 - 1),
        ("seed", 2**40, 2**40),
        ("cfg_interval", [0, 1], (0.0, 1.0)),
        ("cfg_interval", np.array([0.25, 0.5]), (0.25, 0.5)),
        ("cfg_interval", torch.tensor([0.25, 0.5]), (0.25, 0.5)),
        ("cfg_interval", (0.5, 0.5), (0.5, 0.5)),
        ("cfg_text_scale", 0, 0.0),
        ("step_cache", "taylorseer", "taylorseer"),
    ],
)
def test_accepted(name, value, wanted):
    found = getattr(settled(**{name: value}), name)
    assert found == wanted
    assert type(found) is type(wanted)


BAD = [
    *[("height", value) for value in (0, -16, 32.5, "32", None.__class__, True, float("nan"), float("inf"), [32], {})],
    *[("num_timesteps", value) for value in (1, 0, 1e300, 10**400, "50")],
    *[("timestep_shift", value) for value in (0, -1, "x")],
    *[("cfg_text_scale", value) for value in (-0.1, float("nan"), float("inf"), 10**400, "4", np.array([1, 2]))],
    *[("cfg_image_scale", value) for value in (-1, None.__class__)],
    *[("cfg_renorm_min", value) for value in (-0.1, 1.1)],
    *[("cfg_renorm_type", value) for value in ("local", "", 3, ["global"], {})],
    *[("cfg_interval", value) for value in ((1, 0), (-1, 1), (0, 2), (0,), (), (0, 0.5, 1), 0.4, "01", "ab", {0: 1})],
    ("cfg_interval", (float("nan"), 1)),
    ("cfg_interval", ("0", "1")),
    *[("seed", value) for value in (-1, 2**63, 10**400, 1.5, "7", (1, 2))],
    *[("think", value) for value in ("yes", 1, 0)],
    *[("do_sample", value) for value in ("no", 1.0)],
    *[("max_tokens", value) for value in (0, -1, 2.5)],
    *[("temperature", value) for value in (0, -1, 1e-320, float("nan"))],
    *[("step_cache", value) for value in ("teacache", True, 1)],
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_refused(name, value):
    with pytest.raises(InputError) as caught:
        settled(**{name: value})
    assert str(caught.value).startswith(f"{name} is ")
    assert isinstance(caught.value, (BagelError, ValueError))


def test_names():
    with pytest.raises(InputError, match="no option 'hight'; did you mean height"):
        make(ImageOptions, None, {"hight": 3})
    with pytest.raises(InputError, match="no option 'foo'; there are max_tokens"):
        make(TextOptions, None, {"foo": 3})
    with pytest.raises(InputError, match="options are of type TextOptions; this job takes ImageOptions"):
        make(ImageOptions, TextOptions(), {})
    with pytest.raises(InputError, match="options are of type dict"):
        make(ImageOptions, {"seed": 1}, {})
    assert make(ImageOptions, ImageOptions(seed=1, height=32), {"seed": 2}) == ImageOptions(seed=2, height=32)


def test_fields_go_where_they_belong():
    image, text = split_fields({"seed": 1, "height": 32, "max_tokens": 4})
    assert (image.seed, image.height, image.max_tokens) == (1, 32, 4)
    assert (text.seed, text.max_tokens) == (1, 4)
    with pytest.raises(InputError, match="no option 'song'"):
        split_fields({"song": 1})


@pytest.mark.parametrize("options", [ImageOptions, TextOptions])
def test_every_field_has_help_and_every_preset_is_a_field(options):
    names = {field.name for field in dataclasses.fields(options)}
    assert all(len(field.metadata["help"]) > 20 for field in dataclasses.fields(options))
    for job, preset in PRESETS.items():
        if (job == "chat") == (options is TextOptions):
            assert preset.keys() <= names
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().seed = 3


def test_devices():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("tpu", "", "meta", "xpu", None, 3.5, "cuda:x"):
        with pytest.raises(InputError, match="use auto, cpu, cuda"):
            pick_device(name)
    with pytest.raises(DeviceError, match=r"cuda:63 was asked for, but there are \d+ GPUs"):
        pick_device("cuda:63")


def test_dtypes():
    cpu = torch.device("cpu")
    assert pick_dtype("auto", cpu) is torch.float32
    assert {pick_dtype(name, cpu) for name in ("bf16", "bfloat16", torch.bfloat16)} == {torch.bfloat16}
    for name in ("int8", "", None, 16, [], torch.int8, torch.float64):
        with pytest.raises(InputError, match="is unknown; use auto"):
            pick_dtype(name, cpu)
