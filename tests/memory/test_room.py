"""Requests that would not fit wait or are refused before they start, and memory that ran out is given back."""

import gc
import weakref

import pytest
import torch
from PIL import Image

from bagel import Bagel, Finished, MemoryPlanError
from bagel.infer import jobs
from bagel.infer.context import Context
from bagel.infer.conversation import Runtime
from bagel.infer.demand import demand_of
from bagel.infer.engine import Engine
from bagel.infer.scheduler import Cancelled, Failed, Scheduler
from bagel.memory.cards import Card
from bagel.memory.plan import Ask, choose
from bagel.memory.recover import is_out_of_memory, relieved
from bagel.memory.room import Room
from bagel.memory.sizes import GIB, VISITS, Demand, needed, phases
from bagel.model.published import SEVEN_B
from bagel.options import ImageOptions, TextOptions, settle
from conftest import CHECKPOINT, error

SMALL = {"height": 64, "width": 64, "num_timesteps": 3, "seed": 1}
PICTURE = Image.new("RGB", (64, 64), (200, 30, 30))


@pytest.fixture
def own() -> Bagel:
    """A model whose room may be made small."""
    return Bagel.load(CHECKPOINT, device="cpu")


def need_of(model: Bagel, *demands: Demand) -> int:
    work = needed(model.config, list(demands), torch.float32)
    return work + int(0.3 * GIB + 0.1 * work)


def drawn(model: Bagel, **fields):
    return settle(ImageOptions(**{**SMALL, **fields}), "draw", model.config.presets)


def test_a_request_that_does_not_fit_is_refused_before_it_starts(own):
    demand = demand_of(own.runtime.checkpoint, ["a cube"], drawn(own))
    own.runtime.room.free = lambda: need_of(own, demand)
    assert own.draw("a cube", **SMALL).image
    passes = own.runtime.engine.passes
    with pytest.raises(MemoryPlanError, match=r"needs .* but .* are free: .* 512 x 512 in 2 branches"):
        own.draw("a cube", **{**SMALL, "height": 512, "width": 512})
    with pytest.raises(MemoryPlanError, match="tokens to read"):
        own.chat("word " * 20_000, max_tokens=4)
    assert own.runtime.engine.passes == passes
    assert own.draw("a cube", **SMALL).image


@pytest.mark.parametrize("card", ["8", "12", "16", "24", "32"])
@pytest.mark.parametrize("job", ["draw", "edit", "chat"])
@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_what_was_planned_for_has_room(card, job, precision):
    """Parts that visit the card are counted where they are there, in the plan and when the request comes."""
    demand = Demand.of(SEVEN_B, job)
    made = choose(SEVEN_B, Card.imagined(card), demand, Ask(precision, "auto"))
    visitors = {part: made.weights.parts[part] for part in VISITS if part in made.setup.offload}
    room = Room(SEVEN_B, torch.bfloat16, widened=made.card.widens(made.setup.packed), tile=made.setup.tile)
    room.free, room.visitors = (lambda: made.card.free - made.resident), visitors
    room.check(demand)
    room.free = lambda: made.work  # without the headroom
    with pytest.raises(MemoryPlanError):
        room.check(demand)


def ended_of(scheduler: Scheduler) -> tuple[dict[int, Finished | Failed], int]:
    """How each job ended, and the most that were under way at a time."""
    ended, most = {}, 0
    while scheduler.busy:
        for ticket, event in scheduler.step():
            if isinstance(event, (Finished, Failed)):
                ended[ticket.number] = event
        most = max(most, len(scheduler.active))
    return ended, most


def test_what_has_no_room_beside_others_waits_for_them(own):
    runtime = own.runtime
    one = demand_of(runtime.checkpoint, ["a cube"], drawn(own))
    runtime.room.free = lambda: need_of(own, one, one)
    scheduler = Scheduler(runtime.engine)
    prompts = ("a cube", "a cone", "a ball", "a tree", "a door")
    for prompt in prompts:
        scheduler.submit(jobs.draw(runtime, [prompt], drawn(own)))
    ended, most = ended_of(scheduler)
    assert list(ended) == [0, 1, 2, 3, 4]
    assert most == 2
    for number, prompt in enumerate(prompts):
        assert isinstance(ended[number], Finished)
        assert error(ended[number].result.latent, own.draw(prompt, **SMALL).latent) < 1e-5
    assert scheduler.metrics.waited > 0
    assert not runtime.room._active


def test_a_list_of_requests_runs_in_turns_where_not_all_have_room(own):
    one = demand_of(own.runtime.checkpoint, ["a cube"], drawn(own))
    own.runtime.room.free = lambda: need_of(own, one, one)
    several = own.draw(["a cube"] * 3, height=64, width=64, num_timesteps=3, seed=[1, 2, 3])
    assert [result.seed for result in several] == [1, 2, 3]


def test_a_large_request_is_not_overtaken_by_small_ones_for_ever(own):
    runtime = own.runtime
    large = demand_of(runtime.checkpoint, ["a cube"], drawn(own, height=256, width=256))
    runtime.room.free = lambda: need_of(own, large)
    scheduler = Scheduler(runtime.engine)
    scheduler.submit(jobs.draw(runtime, ["a cube"], drawn(own, num_timesteps=6)), owner="small")
    waits = scheduler.submit(jobs.draw(runtime, ["a cube"], drawn(own, height=256, width=256)), owner="large")
    for _ in range(4):
        scheduler.submit(jobs.draw(runtime, ["a cube"], drawn(own)), owner="small")
    list(scheduler.step())
    assert waits in list(scheduler.waiting)
    assert waits.began is None
    ended, _ = ended_of(scheduler)
    assert list(ended)[:2] == [0, waits.number]
    assert all(isinstance(event, Finished) for event in ended.values())


