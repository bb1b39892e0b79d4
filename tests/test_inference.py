"""What users see: batches, seeds, sessions, interleaving, thoughts, step caches, progress."""

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import Bagel, InputError, Text
from bagel.infer.engine import Finished
from bagel.infer.image import ImageStep
from bagel.infer.result import ImageDone, TextDone
from bagel.infer.text import TextPiece
from conftest import CHECKPOINT, error

SMALL = {"height": 64, "width": 64, "num_timesteps": 6}


def same(a, b):
    assert error(a.latent, b.latent) < 1e-5
    assert np.abs(np.array(a.image).astype(int) - np.array(b.image)).max() <= 1


def test_batch_equals_singles_with_mixed_sizes_and_renorms(bagel):
    prompts, heights = ["a red cube", "two blue cats", "天空"], [64, 96, 32]
    seeds, renorms = [1, 2, 3], ["global", "channel", "text_channel"]
    batch = bagel.draw(prompts, height=heights, width=64, num_timesteps=6, seed=seeds, cfg_renorm_type=renorms)
    for prompt, height, seed, renorm, found in zip(prompts, heights, seeds, renorms, batch, strict=True):
        assert found.image.size == (64, height)
        same(found, bagel.draw(prompt, height=height, width=64, num_timesteps=6, seed=seed, cfg_renorm_type=renorm))


def test_batch_of_edits_and_answers_equals_singles(bagel, pictures):
    wide, tall = pictures["wide"], pictures["tall"]
    batch = bagel.edit([wide, [tall, wide]], ["make it red", "join them"], num_timesteps=5, seed=[4, 5])
    same(batch[0], bagel.edit(wide, "make it red", num_timesteps=5, seed=4))
    same(batch[1], bagel.edit([tall, wide], "join them", num_timesteps=5, seed=5))
    questions = [[tall, "What is this?"], ["hello world"], ["A photo", wide, "?"]]
    answers = bagel.chat(questions, max_tokens=12)
    assert [a.token_ids for a in answers] == [bagel.chat(q, max_tokens=12).token_ids for q in questions]


def test_seed_decides_and_the_global_generator_is_left_alone(bagel):
    state = torch.get_rng_state()
    first, again, other = (bagel.draw("a cube", seed=seed, **SMALL) for seed in (7, 7, 8))
    assert torch.equal(first.latent, again.latent)
    assert error(first.latent, other.latent) > 0.1
    assert torch.equal(torch.get_rng_state(), state)
    free = bagel.draw("a cube", **SMALL)
    assert torch.equal(bagel.draw("a cube", seed=free.seed, **SMALL).latent, free.latent)


def test_noise_overrides_the_seed(bagel):
    noise = torch.randn(16, 64, generator=torch.Generator().manual_seed(7))
    assert torch.equal(bagel.draw("a cube", noise=noise, **SMALL).latent, bagel.draw("a cube", seed=7, **SMALL).latent)


def test_prompt_changes_the_picture(bagel):
    one, two = bagel.draw(["a red cube", "seven green dogs"], seed=1, **SMALL)
    assert error(one.latent, two.latent) > 1e-3
    plain = bagel.draw("a red cube", seed=1, cfg_text_scale=1.0, **SMALL)
    assert error(one.latent, plain.latent) > 1e-3


def test_third_branch_is_computed_only_where_it_differs(bagel, pictures):
    drawn = bagel.draw("a cube", seed=1, cfg_interval=(0.0, 1.0), **SMALL)
    edited = bagel.edit(pictures["tall"], "a cube", num_timesteps=6, seed=1)
    assert (drawn.stats.updates, drawn.stats.model_calls) == (5, 10)
    assert (edited.stats.updates, edited.stats.model_calls) == (5, 15)


def test_official_preset_makes_ninety_model_calls(bagel):
    assert bagel.draw("a cube", seed=1, height=32, width=32).stats.model_calls == 90


def test_taylorseer_leaves_no_trace(bagel):
    options = {"height": 64, "width": 64, "num_timesteps": 20, "seed": 3}
    before = bagel.draw("a cube", **options)
    cached = bagel.draw("a cube", step_cache="taylorseer", **options)
    after = bagel.draw("a cube", **options)
    assert torch.equal(before.latent, after.latent)
    assert not torch.equal(cached.latent, before.latent)
    assert cached.stats.model_calls < before.stats.model_calls / 1.5
    assert bagel.chat("hello world", max_tokens=8).text == bagel.chat("hello world", max_tokens=8).text


def test_sampling_follows_its_own_seed(bagel):
    def ids(seed):
        return bagel.chat("hello world", do_sample=True, temperature=1.5, max_tokens=20, seed=seed).token_ids

    assert ids(1) == ids(1) != ids(2)


def test_budget_counts_the_start_token(bagel):
    start = bagel.runtime.checkpoint.tokenizer.bos
    assert bagel.chat("hello world", max_tokens=1).token_ids == [start]
    assert len(bagel.chat("hello world", max_tokens=9).token_ids) == 9


def test_thought_is_returned_and_used(bagel):
    result = bagel.draw("a red cube", think=True, max_tokens=12, seed=1, **SMALL)
    assert len(result.token_ids) == 12
    assert result.text
    assert error(result.latent, bagel.draw("a red cube", seed=1, **SMALL).latent) > 1e-4


