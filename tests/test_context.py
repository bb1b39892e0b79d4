"""Contexts: reading in pieces, forks, and what is shared."""

import pytest
import torch

from bagel.images import resize
from bagel.infer.conversation import Conversation
from bagel.infer.engine import Engine, Read, run
from bagel.model.attention import PackAttention
from bagel.pack import TextPart, pack
from conftest import error


@pytest.fixture
def engine(bagel):
    return Engine(bagel.runtime.checkpoint.model, bagel.runtime.engine.rules)


@pytest.fixture
def story(bagel, pictures):
    """Text, a picture as latents and as ViT features, text."""
    runtime = bagel.runtime
    words = [TextPart(runtime.checkpoint.tokenizer.segment(text)) for text in ("a red cube", "now blue")]
    image = resize(pictures["tall"], bagel.config.images.vae)
    with torch.inference_mode():
        return [words[0], runtime.encode(image), runtime.look(image), words[1]]


def last_of(engine, context, parts):
    return [engine.forward([Read(context, part, what=id(part))])[0].last for part in parts][-1]


def test_cached_reading_equals_one_forward(bagel, engine, story):
    inputs = pack([story], engine.rules)
    with torch.inference_mode():
        und, _ = engine.model(inputs, PackAttention(inputs.layout))
    assert error(last_of(engine, engine.new_context(), story), und[-1:]) < 1e-5


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_text_in_two_pieces_equals_text_in_one(engine, story, cut):
    ids = list(story[0].ids) + list(story[3].ids)
    pieces = last_of(engine, engine.new_context(), [TextPart(ids[:cut]), TextPart(ids[cut:])])
    assert error(pieces, last_of(engine, engine.new_context(), [TextPart(ids)])) < 1e-5


def test_two_reads_of_one_context_in_one_call(engine, story):
    context = engine.new_context()
    seen = engine.forward([Read(context, part, what=id(part)) for part in story])
    assert error(seen[-1].last, last_of(engine, engine.new_context(), story)) < 1e-5


def test_fork_copies_nothing_and_changes_nothing(engine, story):
    parent = engine.new_context()
    last_of(engine, parent, story[:3])
    before = parent._store.tensor[:, :, : parent.length].clone()
    child = parent.fork()
    assert child._store is parent._store
    wanted = last_of(engine, child, story[3:])
    assert child._store is parent._store  # the first to go on writes in place
    sibling = parent.fork()
    assert error(last_of(engine, sibling, story[3:]), wanted) < 1e-5
    assert sibling._store is not parent._store  # the second needs room of its own
    assert torch.equal(parent._store.tensor[:, :, : parent.length], before)
    assert (parent.length, parent.position) < (child.length, child.position)


def test_a_dropped_fork_frees_its_place(engine, story):
    parent = engine.new_context()
    last_of(engine, parent, story[:1])
    child = parent.fork()
    last_of(engine, child, story[3:])
    store = parent._store
    del child
    last_of(engine, parent, story[3:])
    assert parent._store is store


def test_noised_reads_leave_the_context_as_it_was(bagel, engine, story):
    from bagel.pack import LatentPart

    context = engine.new_context()
    last_of(engine, context, story[:1])
    noisy = LatentPart(torch.randn(6, 64, generator=torch.Generator().manual_seed(0)), (2, 3), 0.7, noised=True)
    branch, other = context.fork(), context.fork()
    first = engine.forward([Read(branch, noisy, keep=False), Read(other, noisy, keep=False)])
    assert torch.equal(first[0].latents, first[1].latents)
    assert (branch.length, branch.position) == (context.length, context.position)
    again = engine.forward([Read(branch, noisy, keep=False)])
    assert error(again[0].latents, first[0].latents) < 1e-6


def test_no_image_costs_nothing_until_an_image_comes(bagel, pictures):
    conversation = Conversation(bagel.runtime)

    def job():
        yield from conversation.read_text("a red cube")
        yield from conversation.read_text("on a table")

    passes = bagel.runtime.engine.passes
    list(run(bagel.runtime.engine, [job()]))
    assert bagel.runtime.engine.passes == passes + 2
    assert conversation.no_image._store is conversation.cond._store
    assert conversation.no_image.history == conversation.cond.history != conversation.no_text.history
