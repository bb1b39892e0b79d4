"""Jobs that come and go: fairness, isolation, cancelling, limits; and each answer is that of its single run."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref

import pytest
import torch

from bagel.infer import jobs
from bagel.infer.engine import Engine, Finished, Read
from bagel.infer.image import ImageStep
from bagel.infer.scheduler import BusyError, Cancelled, Failed, Limits, Scheduler
from bagel.infer.text import TextPiece
from bagel.infer.ticket import Ticket, Waiting
from bagel.options import ImageOptions, TextOptions, settle
from bagel.pack import LatentPart, TextPart
from conftest import error


@pytest.fixture
def runtime(bagel):
    """With an engine of its own, so that passes can be counted."""
    engine = Engine(bagel.runtime.checkpoint.model, bagel.runtime.engine.rules)
    return dataclasses.replace(bagel.runtime, engine=engine)


def writing(runtime, text, tokens=12, **fields):
    return jobs.answer(runtime, [text], settle(TextOptions(max_tokens=tokens, **fields), "chat", {}))


def drawing(runtime, text, steps=6, side=32, seed=1, **fields):
    options = ImageOptions(height=side, width=side, num_timesteps=steps, seed=seed, **fields)
    return jobs.draw(runtime, [text], settle(options, "draw", {}))


def drain(scheduler):
    return [pair for _ in iter(lambda: scheduler.busy, False) for pair in scheduler.step()]


def results(events):
    return {ticket: event.result for ticket, event in events if isinstance(event, Finished)}


def test_jobs_that_join_late_get_the_answers_of_their_single_runs(bagel, runtime):
    scheduler = Scheduler(runtime.engine, Limits(active=3, light=40, text_passes=2))
    todo = {f"question {i}": scheduler.submit(writing(runtime, f"question {i}", 5 + i)) for i in range(4)}
    events = list(scheduler.step())
    sizes = {48: "text_channel", 32: "channel", 64: "global"}
    drawn = {
        side: scheduler.submit(drawing(runtime, "a cube", 5, side, side, cfg_renorm_type=renorm))
        for side, renorm in sizes.items()
    }
    found = results(events + drain(scheduler))
    for number, (text, ticket) in enumerate(todo.items()):
        assert found[ticket].token_ids == bagel.chat(text, max_tokens=5 + number).token_ids
    for side, ticket in drawn.items():
        own = {"height": side, "width": side, "seed": side, "cfg_renorm_type": sizes[side]}
        assert error(found[ticket].latent, bagel.draw("a cube", num_timesteps=5, **own).latent) < 1e-5
    assert scheduler.metrics.ended["finished"] == 7
    assert scheduler.metrics.occupancy > sum(scheduler.metrics.passes.values())


def test_light_work_shares_every_pass(runtime):
    scheduler = Scheduler(runtime.engine)
    scheduler.submit(writing(runtime, "hello", 8))
    scheduler.submit(drawing(runtime, "a cube", 8))
    drain(scheduler)
    assert runtime.engine.passes <= 9


def test_words_come_several_times_between_two_updates_of_a_heavy_picture(runtime):
    scheduler = Scheduler(runtime.engine, Limits(light=10, text_passes=4))
    scheduler.submit(drawing(runtime, "a cube", 20))
    scheduler.submit(writing(runtime, "hello", 40))
    kinds = [type(event) for _, event in drain(scheduler) if isinstance(event, (ImageStep, TextPiece))]
    last_word = len(kinds) - 1 - kinds[::-1].index(TextPiece)
    steps = kinds[:last_word].count(ImageStep)
    assert 2 <= steps <= 12, "the picture goes on, more slowly than the text"


def test_pictures_beyond_the_budget_take_turns(runtime):
    runtime.engine.max_tokens = 40
    scheduler = Scheduler(runtime.engine, Limits(light=10, text_passes=0))
    tickets = [scheduler.submit(drawing(runtime, "a cube", 12, 64, cfg_interval=(0, 1))) for _ in range(4)]
    order = [ticket for ticket, event in drain(scheduler) if isinstance(event, ImageStep)]
    begun = max(order.index(ticket) for ticket in tickets)
    counts = [order[begun : begun + 16].count(ticket) for ticket in tickets]
    assert counts == [4, 4, 4, 4]


def test_one_failure_ends_one_job(bagel, runtime):
    scheduler = Scheduler(runtime.engine)

    def breaks():
        yield from ()
        raise ZeroDivisionError

    def reads_nonsense():
        yield [Read(runtime.engine.new_context(), TextPart([10**9]))]

    wrong = [scheduler.submit(breaks()), scheduler.submit(reads_nonsense())]
    right = scheduler.submit(writing(runtime, "hello"))
    events = drain(scheduler)
    failed = {ticket: event.error for ticket, event in events if isinstance(event, Failed)}
    assert [type(failed[ticket]) for ticket in wrong] == [ZeroDivisionError, IndexError]
    assert results(events)[right].token_ids == bagel.chat("hello", max_tokens=12).token_ids


def test_a_context_that_grows_too_long_fails_alone(runtime):
    scheduler = Scheduler(runtime.engine)
    limit = runtime.engine.model.config.llm.max_position_embeddings

    def too_long():
        yield [Read(runtime.engine.new_context(), TextPart([1] * (limit + 1)))]

    wrong, right = scheduler.submit(too_long()), scheduler.submit(writing(runtime, "hello", 3))
    ends = dict(drain(scheduler))
    assert "positions" in str(ends[wrong].error)
    assert isinstance(ends[right], Finished)


def test_cancelling_frees_the_contexts_at_once(runtime):
    made = []
    new_context = runtime.engine.new_context
    runtime.engine.new_context = lambda: made.append(new_context()) or made[-1]
    scheduler = Scheduler(runtime.engine, Limits(active=1))
    job, waiting = drawing(runtime, "a cube", 50), drawing(runtime, "a ball", 50)
    ticket, other = scheduler.submit(job), scheduler.submit(waiting)
    for _ in range(3):
        list(scheduler.step())
    stores = [weakref.ref(context._store) for context in made]
    made.clear()
    for one in (ticket, other):
        assert isinstance(scheduler.cancel(one)[1], Cancelled)
    assert scheduler.cancel(ticket) is None
    assert not scheduler.busy
    gc.collect()
    assert [store() for store in stores] == [None] * len(stores)


def test_passes_go_on_beside_what_is_made_for_a_job(bagel, runtime):
    scheduler, go = Scheduler(runtime.engine, Limits(beside=True)), threading.Event()
    waits = scheduler.submit(runtime.engine.aside(go.wait, 60))
    words = scheduler.submit(writing(runtime, "hello"))
    events = []
    while scheduler.active != [waits]:
        events += scheduler.step()
    assert results(events)[words].token_ids == bagel.chat("hello", max_tokens=12).token_ids
    passes = runtime.engine.passes
    assert list(scheduler.step()) == [], "a step ends, so that a job that comes now need not wait"
    go.set()
    assert results(drain(scheduler)) == {waits: True}
    assert runtime.engine.passes == passes


def test_what_is_made_beside_may_fail_or_be_left(runtime):
    scheduler, go = Scheduler(runtime.engine, Limits(beside=True)), threading.Event()
    left, waits = (scheduler.submit(runtime.engine.aside(go.wait, 60)) for _ in range(2))
    fails = scheduler.submit(runtime.engine.aside(int, "x"))
    list(scheduler.step())
    for ticket in (left, waits):
        assert isinstance(scheduler.cancel(ticket)[1], Cancelled)
    go.set()
    ends = dict(drain(scheduler))
    assert isinstance(ends[fails].error, ValueError)
    assert scheduler.metrics.ended == {"finished": 0, "failed": 1, "cancelled": 2, "refused": 0}


@pytest.mark.parametrize("asked", [True, False])
def test_without_a_thread_for_it_all_is_made_on_the_spot(runtime, asked):
    """On a GPU, and for lists of requests, whose passes must not depend on how long something takes."""
    if asked:
        runtime.engine.beside = None
    scheduler = Scheduler(runtime.engine, Limits(beside=asked))
    ticket = scheduler.submit(runtime.engine.aside(threading.current_thread))
    assert results(scheduler.step()) == {ticket: threading.current_thread()}
    fails = scheduler.submit(runtime.engine.aside(int, "x"))
    assert isinstance(dict(drain(scheduler))[fails].error, ValueError)


def test_limits_and_turns_of_owners(runtime):
    scheduler = Scheduler(runtime.engine, Limits(active=1, queue=4))
    tickets = [scheduler.submit(writing(runtime, "hello", 2), owner=owner) for owner in "aaab"]
    scheduler.submit(writing(runtime, "hello", 2), owner="b")
    with pytest.raises(BusyError, match="wait"):
        scheduler.submit(writing(runtime, "hello", 2))
    ended = [ticket.owner for ticket, event in drain(scheduler) if isinstance(event, Finished)]
    assert ended == ["a", "b", "a", "b", "a"]
    assert scheduler.metrics.ended == {"finished": 5, "failed": 0, "cancelled": 0, "refused": 1}
    assert all(ticket.began for ticket in tickets)


def test_places_in_the_queue_are_told_as_they_will_be_let_in(runtime):
    waiting = Waiting()
    for number, owner in enumerate("aaabbc"):
        waiting.push(Ticket(writing(runtime, "x"), number, owner))
    told = [ticket.number for ticket in waiting.in_turn()]
    assert told == [0, 3, 5, 1, 4, 2]
    assert told == [waiting.pop().number for _ in told]


def test_a_job_too_big_to_share_waits_and_runs_alone(runtime):
    scheduler = Scheduler(runtime.engine, Limits(places=100))
    small, big = (scheduler.submit(writing(runtime, "hello", 4), weight=weight) for weight in (60, 1000))
    list(scheduler.step())
    assert scheduler.active == [small]
    ended = [ticket for ticket, event in drain(scheduler) if isinstance(event, Finished)]
    assert ended == [small, big]


def test_contexts_side_by_side_equal_contexts_one_by_one(runtime, monkeypatch):
    def read():
        engine, tokenizer = runtime.engine, runtime.checkpoint.tokenizer
        contexts = [engine.new_context() for _ in range(6)]
        texts = ["a", "two dogs", "a red cube on a table", "x y", "hello", "far away"]
        engine.forward([Read(c, TextPart(tokenizer.segment(t))) for c, t in zip(contexts, texts, strict=True)])
        noise = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
        draws = [Read(c, LatentPart(noise, (2, 3), 0.5, noised=True), keep=False) for c in contexts[3:]]
        seen = []
        for token in (5, 6, 7):
            seen += engine.forward([*[Read(c, TextPart([token])) for c in contexts[:3]], *draws])
        return [x for one in seen for x in (one.last, one.latents) if len(x)]

    together = read()
    monkeypatch.setattr("bagel.infer.padded.MOST_PLACES", 0)
    for found, wanted in zip(together, read(), strict=True):
        assert error(found, wanted) < 1e-5


@pytest.mark.slow
def test_a_batch_of_texts_is_three_times_as_fast(bagel):
    """On one thread and in its own time: others may be using the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    questions = [[f"question {i}"] for i in range(32)]
    bagel.chat(questions[:2], max_tokens=8)
    began = time.process_time()
    singles = [bagel.chat(q, max_tokens=40).token_ids for q in questions]
    middle = time.process_time()
    batch = [r.token_ids for r in bagel.chat(questions, max_tokens=40)]
    end = time.process_time()
    torch.set_num_threads(threads)
    assert batch == singles
    assert middle - began > 3 * (end - middle)