def test_stream_tells_everything_in_order(bagel, pictures):
    events = list(bagel.stream([pictures["tall"], "go on"], output=["text", "image"], max_tokens=6, num_timesteps=4))
    kinds = [type(event) for event in events]
    assert [kind for kind in kinds if kind is not TextPiece] == [TextDone, *[ImageStep] * 3, ImageDone, Finished]
    pieces = "".join(event.text for event in events if isinstance(event, TextPiece))
    done = next(event for event in events if isinstance(event, TextDone))
    assert pieces == done.text
    steps = [event for event in events if isinstance(event, ImageStep)]
    assert [(s.update, s.updates) for s in steps] == [(1, 3), (2, 3), (3, 3)]
    assert bagel.runtime.decode(steps[0].latent, steps[0].grid).size == (64, 96)


def test_generated_picture_reads_back_as_if_it_were_sent(bagel, pictures):
    """Text, image, text: the second text sees the picture just as a user's."""
    events = list(bagel.stream(["a cube"], output=["image", "text"], seed=1, max_tokens=10, **SMALL))
    result = events[-1].result
    with bagel.session() as session:
        session.read("a cube")
        session.read(result.image)
        assert session.say(max_tokens=10).text == result.text


def test_interleaved_output_stops(bagel):
    result = list(bagel.stream("tell a story", max_images=2, max_tokens=6, seed=1, **SMALL))[-1].result
    assert len(result.images) <= 2


def test_interleaved_output_follows_the_markers(bagel, monkeypatch):
    from bagel.infer import jobs

    wanted = iter(["text", "image", "image", "text", "end"])
    monkeypatch.setattr(jobs, "next_kind", lambda conversation: next(wanted))
    result = list(bagel.stream("tell a story", max_tokens=6, seed=1, **SMALL))[-1].result
    assert len(result.images) == 2
    assert result.text.count("\n") >= 1
    assert not torch.equal(torch.tensor(np.array(result.images[0])), torch.tensor(np.array(result.images[1])))


def test_session_equals_single_requests(bagel, pictures):
    with bagel.session() as session:
        session.read(pictures["tall"])
        session.read("remove the tree")
        first = session.draw(num_timesteps=5, seed=2)
        single = bagel.edit(pictures["tall"], "remove the tree", num_timesteps=5, seed=2)
        same(first, single)
        session.read("now make it night")
        assert session.draw(num_timesteps=5, seed=2).image.size == single.image.size
        assert session.say(max_tokens=5).token_ids


def test_session_forks_go_their_own_ways(bagel):
    with bagel.session() as session:
        session.read("a cube")
        branch = session.fork()
        branch.read("made of glass")
        ours = session.draw(seed=1, keep=False, **SMALL)
        theirs = branch.draw(seed=1, keep=False, **SMALL)
        same(ours, bagel.draw("a cube", seed=1, **SMALL))
        assert error(ours.latent, theirs.latent) > 1e-4
    with pytest.raises(InputError, match="closed"):
        session.read("more")


def test_closing_a_stream_stops_the_work(bagel):
    engine = bagel.runtime.engine
    events = bagel.stream("a cube", output="image", seed=1, height=64, width=64, num_timesteps=50)
    while not isinstance(next(events), ImageStep):
        pass
    passes = engine.passes
    events.close()
    assert engine.passes == passes


def test_text_that_looks_like_a_file_name_can_be_said(bagel):
    assert bagel.chat(Text("cat.png"), max_tokens=2).token_ids
    with pytest.raises(InputError, match=r"cat\.png"):
        bagel.chat("cat.png", max_tokens=2)


@pytest.fixture
def undone():
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("undone")
def test_another_default_device_changes_nothing(bagel):
    """Meta tensors hold nothing, so that one that gets among ours is an error."""
    picture, knobs = Image.new("RGB", (64, 64), (3, 200, 1)), {"num_timesteps": 3, "seed": 1}
    drawn, said = bagel.edit(picture, "make it blue", **knobs), bagel.chat([picture, "what?"], max_tokens=5)
    torch.set_default_device("meta")
    model = Bagel.load(CHECKPOINT, device="cpu")
    assert torch.equal(model.edit(picture, "make it blue", **knobs).latent.cpu(), drawn.latent)
    assert model.chat([picture, "what?"], max_tokens=5).token_ids == said.token_ids
    with model.session() as session:
        session.read(picture)
        assert session.draw(step_cache="taylorseer", solver="ab2", **knobs).image
        assert session.fork().say(max_tokens=3, do_sample=True).token_ids
    assert torch.get_default_device().type == "meta"


@pytest.mark.parametrize("wanted", [True, False])
def test_whether_kernels_are_wanted_reaches_every_part(wanted, monkeypatch):
    """Passes, what follows them, and the autoencoder ask for the fast forms, or none of them does."""
    from bagel.model import kernels

    asked = []
    monkeypatch.setattr(kernels, "_fused", lambda x: asked.append(not kernels._plain.get()))
    monkeypatch.setattr(kernels, "_fused_picture", kernels._fused)
    model = Bagel.load(CHECKPOINT, device="cpu", compile=wanted)
    assert model.edit(Image.new("RGB", (64, 64)), "make it red", **SMALL).image
    assert model.chat(["hello"], max_tokens=3).token_ids
    assert asked
    assert set(asked) == {wanted}
    assert not kernels._plain.get()