def test_one_that_would_not_fit_alone_is_refused_at_once(own):
    runtime = own.runtime
    one = demand_of(runtime.checkpoint, ["a cube"], drawn(own))
    runtime.room.free = lambda: need_of(own, one, one)
    scheduler = Scheduler(runtime.engine)
    scheduler.submit(jobs.draw(runtime, ["a cube"], drawn(own, num_timesteps=20)))
    scheduler.submit(jobs.draw(runtime, ["a cube"], drawn(own, height=512, width=512)))
    events = list(scheduler.step())
    (failed,) = [event for ticket, event in events if ticket.number == 1]
    assert isinstance(failed, Failed)
    assert "are free" in str(failed.error)
    assert "beside" not in str(failed.error).replace("besides", "")
    assert isinstance(ended_of(scheduler)[0][0], Finished)


def test_one_that_waits_for_room_can_be_taken_back(own):
    runtime = own.runtime
    one = demand_of(runtime.checkpoint, ["a cube"], drawn(own))
    runtime.room.free = lambda: need_of(own, one)
    scheduler = Scheduler(runtime.engine)
    tickets = [scheduler.submit(jobs.draw(runtime, ["a cube"], drawn(own)), owner=name) for name in "abc"]
    list(scheduler.step())
    assert list(scheduler.waiting.in_turn()) == tickets[1:]
    assert isinstance(scheduler.cancel(tickets[1])[1], Cancelled)
    assert list(ended_of(scheduler)[0]) == [0, 2]
    assert not runtime.room._active


def test_other_requests_that_run_by_themselves_are_not_waited_for(own):
    """Nothing in this queue would ever make room."""
    runtime = own.runtime
    one = demand_of(runtime.checkpoint, ["a cube"], drawn(own))
    runtime.room.free = lambda: need_of(own, one)
    with runtime.room.held(one), pytest.raises(MemoryPlanError, match="of what runs already"):
        own.draw("a cube", **SMALL)


def test_a_session_is_refused_before_the_turn(own):
    session = own.session()
    session.read("a cube")
    own.runtime.room.free = lambda: int(0.4 * GIB)
    before = session.conversation.cond.length
    with pytest.raises(MemoryPlanError):
        session.draw(**{**SMALL, "height": 512, "width": 512})
    with pytest.raises(MemoryPlanError):
        session.read("word " * 20_000)
    assert session.conversation.cond.length == before
    assert session.say(max_tokens=3).text is not None


def test_what_a_request_asks(own):
    checkpoint = own.runtime.checkpoint
    plain = demand_of(checkpoint, ["a cube"], drawn(own))
    assert (plain.height, plain.branches, plain.latents, plain.patches) == (64, 2, 0, 0)
    edit = demand_of(checkpoint, [PICTURE, "make it blue"], settle(ImageOptions(), "edit", own.config.presets))
    assert edit.branches == 3
    assert edit.height > 0
    assert edit.latents == edit.height * edit.width // 256 + 2
    chat = demand_of(checkpoint, [PICTURE, "what"], text=settle(TextOptions(max_tokens=7), "chat", {}))
    assert (chat.height, chat.latents, chat.max_tokens) == (0, 0, 7)
    assert chat.patches > 2
    assert demand_of(checkpoint, ["x"], drawn(own, cfg_text_scale=1.0)).branches == 1
    cached = demand_of(checkpoint, ["a cube"], drawn(own, step_cache="taylorseer"))
    with_cache, without = (phases(own.config, demand, torch.float32)["draw"] for demand in (cached, plain))
    assert with_cache > without


# --- after running out ---------------------------------------------------------------------------------------


def contexts(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref]:
    """All contexts that are made from now on."""
    made, plain = [], Context.__init__

    def noted(self, *arguments):
        made.append(weakref.ref(self))
        plain(self, *arguments)

    monkeypatch.setattr(Context, "__init__", noted)
    return made


@pytest.mark.parametrize("where", [(Engine, "_pass"), (Runtime, "decode")])
def test_the_next_request_is_served(own, where, monkeypatch):
    made = contexts(monkeypatch)
    owner, name = where
    whole, calls = getattr(owner, name), []

    def short_of_memory(self, *arguments):
        calls.append(1)
        if len(calls) == 1:
            held = torch.empty(1000)
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {held.numel()} GiB.")
        return whole(self, *arguments)

    wanted = own.draw("a cube", **SMALL).latent
    monkeypatch.setattr(owner, name, short_of_memory)
    calls.clear()
    with pytest.raises(MemoryPlanError, match="Tried to allocate 1000 GiB") as said:
        own.draw("a cube", **SMALL)
    gc.collect()
    assert not [one for one in made if one() is not None], "a failed request's contexts are freed"
    assert said.value.__cause__ is None
    assert torch.equal(own.draw("a cube", **SMALL).latent, wanted)


def test_other_errors_stay_as_they_are():
    error = ValueError("out of memory, says a value")
    assert relieved(error, lambda: None) is error
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 4 TB"))
    assert is_out_of_memory(MemoryError())
