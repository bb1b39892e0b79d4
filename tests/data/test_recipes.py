"""Each recipe: the parts that a row becomes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagel.data.config import DatasetConfig
from bagel.data.recipes import Cook
from bagel.data.sample import Clip, Next, Part, Picture, Text
from bagel.data.video import Video, clip_frames, spread_frames
from bagel.errors import InputError
from bagel.tokens import THINK_PROMPT

from .make import png


def cook(recipe: str, row: Any, seed: int = 0, root: str = "", **own: Any) -> list[Part]:
    config = DatasetConfig(name="d", recipe=recipe, path=("-",), **own)
    return list(Cook(config).sample(row, root, "row", Random(seed)).parts)


def shown(parts: list[Part]) -> str:
    """`text`, `TEXT` (learnt), look, context, target, clip; `?` may be dropped; ~n is a label."""
    words = []
    for part in parts:
        word = part.use.value if isinstance(part, Picture) else "clip" if isinstance(part, Clip) else "text"
        if not isinstance(part, Picture) and part.loss:
            word = word.upper()
        words.append(word + ("?" if part.drop is not None else "") + (f"~{part.then.value}" if part.then else ""))
    return " ".join(words)


def said(parts: list[Part]) -> list[str]:
    return [part.text for part in parts if isinstance(part, Text)]


def test_text_to_image() -> None:
    row = {"image": png(0), "captions": json.dumps({"short": "a cat", "long": "a big cat"})}
    assert shown(cook("t2i", row)) == "text? target"
    drawn = {said(cook("t2i", row, seed))[0] for seed in range(20)}
    assert drawn == {"a cat", "a big cat"}
    assert said(cook("t2i", {**row, "captions": "{}"})) == [" "]
    renamed = {"img": {"bytes": png(0), "path": None}, "label": ["a dog"]}
    assert said(cook("t2i", renamed, columns={"image": "img", "captions": "label"})) == ["a dog"]


def test_a_column_of_the_users_own_is_the_only_one_that_is_read() -> None:
    row = {"image": png(0), "captions": "not this", "label": "a dog"}
    assert said(cook("t2i", row, columns={"caption": "label"})) == ["a dog"]
    with pytest.raises(InputError, match=r"but image \+ captions \(lable\) is needed"):
        cook("t2i", row, columns={"captions": "lable"})


def test_thought_before_a_picture() -> None:
    parts = cook("t2i", {"image": png(0), "caption": "a cat", "thought": "grey, asleep"})
    assert shown(parts) == "text text? TEXT? target"
    assert said(parts) == [THINK_PROMPT["image"], "a cat", "<think> grey, asleep </think>"]
    assert isinstance(parts[1], Text)
    assert isinstance(parts[2], Text)
    assert parts[1].drop == parts[2].drop


CHAIN = {"image_list": [png(i) for i in range(4)], "instruction_list": [["a", "A"], ["b"], ["c"]]}
ONE = "context? look? text? target"
TWO = "context? look? text? target context? look? text? target"


def test_edit_chains_as_upstream() -> None:
    """Up to two steps from anywhere; two may be asked for at once, never up to the last picture."""
    found = Counter[tuple[str, str]]()
    for seed in range(400):
        parts = cook("edit", CHAIN, seed)
        found[shown(parts), "|".join(said(parts)).lower()] += 1
    alone = {(ONE, text) for text in ("a", "b", "c", "a. b.", "b.")}
    assert set(found) == alone | {(TWO, "a|b"), (TWO, "b|c")}


def test_edit_pair_whole_chain_and_composition() -> None:
    assert shown(cook("edit", {"image_list": [png(0), png(1)], "instruction_list": [["x"]]})) == ONE
    whole = cook("edit", CHAIN, options={"whole_chain": True})
    assert shown(whole).count("target") == 3
    parts = cook("edit", {"sources": [png(0), png(1)], "instruction": "put together", "target": png(2)})
    assert shown(parts) == "context? look? context? look? text? target"
    thinking = cook("edit", {**CHAIN, "thought": ["1", "2", "3"]}, options={"whole_chain": True})
    assert shown(thinking).startswith("text context? look? text? TEXT? target context?")


TURNS = [
    {"from": "human", "value": "<image>\nwhat?"},
    {"from": "gpt", "value": "a cat"},
    {"from": "human", "value": "and <image> now?"},
    {"from": "gpt", "value": "a dog"},
]


def test_understanding(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(0))
    parts = cook("understand", {"image": ["a.png", "b.png"], "conversations": TURNS}, root=str(tmp_path))
    assert shown(parts) == "look text TEXT text look text TEXT"
    assert said(parts) == ["what?", "a cat", "and", "now?", "a dog"]
    assert [part.share for part in parts if isinstance(part, Picture)] == [2, 2]
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    parts = cook("understand", {"messages": [*chat, {"role": "assistant", "content": "hello"}]})
    assert shown(parts) == "text text TEXT"
    one = {"image": png(0), "conversations": [TURNS[0], TURNS[1]]}
    assert said(cook("understand", {**one, "thought": "round ears"})) == [
        THINK_PROMPT["text"],
        "what?",
        "<think> round ears </think> a cat",
    ]


def test_plain_text() -> None:
    assert shown(cook("text", {"text": "once upon a time"})) == "TEXT"
    assert shown(cook("text", {"conversations": [{"from": "gpt", "value": "hello"}]})) == "TEXT"


def document(*parts: Any, **options: Any) -> list[Part]:
    return cook("document", {"parts": list(parts)}, options=options)


def test_documents() -> None:
    a, b = {"image": png(0)}, {"image": png(1)}
    assert shown(document({"text": "x"}, a, {"text": "y"}, b)) == "TEXT target context? look? TEXT target"
    given = {"text": "x", "loss": False}
    assert shown(document(given, a)) == "text? target"
    assert shown(document({**a, "loss": False}, {"text": "y"})) == "look TEXT"
    assert shown(document({**a, "loss": False}, {"text": "y"}, b)) == "context? look? TEXT target"
    parts = document(given, {"thought": "plan"}, a)
    assert shown(parts) == "text? TEXT? target"
    assert {part.drop for part in parts[:2]} == {0}
    assert shown(document(given, {**a, "use": ["target", "context"], "drop": False})) == "text? target context"


def test_markers_say_what_comes_next() -> None:
    a, given = {"image": png(0)}, {"text": "x", "loss": False}
    parts = document(given, {"text": "y"}, a, {"text": "z"}, a, markers=True)
    assert shown(parts) == "text?~text TEXT~image target context? look?~text TEXT~image target context~end"
    assert parts[-1].then is Next.END


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames with a key frame every 10; frame n is a grey of 5 n levels."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.gop_size = 10
        for number in range(40):
            levels = np.full((64, 64, 3), 5 * number, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def straight(film: Path) -> list[Any]:
    """All frames, decoded from the start on."""
    av = pytest.importorskip("av")
    with av.open(str(film)) as container:
        return [np.asarray(frame.to_image()) for frame in container.decode(video=0)]


@pytest.mark.parametrize("wanted", [[0, 1, 2], [3, 17, 18, 39], [25], list(range(0, 40, 13))])
def test_video_frames_by_number(film: Path, wanted: list[int]) -> None:
    video, every = Video(film.read_bytes(), "film"), straight(film)
    assert len(video) == len(every) == 40
    for number, frame in zip(wanted, video.read(wanted), strict=True):
        assert np.array_equal(np.asarray(frame), every[number])
    assert not np.array_equal(every[3], every[17])


def test_frame_choice() -> None:
    for seed in range(50):
        chosen = spread_frames(100, 8, 12, Random(seed))
        assert 8 <= len(chosen) <= 12
        assert chosen == sorted(set(chosen))
        assert spread_frames(3, 8, 12, Random(seed)) == [0, 1, 2]
        clip = clip_frames(40, 5, 3, Random(seed))
        assert clip == list(range(clip[0], clip[0] + 15, 3))
        assert clip[-1] < 40


def test_video_understood(film: Path) -> None:
    turns = [{"from": "human", "value": "<video>\nwhat?"}, {"from": "gpt", "value": "grey"}]
    options = {"min_frames": 3, "max_frames": 3}
    parts = cook("understand", {"video": str(film), "conversations": turns}, options=options)
    assert shown(parts) == "look look look text TEXT"


def test_video_generated(film: Path) -> None:
    row = {"video": film.read_bytes(), "caption": "it gets brighter"}
    parts = cook("video", row, options={"num_frames": 4, "frame_step": 3, "context_frames": 1})
    assert shown(parts) == "text? clip? CLIP"
    given, wanted = parts[1:]
    assert isinstance(given, Clip)
    assert isinstance(wanted, Clip)
    assert (given.deltas, wanted.deltas) == ((3,), (3, 3, None))
    every = straight(film)
    shown_frames = [np.asarray(frame) for frame in (*given.frames, *wanted.frames)]
    first = next(n for n in range(40) if np.array_equal(every[n], shown_frames[0]))
    for number, frame in enumerate(shown_frames):
        assert np.array_equal(every[first + 3 * number], frame)


def test_frames_given_as_pictures(tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (64, 64), (number * 5,) * 3).save(tmp_path / f"{number}.png")
    row = {"video": [f"{number}.png" for number in range(6)], "caption": "x"}
    parts = cook("video", row, root=str(tmp_path), options={"num_frames": 3})
    assert isinstance(parts[1], Clip)
    assert len(parts[1].frames) == 3


GOOD = {"image": png(0), "caption": "x"}


@pytest.mark.parametrize(
    ("recipe", "row", "words"),
    [
        ("t2i", {"img": b"", "caption": "x"}, r"columns img, caption, but image \+ captions is needed"),
        ("t2i", {**GOOD, "image": b"GIF?"}, "image: the picture .* use PNG, JPEG or WebP"),
        ("t2i", {**GOOD, "image": "no/such.png"}, "no/such.png cannot be opened"),
        ("t2i", {**GOOD, "caption": "{broken"}, "captions is broken JSON"),
        ("t2i", {**GOOD, "caption": 5}, "captions holds 5; it must be a text"),
        ("edit", {"image_list": [png(0)], "instruction_list": []}, "at least 2 pictures"),
        ("edit", {"image_list": [png(0)] * 3, "instruction_list": [["a"]]}, "must hold 2 entries"),
        ("edit", {"image_list": [png(0)] * 2, "instruction_list": [[]]}, "no instruction for step 1"),
        ("understand", {"conversations": [{"from": "bot", "value": "x"}]}, "turn 1 is from 'bot'"),
        ("understand", {"conversations": [{"from": "human", "value": "x"}]}, "no answer"),
        ("understand", {"image": [png(0)], "conversations": TURNS}, "2 times <image> for 1 pictures"),
        ("document", {"parts": [{"txt": "x"}]}, "entry 1 has the key 'txt'; did you mean 'text'"),
        ("document", {"parts": [{"text": "x", "loss": False}]}, "nothing in the row is to be learnt"),
        ("document", {"parts": [{"image": png(0), "use": "view"}]}, "use look, context or target"),
        ("video", {"video": b"no video", "caption": "x"}, "no video that can be read"),
        ("video", {"video": [], "caption": "x"}, "empty list"),
        ("text", {"text": 5}, "text holds 5; it must be a text"),
        ("text", {"txt": "x"}, "columns txt, but text or conversations is needed"),
        ("text", {"messages": [{"role": "user", "content": "x"}]}, "no answer"),
        ("world", {"number": "x"}, "number is 'x'; it must be a whole number"),
    ],
)
def test_bad_rows(recipe: str, row: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cook(recipe, row)


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("edti", {}, "did you mean 'edit'"),
        ("world", {"split": "tests"}, "split: 'tests' is not known; use one of train, heldout"),
        ("world", {"tasks": {"drw": 1}}, "'drw' is not known; did you mean 'draw'"),
        ("edit", {"max_step": 1}, "'max_step' is not known; did you mean 'max_steps'"),
        ("t2i", {"join": 1}, "'join' is not known; there is nothing to set here"),
        ("video", {"frame_step": 0}, "frame_step is 0; it must be at least 1"),
        ("video", {"num_frames": "many"}, "must be a whole number"),
        ("understand", {"max_frames": 3}, "max_frames is 3; it must be at least 8"),
    ],
)
def test_bad_options(recipe: str, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"data set 'd'.*{words}"):
        cook(recipe, {}, options=options)
