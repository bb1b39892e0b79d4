"""The page without a browser and without Gradio: knobs, words, history, what runs on the model's thread."""

from __future__ import annotations

import dataclasses
import string
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bagel import Bagel, ImageOptions, InputError, TextOptions
from bagel.app.show import settings_of
from bagel.app.ui import knobs
from bagel.app.ui.examples import example_pictures, examples
from bagel.app.ui.history import History, settings_in
from bagel.app.ui.host import Done, Host, Stopped, Waiting
from bagel.app.ui.knob_texts import CHINESE, KNOB_NAMES, PRESET_NAMES
from bagel.app.ui.texts import LANGUAGES, TEXTS, language_of, say, seconds
from bagel.app.ui.watch import Preview, Watch, error_box
from bagel.app.ui.work import Turn, answer, pictures, turn
from bagel.options import settle

JOBS = ("draw", "edit", "chat", "talk")
QUICK = ImageOptions(height=64, width=64, num_timesteps=4, seed=5)


@pytest.mark.parametrize("job", JOBS)
def test_every_knob_is_an_option_with_words_in_both_languages(job: str) -> None:
    for knob in knobs.knobs_of(job, {}):
        for language in LANGUAGES:
            assert knob.label(language)
            assert knob.info(language)
        assert knob.name in CHINESE
        assert knob.name in KNOB_NAMES


def test_chinese_explains_every_option() -> None:
    names = {f.name for cls in (ImageOptions, TextOptions) for f in dataclasses.fields(cls)} - {"noise"}
    assert names == set(CHINESE) == set(KNOB_NAMES)


def test_sliders_stay_within_the_options_limits() -> None:
    for name, (low, high, step) in knobs.SLIDERS.items():
        owner = ImageOptions if name in ImageOptions.__dataclass_fields__ else TextOptions
        limits = owner.__dataclass_fields__[name].metadata
        assert limits.get("low", low) <= low < high <= limits.get("high", high)
        assert low > limits.get("above", low - 1)
        assert step > 0


@pytest.mark.parametrize("job", JOBS)
def test_every_variant_can_be_settled(job: str) -> None:
    for variant in knobs.VARIANTS[job]:
        assert variant in PRESET_NAMES
        values = knobs.preset_of(job, {}, variant)
        cls: Any = TextOptions if job == "chat" else ImageOptions
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        settle(cls(**known), "draw" if job == "talk" else job, {})


def test_the_checkpoints_own_presets_come_first() -> None:
    assert knobs.preset_of("draw", {"draw": {"num_timesteps": 9}})["num_timesteps"] == 9
    assert knobs.preset_of("draw", {"draw": {"num_timesteps": 9}}, "fine")["num_timesteps"] == 100


@pytest.mark.parametrize("ratio", knobs.RATIOS)
@pytest.mark.parametrize("longest", [128, 1024])
def test_shapes_are_legal_and_near(ratio: str, longest: int) -> None:
    height, width = knobs.size_of(ratio, longest, 16)
    across, down = map(int, ratio.split(":"))
    assert height % 16 == width % 16 == 0
    assert max(height, width) == longest
    assert abs(height * across - width * down) <= 8 * max(across, down)


def test_seeds_keep_all_digits_and_odd_ones_are_told() -> None:
    assert knobs.seed_from(" ") is None
    assert knobs.seed_from("9223372036854775807") == 2**63 - 1
    for wrong in ("-1", "x", "1.5", "²"):
        with pytest.raises(InputError, match="whole number"):
            knobs.seed_from(wrong)


def test_texts_have_both_languages_and_the_same_blanks() -> None:
    for key, pair in TEXTS.items():
        english, chinese = ({name for _, name, _, _ in string.Formatter().parse(text) if name} for text in pair)
        assert english == chinese, key
        assert all(pair), key


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("de,zh;q=0.5", "zh"),
        ("fr", "en"),
        (None, "en"),
        ("en;q=x,zh;q=0.1", "zh"),
    ],
)
def test_language_is_the_browsers(accepted: str | None, language: str) -> None:
    assert language_of(accepted) == language


def test_time_as_people_say_it() -> None:
    assert [seconds(3.21, "en"), seconds(61, "en"), seconds(75, "zh")] == ["3.2 s", "1 min 1 s", "1 分 15 秒"]


# --- history -----------------------------------------------------------------------------------------------


def test_settings_survive_in_the_png(tmp_path: Path) -> None:
    history = History(tmp_path)
    options = settle(ImageOptions(seed=2**62, cfg_interval=(0.2, 0.9)), "edit", {})
    paths = [history.keep(Image.new("RGB", (8, 8)), settings_of(options, job="edit", prompt="变绿")) for _ in range(2)]
    assert set(history.newest()) == set(paths)
    settings = settings_in(paths[0])
    assert settings is not None
    assert settings["prompt"] == "变绿"
    back = knobs.restored(settings, {})
    assert back["seed"] == 2**62
    assert tuple(back["cfg_interval"]) == (0.2, 0.9)
    assert back["cfg_renorm_type"] == "text_channel"
    assert knobs.job_of(settings) == "edit"


