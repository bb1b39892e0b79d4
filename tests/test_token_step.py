"""The bookkeeping of tokens that are begun before they are asked for, on a device that is played: what each context
reads, where it is written and how often it draws must not depend on the company it is in."""

import ctypes

import pytest
import torch

from bagel.infer import token_step
from bagel.infer.context import Context
from bagel.infer.token_step import TokenStep, Wish
from bagel.model.config import LLMConfig
from bagel.pack import TextPart

VOCABULARY = 1000
WIDTH = 8


def put(address, place, token):
    """A token for its key: into the storage, as the kernels do."""
    ctypes.c_float.from_address(address + 4 * WIDTH * place).value = token


def after(token, position):
    return (token * 31 + position * 7 + 1) % VOCABULARY


class PlayedGraph:
    """As `_Graph`, with a device that writes tokens for keys and values."""

    def __init__(self, model, rows, spare):
        self.last, self.replays, self.rows = None, 0, rows
        self.state = torch.zeros(6, rows, dtype=torch.int64)

    def begin(self, state):
        self.state.zero_()
        self.state[:, : len(state)] = torch.tensor(state).t()

    def replay(self):
        self.last, self.replays = None, self.replays + 1
        logits = torch.zeros(self.rows, VOCABULARY)
        for row, (token, position, length, address, capacity, step) in enumerate(self.state.t().tolist()):
            if step:
                assert length < capacity
                put(address, length, token)
                self.state[0, row] = after(token, position)
                logits[row, after(token, position)] = 1.0
        self.state[1:3] += self.state[5]
        return logits, logits


class PlayedFlight:
    def __init__(self, graph, draws):
        self.graph, self.draws = graph, draws
        logits = graph.replay()[1]
        for row, draw in enumerate(draws):
            if draw is not None:
                graph.state[0, row : row + 1] = draw(logits[row : row + 1])
        self.read = graph.state[0, : len(draws)].tolist()
        graph.last = self

    def tokens(self):
        return self.read


class Drawer:
    """Adds the number of the draw to the likeliest token: another draw is another token."""

    def __init__(self):
        self.count = 0

    def __call__(self, logits):
        self.count += 1
        return (logits.argmax(-1) + self.count) % VOCABULARY


class Writer:
    """A text of `most` tokens behind `prompt`."""

    def __init__(self, config, prompt, most, drawn):
        self.context = Context(config, torch.float32, torch.device("cpu"))
        self.context.reserve(len(prompt))
        self.context.advance(TextPart(prompt).segment, tuple(prompt))
        self.ids, self.most, self.draw, self.prompt = [7], most, Drawer() if drawn else None, len(prompt)

    @property
    def wish(self):
        return Wish(self.context, self.ids[-1], self.draw, more=len(self.ids) + 1 < self.most)

    @property
    def done(self):
        return len(self.ids) >= self.most

    def read(self, chosen):
        self.context.advance(TextPart(self.ids[-1:]).segment, self.ids[-1])
        self.ids.append(chosen)

    def check(self):
        wanted = [7]
        for count in range(1, self.most):
            position = self.prompt + count - 1
            wanted.append((after(wanted[-1], position) + (count if self.draw else 0)) % VOCABULARY)
        assert self.ids == wanted
        keys = self.context._store.tensor[0, 0, :, 0, 0]
        assert keys[self.prompt : self.context.length].tolist() == self.ids[:-1]
        if self.draw:
            assert self.draw.count == self.most - 1


@pytest.fixture
def config():
    return LLMConfig(
        hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        vocab_size=VOCABULARY,
    )  # fmt: skip


@pytest.fixture
def step(config, monkeypatch):
    monkeypatch.setattr(token_step, "_Graph", PlayedGraph)
    monkeypatch.setattr(token_step, "_Flight", PlayedFlight)
    model = type("Model", (), {"local": config, "dtype": torch.float32, "device": torch.device("cpu")})
    return TokenStep(model)


def run(step, writers, begins):
    """Writers join at their pass; -> passes."""
    for number in range(10_000):
        writing = [w for w, begin in zip(writers, begins, strict=True) if number >= begin and not w.done]
        if not writing and number >= max(begins):
            return number
        if writing:
            for writer, chosen in zip(writing, step.choose([w.wish for w in writing]), strict=True):
                writer.read(chosen)
    raise AssertionError("no end")


@pytest.mark.parametrize("drawn", [False, True])
def test_one_text_is_a_step_ahead(step, config, drawn):
    writer = Writer(config, [1, 2, 3], 40, drawn)
    run(step, [writer], [0])
    writer.check()
    assert step._graphs[1].replays == 39  # none was begun in vain, since its length was known


def test_texts_that_join_and_leave(step, config):
    writers = [
        Writer(config, [1] * length, most, drawn)
        for length, most, drawn in ((3, 300, True), (250, 20, False), (5, 33, True), (9, 2, True), (255, 90, True))
    ]
    run(step, writers, [0, 4, 4, 6, 31])
    for writer in writers:
        writer.check()


def test_a_text_that_ends_early_leaves_its_place(step, config):
    """A fork writes where another one's next token was begun in vain."""
    first = Writer(config, [1, 2, 3], 40, True)
    base = first.context
    first.context = base.fork()
    for _ in range(5):
        first.read(step.choose([first.wish])[0])
    begun = first.context.length
    assert base._store.tensor[0, 0, begun, 0, 0] == first.ids[-1]
    del first.context
    second = Writer(config, [1, 2, 3], 9, False)
    second.context = base.fork()
    run(step, [second], [0])
    second.check()


def test_a_pass_of_another_kind_between(step, config):
    """What was drawn is not drawn again where the token is read in a pass with other things."""
    writer = Writer(config, [1, 2], 12, True)
    while not writer.done:
        token = writer.ids[-1]
        if len(writer.ids) == 5:
            chosen = step.held(writer.context, token)
            put(writer.context.reserve(1).tensor.data_ptr(), writer.context.length, token)
        else:
            chosen = step.choose([writer.wish])[0]
        writer.read(chosen)
    writer.check()


def test_a_token_read_without_a_choice(step, config):
    writer = Writer(config, [1, 2], 12, False)
    while not writer.done:
        if len(writer.ids) in (4, 5, 9):
            chosen = int(step([(writer.context, writer.ids[-1])])[1][0].argmax())
        else:
            chosen = step.choose([writer.wish])[0]
        writer.read(chosen)
    writer.check()
