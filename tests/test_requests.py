"""Requests as people really make them: odd inputs, errors in the middle, several at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import Bagel, CheckpointError, ImageOptions, InputError, MemoryPlanError, TextOptions
from bagel.infer.image import ImageStep
from conftest import CHECKPOINT, error

SMALL = {"height": 32, "width": 32, "num_timesteps": 3, "seed": 1}
FEW = {"max_tokens": 3}


@pytest.fixture(scope="module")
def red():
    return Image.new("RGB", (64, 64), (200, 30, 30))


# --- what may be handed in -------------------------------------------------------------------------------------


def test_prompts_in_any_collection(bagel):
    alone = [bagel.draw(prompt, **SMALL).latent for prompt in ("one", "two")]
    for prompts in (["one", "two"], ("one", "two"), (prompt for prompt in ("one", "two"))):
        results = bagel.draw(prompts, **SMALL)
        assert all(error(result.latent, latent) < 1e-5 for result, latent in zip(results, alone, strict=True))
    assert bagel.draw([]) == []
    assert len(bagel.draw(["one"], **SMALL)) == 1


def test_values_for_each_request_in_any_collection(bagel):
    fields = {**SMALL, "height": [32, 48]}
    for seeds in ([3, 4], (3, 4), range(3, 5), np.array([3, 4]), torch.tensor([3, 4])):
        results = bagel.draw(["one", "two"], **{**fields, "seed": seeds})
        assert [result.seed for result in results] == [3, 4]
        assert [result.image.size for result in results] == [(32, 32), (32, 48)]
    for interval in ((0.0, 1.0), [0.0, 1.0], [(0.0, 1.0), (0.4, 1.0)], [[0.0, 1.0], [0.4, 1.0]]):
        calls = [r.stats.model_calls for r in bagel.draw(["one", "two"], cfg_interval=interval, **SMALL)]
        assert calls[0] == 4
    for wrong in ([1], [1, 2, 3], np.array([1])):
        with pytest.raises(InputError, match="values for 2 requests"):
            bagel.draw(["one", "two"], **{**SMALL, "seed": wrong})


def test_noise_in_any_form(bagel):
    noise = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    wanted = bagel.draw("x", **SMALL).latent
    for same in (noise, noise.numpy(), noise.double(), noise.tolist()):
        assert torch.equal(bagel.draw("x", noise=same, **SMALL).latent, wanted)
    for several in ([noise, noise], torch.stack([noise, noise]), np.stack([noise, noise])):
        assert all(error(r.latent, wanted) < 1e-5 for r in bagel.draw(["x", "x"], noise=several, **SMALL))
    for bad in (torch.zeros(5, 64), torch.zeros(4, 63), "noise", torch.full((4, 64), torch.nan), [[1.0], [1.0, 2.0]]):
        with pytest.raises(InputError, match="noise"):
            bagel.draw("x", noise=bad, **SMALL)


def test_options_object_and_fields_together(bagel):
    wanted = bagel.draw("x", **SMALL).latent
    assert torch.equal(bagel.draw("x", ImageOptions(**SMALL)).latent, wanted)
    assert torch.equal(bagel.draw("x", options=ImageOptions(**{**SMALL, "seed": 9}), seed=1).latent, wanted)
    with pytest.raises(InputError, match="takes ImageOptions"):
        bagel.draw("x", TextOptions())
    with pytest.raises(InputError, match="takes TextOptions"):
        bagel.chat("x", ImageOptions())
    with pytest.raises(InputError, match="no option 'height'"):
        bagel.chat("x", height=32)


@pytest.mark.parametrize("prompt", [None, 3, b"x", "", " \n", ["x", 3], [["x"]], {"a": 1}, "a\ud800b"])
def test_what_is_no_prompt(bagel, prompt):
    with pytest.raises(InputError, match="prompt"):
        bagel.draw(prompt, **SMALL)


@pytest.mark.parametrize("images", [None, 3, [], "nowhere.png", b"", [None], np.zeros((4, 4, 3)), "a\0.png"])
def test_what_is_no_picture(bagel, images):
    with pytest.raises(InputError):
        bagel.edit(images, "x", **SMALL)


def test_pictures_in_any_collection(bagel, red):
    wanted = bagel.edit([red, red], "join", num_timesteps=3, seed=1).latent
    for images in ((red, red), (image for image in (red, red))):
        assert torch.equal(bagel.edit(images, "join", num_timesteps=3, seed=1).latent, wanted)
    assert bagel.edit([], []) == []
    with pytest.raises(InputError, match="2 instructions were given for 1 groups"):
        bagel.edit(red, ["one", "two"])


@pytest.mark.parametrize("inputs", [[], [[]], None, 3, ["x", ["y"]], [None], bytearray(b"x"), [{"text": "x"}]])
def test_what_is_no_question(bagel, inputs):
    with pytest.raises(InputError):
        bagel.chat(inputs, **FEW)


def test_questions_in_any_order(bagel, red):
    for inputs in ([red], ["x", red], [red, red, "x"], ("x", red), (x for x in ("x", red)), ["one", "two", "three"]):
        assert len(bagel.chat(inputs, **FEW).token_ids) >= 1
    assert bagel.chat((x for x in ("x", red)), **FEW).text == bagel.chat(["x", red], **FEW).text


def test_special_tokens_in_a_prompt_count_as_themselves(bagel):
    tokenizer = bagel.runtime.checkpoint.tokenizer
    assert tokenizer.encode("a<|im_end|>b")[1:-1] == [tokenizer.eos]
    assert bagel.chat("<|im_end|><|vision_start|><|im_start|>", **FEW).token_ids[0] == tokenizer.bos
    assert bagel.draw("<|vision_start|>", **SMALL).latent.isfinite().all()


def test_long_prompts(bagel):
    assert bagel.chat("word " * 2000, **FEW).token_ids
    with pytest.raises(InputError, match="the model knows 32,768"):
        bagel.chat("word " * 20_000, **FEW)
    with pytest.raises(InputError, match="max_tokens is 32768"):
        bagel.chat("word", max_tokens=32_768)
    assert bagel.chat("a " * 140 + ".png", **FEW).token_ids  # a sentence, though it ends like a file's name


@pytest.mark.parametrize("output", ["song", None, 3, ["song"], {"text"}])
def test_stream_refuses_unknown_output_at_once(bagel, output):
    with pytest.raises(InputError, match="output"):
        bagel.stream("x", output=output)


def test_stream_refuses_other_values_at_once(bagel):
    for fields in ({"max_images": -1}, {"max_images": "x"}, {"song": 1}, {"height": 17}, {"seed": -1}):
        with pytest.raises(InputError):
            bagel.stream("x", **fields)
    assert list(bagel.stream("x", output=[]))[-1].result.images == []
    assert list(bagel.stream("x", output=["image"], max_images=0, **SMALL))[-1].result.images == []


@pytest.mark.parametrize("model", [None, 3, "", "nowhere", "a b/c", "org/name", "x" * 5000, "a\0b"])
def test_what_is_no_model(model):
    with pytest.raises((InputError, CheckpointError)):
        Bagel.load(model, device="cpu")


# --- seeds, dtypes, surroundings ---------------------------------------------------------------------------------


def test_large_seeds_differ(bagel):
    latents = [bagel.draw("x", **{**SMALL, "seed": seed}).latent for seed in (1, 1 + 2**32, 1 + 2**40, 2**63 - 1)]
    for number, one in enumerate(latents):
        assert all(error(one, other) > 0.1 for other in latents[number + 1 :])


@pytest.mark.parametrize(("dtype", "near"), [("bf16", 0.03), ("fp16", 0.005)])
def test_half_precision_on_the_cpu(bagel, red, dtype, near):
    half = Bagel.load(CHECKPOINT, device="cpu", dtype=dtype)
    fields = {"height": 64, "width": 64, "num_timesteps": 8, "seed": 1}
    assert error(half.draw("a red cube", **fields).latent, bagel.draw("a red cube", **fields).latent) < near
    assert half.edit(red, "x", num_timesteps=3, seed=1).latent.isfinite().all()
    assert half.draw("x", think=True, max_tokens=4, **SMALL).text is not None
    assert half.chat([red, "x"], **FEW).token_ids


def test_surroundings_change_nothing(bagel):
    wanted = bagel.draw("x", **SMALL).latent
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(bagel.draw("x", **SMALL).latent, wanted)
        assert torch.equal(Bagel.load(CHECKPOINT, device="cpu").draw("x", **SMALL).latent, wanted)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.enable_grad():
        found = bagel.draw("x", **SMALL).latent
    assert torch.equal(found, wanted)
    assert not found.is_inference()
    assert not found.requires_grad


def test_results_do_not_depend_on_the_company(bagel):
    fields = {"height": 64, "width": 64, "num_timesteps": 5, "seed": 5}
    alone = bagel.draw("a red cube", **fields).latent
    for prompts in (["a red cube", "z"], ["z", "a red cube"], ["q" * 200, "w", "a red cube", "e"]):
        found = bagel.draw(prompts, **fields)[prompts.index("a red cube")].latent
        assert error(found, alone) < 1e-5


def test_many_at_once(bagel):
    prompts = [f"number {i}" for i in range(24)]
    results = bagel.draw(prompts, **{**SMALL, "seed": list(range(24)), "height": [32, 48] * 12})
    for index in (0, 11, 23):
        alone = bagel.draw(prompts[index], **{**SMALL, "seed": index, "height": [32, 48][index % 2]})
        assert error(results[index].latent, alone.latent) < 1e-5


def test_threads(bagel, red):
    models = [bagel, Bagel.load(CHECKPOINT, device="cpu")] * 2
    wanted = bagel.draw("x", **SMALL).latent, bagel.chat([red, "hello"], max_tokens=8).token_ids
    found: list[bool] = []

    def work(model):
        for _ in range(2):
            same = torch.equal(model.draw("x", **SMALL).latent, wanted[0])
            found.append(same and model.chat([red, "hello"], max_tokens=8).token_ids == wanted[1])

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


# --- errors in the middle ----------------------------------------------------------------------------------------


class StoppedError(Exception):
    pass


def stop_after(count: int, kind: type = object):
    def progress(index, event):
        nonlocal count
        count -= isinstance(event, kind)
        if count < 0:
            raise StoppedError

    return progress


def state(session):
    now = session.conversation
    contexts = (now.cond, now.no_text, now.no_image)
    return [(context.length, context.position, context.history) for context in contexts], now.size


def test_errors_in_progress_reach_the_caller_and_leave_no_trace(bagel):
    wanted = bagel.draw("x", **SMALL).latent
    with pytest.raises(StoppedError):
        bagel.draw("x", progress=stop_after(1, ImageStep), **SMALL)
    with pytest.raises(StoppedError):
        bagel.chat("x", progress=stop_after(1), max_tokens=8)
    assert torch.equal(bagel.draw("x", **SMALL).latent, wanted)


def test_a_session_survives_bad_turns(bagel, red):
    with bagel.session() as session:
        session.read(red)
        session.read("a cube")
        before = state(session)
        for bad in (
            lambda: session.read(""),
            lambda: session.read(None),
            lambda: session.read(["x", red]),
            lambda: session.read("nowhere.png"),
            lambda: session.read("word " * 20_000),
            lambda: session.draw(song=1),
            lambda: session.draw(height=17),
            lambda: session.draw(TextOptions()),
            lambda: session.draw(noise=torch.zeros(3, 64)),
            lambda: session.say(max_tokens=0),
            lambda: session.say(max_tokens=40_000),
            lambda: session.go_on(["song"]),
            lambda: session.go_on("text"),
            lambda: session.go_on(max_images=-1),
        ):
            with pytest.raises(InputError):
                bad()
            assert state(session) == before
        with bagel.session() as untouched:
            untouched.read(red)
            untouched.read("a cube")
            fields = {"num_timesteps": 3, "seed": 1}
            assert torch.equal(session.draw(**fields).latent, untouched.draw(**fields).latent)


def test_an_interrupted_turn_leaves_the_session_as_it_was(bagel):
    session = bagel.session(progress=stop_after(6))
    session.read("a cube")
    before = state(session)
    with pytest.raises(StoppedError):  # in the picture, when the text is written and read already
        session.go_on(["text", "image"], max_tokens=5, **SMALL)
    assert state(session) == before
    with pytest.raises(StoppedError):
        session.draw(**SMALL)
    assert state(session) == before


def test_an_error_of_the_model_leaves_the_session_as_it_was(bagel, red, monkeypatch):
    """Between the latents of a picture and its ViT features, say."""
    from bagel.infer.engine import Engine

    session = bagel.session()
    session.read("a cube")
    before, whole, calls = state(session), Engine._pass, []

    def failing(self, reads):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return whole(self, reads)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_pass", failing)
        patch.setattr(bagel.runtime.engine, "max_tokens", 8)
        with pytest.raises(MemoryPlanError):
            session.read(red)
    assert state(session) == before
    session.read(red)
    assert session.conversation.cond.length > before[0][0][0]


def test_a_session_may_begin_with_nothing(bagel):
    with bagel.session() as session:
        assert session.say(**FEW).token_ids
    with bagel.session() as session:
        assert session.draw(**SMALL).image.size == (32, 32)
    with bagel.session() as session:
        assert session.go_on(["text", "image"], **FEW, **SMALL).images


def test_interpolated_positions_reach_beyond_the_table(tmp_path):
    from bagel import checkpoint as checkpoints
    from make_checkpoint import config, made

    for interpolate in (True, False):
        sizes = config(interpolate_pos=interpolate, max_latent_size=4, vit_max_num_patch_per_side=3)
        checkpoints.save(tmp_path / str(interpolate), made(sizes))
    free, bound = (Bagel.load(tmp_path / name, device="cpu") for name in ("True", "False"))
    side = 8 * free.config.latent_stride  # twice the table
    fields = {"height": side, "width": side, "num_timesteps": 3, "seed": 1}
    image = free.draw("x", **fields).image
    assert image.size == (side, side)
    assert free.chat([image, "x"], **FEW).token_ids
    with pytest.raises(InputError, match="position table ends at"):
        bound.draw("x", **fields)
    with pytest.raises(InputError, match="beyond the model's position table"):
        bound.edit(image, "x", num_timesteps=3)