def test_foreign_and_broken_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert settings_in(tmp_path / "plain.png") is None
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png") as caught:
        settings_in(tmp_path / "broken.png")
    assert str(tmp_path) not in str(caught.value)
    assert History(tmp_path / "none").newest() == []


def test_examples_have_pictures(bagel: Bagel) -> None:
    for job in ("draw", "edit", "chat"):
        assert all(len(pair) == len(LANGUAGES) for pair in examples(job, bagel.config))
    assert [len(example_pictures(pair)) for pair in examples("edit", bagel.config)] == [1, 1, 2]


# --- the model's thread ------------------------------------------------------------------------------------


@pytest.fixture
def host(bagel: Bagel) -> Host:
    host = Host(lambda report: bagel)
    host.start()
    return host


def finish(host: Host, work: Any) -> Watch:
    watch = Watch("en")
    for batch in host.run(work, "me/draw/"):
        for index, event in batch:
            watch.take(index, event)
        watch.status()
    assert watch.done is not None
    return watch


def test_pictures_equal_the_pipelines(host: Host, bagel: Bagel) -> None:
    watch = finish(host, pictures([], "a cube", QUICK, 2, preview=True))
    assert watch.done is not None
    assert [r.seed for r in watch.done.result] == [5, 6]
    assert watch.previews
    alone = bagel.draw("a cube", QUICK)
    assert alone.image is not None
    assert watch.done.result[0].image.tobytes() == alone.image.tobytes()
    assert "seed 5" in watch.ended([5])


def test_answers_and_turns(host: Host) -> None:
    told = finish(host, answer([], "what?", TextOptions(max_tokens=6)))
    assert told.done is not None
    assert told.texts[0] == told.done.result.text
    first = finish(host, turn(None, Turn(["a cube"], "image", QUICK, TextOptions())))
    assert first.done is not None
    session, result = first.done.result
    before = session.conversation.cond.position
    second = finish(host, turn(session, Turn(["now blue"], "text", QUICK, TextOptions(max_tokens=6))))
    assert second.done is not None
    assert result.image is not None
    assert second.done.result[0].conversation.cond.position > before
    assert session.conversation.cond.position == before


def test_stopping_ends_a_task_at_its_next_event_and_frees_the_next(host: Host) -> None:
    long = dataclasses.replace(QUICK, num_timesteps=5000)
    seen: list[Any] = []
    for batch in host.run(pictures([], "a cube", long, 1, preview=False), "me/draw/"):
        seen += [event for _, event in batch]
        host.stop("me/")
    assert isinstance(seen[-1], Done)
    assert isinstance(seen[-1].error, Stopped)
    done = finish(host, pictures([], "a cube", QUICK, 1, preview=False)).done
    assert done is not None
    assert done.error is None


def test_a_reader_that_goes_away_stops_its_task(host: Host) -> None:
    long = dataclasses.replace(QUICK, num_timesteps=5000)
    events = host.run(pictures([], "a cube", long, 1, preview=False), "gone/draw/")
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert finish(host, answer([], "what?", TextOptions(max_tokens=4))).done is not None


def test_tasks_wait_in_order() -> None:
    gate = threading.Event()
    host = Host(lambda report: object())  # type: ignore[arg-type, return-value]
    host.start()
    first = host.run(lambda model, emit: gate.wait(20), "a/")
    second = host.run(lambda model, emit: 2, "b/")
    assert next(first) == [(0, Waiting(0))]
    assert next(second) == [(0, Waiting(1))]
    gate.set()
    assert [event for batch in second for _, event in batch if isinstance(event, Done)] == [Done(2)]


def test_errors_are_sentences() -> None:
    host = Host(lambda report: (_ for _ in ()).throw(InputError("no such folder.")))  # type: ignore[arg-type]
    host.start()
    watch = finish(host, lambda model, emit: 1)
    assert "No such folder." in watch.ended([])
    assert "memory" in error_box(RuntimeError("CUDA out of memory"), "en")
    assert "KeyError" in error_box(KeyError("x"), "en")
    assert "<b>" not in error_box(InputError("<b>"), "en")
    assert say("stopped", "zh") in error_box(Stopped(), "zh")


def test_the_watch_tells_the_time_left() -> None:
    from bagel.infer.image import ImageStep

    watch = Watch("en", began=time.perf_counter() - 3)
    for update in range(1, 6):
        watch.take(0, ImageStep(update, 10, 0.5, None, (1, 1)))  # type: ignore[arg-type]
        time.sleep(0.01)
    watch.take(0, Preview(Image.new("RGB", (600, 400))))
    assert "update 5 of 10" in watch.status()
    assert "left" in watch.status()
    assert "data:image/jpeg" in (watch.pictures() or "")
    assert watch.pictures() is None
