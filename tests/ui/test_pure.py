"""The page without a browser and without Gradio: knobs, words, history, what the model is asked for."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import io
import json
import string
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bagel import Bagel, ImageOptions, InputError, TextOptions
from bagel.app.previews import Preview
from bagel.app.show import settings_of
from bagel.app.ui import knobs
from bagel.app.ui.errors_zh import ROOMS, SENTENCES, in_chinese
from bagel.app.ui.examples import example_pictures, examples
from bagel.app.ui.history import History, settings_in
from bagel.app.ui.host import Done, Host, Loading, Stopped
from bagel.app.ui.knob_texts import CHINESE, KNOB_NAMES, PRESET_NAMES
from bagel.app.ui.talks import Line, Shelf, Talk, lines_of, told
from bagel.app.ui.texts import LANGUAGES, TEXTS, TellError, language_of, parted, say, seconds
from bagel.app.ui.watch import Watch, error_box
from bagel.app.ui.work import Said, Turn, answer, pictures, turn
from bagel.app.worker import Queued
from bagel.infer.engine import Engine
from bagel.infer.image import ImageStep
from bagel.infer.inputs import Text
from bagel.infer.scheduler import Limits
from bagel.mini.sizes import MINI
from bagel.options import settle

JOBS = ("draw", "edit", "chat", "talk")
QUICK = settle(ImageOptions(height=64, width=64, num_timesteps=4, seed=5), "draw", {})
LONG = dataclasses.replace(QUICK, num_timesteps=5000)
SHORT = settle(TextOptions(max_tokens=6), "chat", {})
SOURCE = Path(__file__).parents[2] / "src" / "bagel"


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
    assert knobs.preset_of("draw", {"draw": {"num_timesteps": 9}}, "fine")["num_timesteps"] == 18


def test_presets_of_the_page_are_measured_by_the_jobs_own() -> None:
    drawing = {"num_timesteps": 25, "cfg_text_scale": 3.0}
    small: Any = {"draw": drawing, "edit": drawing, "chat": {"max_tokens": 96}}

    def found(job: str, variant: str, name: str) -> list[Any]:
        return [knobs.preset_of(job, presets, variant)[name] for presets in ({}, small)]

    assert found("draw", "quick", "num_timesteps") == [25, 25]
    assert found("draw", "fine", "num_timesteps") == [100, 50]
    assert found("draw", "literal", "cfg_text_scale") == [6.0, 4.5]
    assert found("talk", "quick", "num_timesteps") == [25, 12]
    assert found("chat", "thoughtful", "max_tokens") == [2048, 384]
    assert knobs.variants_of("edit", {}) == list(knobs.VARIANTS["edit"])
    blurred = {"edit": {"cfg_renorm_type": "global"}}
    assert "clear" not in knobs.variants_of("edit", blurred)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Two.", ("", "Two.")),
        ("<think>\nI count.\n</think>\nTwo.", ("I count.", "Two.")),
        ("<think>\nI cou", ("I cou", "")),
        ("<|vision_start|><|vision_start|>", ("", "")),
        ("I say </think>", ("", "I say </think>")),
    ],
)
def test_what_a_model_writes_is_shown_without_marks(text: str, shown: tuple[str, str]) -> None:
    assert parted(text) == shown
    thought = text.startswith("<think>")
    said = Line(text, own=True, thought=thought).message("Thought")["content"]
    assert said == (shown[0 if thought else 1] or "…")
    assert Line(text).message("Thought")["content"] == text


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
    (tmp_path / "deep.png").write_bytes(png_with("[" * 90_000))
    assert settings_in(tmp_path / "deep.png") is None


def png_with(text: str) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_itxt("bagel", text)
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


@pytest.mark.parametrize("wrong", [{"num_timesteps": "many"}, {"cfg_interval": [1, 0]}, {"seed": -1}])
def test_settings_that_no_option_has_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        knobs.restored({"job": "draw", **wrong}, {})


def test_inputs_are_kept_once_and_found_by_their_names(tmp_path: Path) -> None:
    history = History(tmp_path)
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    paths = [history.keep_input(image) for image in (red, blue, red)]
    assert paths[0] == paths[2] != paths[1]
    assert history.newest() == [], "they are not among the pictures made"
    assert history.find(history.name_of(paths[0])) == paths[0]
    assert Image.open(paths[0]).tobytes() == red.tobytes()
    (tmp_path.parent / "secret.png").write_bytes(paths[0].read_bytes())
    for wrong in ("../secret.png", str(paths[0]), "inputs/../../secret.png", "inputs/none.png", "..", "", None, 5):
        assert history.find(wrong) is None


def test_visitors_of_an_open_page_see_their_own(tmp_path: Path) -> None:
    history = History(tmp_path, shared=False)
    mine = history.keep(Image.new("RGB", (8, 8)), {"job": "draw"}, "ann")
    name = history.name_of(history.keep_input(Image.new("RGB", (9, 9)), "ann"))
    assert history.newest("ann") == [mine]
    assert history.newest("bob") == []
    assert history.find(name, "ann")
    assert history.find(name, "bob") is None
    history.leave("ann")
    assert history.newest("ann") == []
    assert mine.exists()


@pytest.mark.parametrize("shared", [True, False])
def test_nothing_else_of_the_folder_is_served(tmp_path: Path, shared: bool) -> None:
    history = History(tmp_path, shared=shared)
    made = history.keep(Image.new("RGB", (8, 8)), {"job": "draw"})
    kept = history.keep_input(Image.new("RGB", (8, 8)))
    for name in ("keys.txt", ".hidden.png", "holiday.png", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    served = {path for path in tmp_path.rglob("*") if path.is_file() and history.may_serve(str(path))}
    assert served == {made, kept, *([tmp_path / "holiday.png"] if shared else [])}
    assert not history.may_serve(f"{tmp_path}/inputs/../keys.txt")
    assert history.may_serve("/elsewhere/keys.txt"), "which Gradio refuses by itself"


def test_a_conversation_comes_back_from_its_settings(tmp_path: Path) -> None:
    history = History(tmp_path)
    path = str(history.keep_input(Image.new("RGB", (8, 8))))
    lines = [Line(picture=path), Line("变绿"), Line("as you wish", own=True)]
    entries = json.loads(json.dumps(told(lines, history.name_of)))
    assert lines_of(entries, history.find) == lines
    assert lines_of([{"picture": "inputs/gone.png"}], history.find) is None
    for wrong in (None, "x", [5], [{}], [{"text": 5}], [{"text": "a", "picture": entries[0]["picture"]}]):
        assert lines_of(wrong, history.find) is None


def test_examples_have_pictures(bagel: Bagel) -> None:
    for job in ("draw", "edit", "chat"):
        for example in examples(job, bagel.config):
            assert len({example.wording(language) for language in LANGUAGES}) == len(LANGUAGES)
    rule = dataclasses.replace(MINI.images.vae, max_size=512)
    large = dataclasses.replace(MINI, max_latent_size=32, images=dataclasses.replace(MINI.images, vae=rule))
    for config, numbers in ((large, [1, 1, 2]), (MINI, [1, 1, 1, 1])):
        assert [len(example_pictures(example)) for example in examples("edit", config)] == numbers
    (shown,) = example_pictures(examples("chat", MINI)[0])
    assert shown.size == (128, 128)


# --- the model's thread ------------------------------------------------------------------------------------


@pytest.fixture
def make_host(bagel: Bagel) -> Iterator[Callable[..., Host]]:
    """Makes hosts, each with an engine of its own."""
    hosts: list[Host] = []

    def make(**limits: int) -> Host:
        engine = Engine(bagel.runtime.checkpoint.model, bagel.runtime.engine.rules)
        own = Bagel(dataclasses.replace(bagel.runtime, engine=engine))
        hosts.append(Host(lambda report: own, Limits(**limits)))
        hosts[-1].start()
        end = time.monotonic() + 20
        while hosts[-1].worker is None and time.monotonic() < end:
            time.sleep(0.01)
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


async def follow(host: Host, work: Any, owner: str = "me/draw/", count: int = 1) -> Watch:
    watch = Watch("en", count)
    async for batch in host.run(work, owner):
        for index, event in batch:
            watch.take(index, event)
        watch.status()
    assert watch.done is not None
    return watch


def finish(host: Host, work: Any, count: int = 1) -> Watch:
    return asyncio.run(follow(host, work, count=count))


def results(watch: Watch) -> list[Any]:
    assert watch.done is not None
    if watch.done.error:
        raise watch.done.error
    return list(watch.done.results)


def assert_same(found: Any, wanted: Any) -> None:
    """Up to the rounding of a level: sums of a larger pass are in another order."""
    assert np.abs(np.array(found).astype(int) - np.array(wanted)).max() <= 1


def test_pictures_equal_the_pipelines(make_host: Callable[..., Host], bagel: Bagel) -> None:
    watch = finish(make_host(), pictures([], "a cube", dataclasses.replace(QUICK, num_timesteps=40), 2, True), 2)
    found = results(watch)
    assert [r.seed for r in found] == [5, 6]
    assert watch.previews
    for result in found:
        assert_same(result.image, bagel.draw("a cube", QUICK, seed=result.seed, num_timesteps=40).image)
    assert "seed 5" in watch.ended([5])


def test_visitors_share_the_passes_and_get_their_own(make_host: Callable[..., Host], bagel: Bagel) -> None:
    host = make_host()
    picture = Image.new("RGB", (64, 48), (200, 30, 30))
    writing = dataclasses.replace(SHORT, max_tokens=40)
    edited = settle(ImageOptions(num_timesteps=30, seed=9), "edit", {})

    async def both() -> list[Watch]:
        one = pictures([], "a cube", dataclasses.replace(QUICK, num_timesteps=30), 1, False)
        two, three = pictures([picture], "make it blue", edited, 1, False), answer([picture], "what?", writing)
        return await asyncio.gather(follow(host, one, "a/"), follow(host, two, "b/"), follow(host, three, "c/"))

    drawn, changed, told = (results(watch)[0] for watch in asyncio.run(both()))
    assert_same(drawn.image, bagel.draw("a cube", QUICK, num_timesteps=30).image)
    assert_same(changed.image, bagel.edit(picture, "make it blue", edited).image)
    assert told.text == bagel.chat([picture, Text("what?")], writing).text
    assert host.worker is not None
    metrics = host.worker.scheduler.metrics
    assert metrics.occupancy > 1.5 * sum(metrics.passes.values()), "they were to run side by side"


def test_answers_come_as_they_are_written(make_host: Callable[..., Host]) -> None:
    host = make_host()
    watch = finish(host, answer([], "what?", SHORT))
    assert watch.said() == [results(watch)[0].text]
    thinking = dataclasses.replace(QUICK, think=True, max_tokens=5)
    thought = finish(host, pictures([], "a cube", thinking, 1, False))
    assert thought.thoughts[0] == results(thought)[0].text


def test_a_turn_goes_on_and_leaves_what_was_before(make_host: Callable[..., Host], bagel: Bagel) -> None:
    host = make_host()
    first = finish(host, turn(None, [], Turn(["a cube"], "image", QUICK, TextOptions())))
    conversation, result = results(first)[0]
    assert first.said() == [result.image]
    before = conversation.cond.position
    asked = Turn(["now blue"], "text", QUICK, SHORT)
    after, answered = results(finish(host, turn(conversation, [], asked)))[0]
    assert after.cond.position > before == conversation.cond.position
    past = [Said(Text("a cube")), Said(result.image, own=True)]
    again, reread = results(finish(host, turn(None, past, asked)))[0]
    assert reread.text == answered.text
    assert again.cond.position == after.cond.position
    with bagel.session() as session:
        session.read(Text("a cube"))
        drawn = session.draw(QUICK).image
        session.read(Text("now blue"))
        assert session.say(SHORT).text == answered.text
    assert_same(result.image, drawn)


def test_a_reply_of_both_keeps_its_order(make_host: Callable[..., Host]) -> None:
    watch = finish(make_host(), turn(None, [], Turn(["a cube"], "both", QUICK, SHORT)))
    _, result = results(watch)[0]
    said = watch.said()
    assert [part for part in said if isinstance(part, Image.Image)] == result.images
    assert "\n".join(part for part in said if isinstance(part, str)) == (result.text or "")


def test_stopping_frees_the_model_at_once(make_host: Callable[..., Host]) -> None:
    host = make_host(active=1)

    async def stopped() -> list[Any]:
        seen: list[Any] = []
        async for batch in host.run(pictures([], "a cube", LONG, 1, preview=False), "me/draw/"):
            seen += [event for _, event in batch]
            if any(isinstance(event, ImageStep) for event in seen):
                host.stop("me/")
        return seen

    seen = asyncio.run(stopped())
    assert isinstance(seen[-1], Done)
    assert isinstance(seen[-1].error, Stopped)
    assert host.worker is not None
    assert host.worker.scheduler.metrics.ended["cancelled"] == 1
    assert not host.worker.scheduler.busy
    results(finish(host, pictures([], "a cube", QUICK, 1, preview=False)))


def test_a_reader_that_goes_away_stops_its_task(make_host: Callable[..., Host]) -> None:
    host = make_host(active=1)

    async def leave() -> Watch:
        events = host.run(pictures([], "a cube", LONG, 1, preview=False), "gone/draw/")
        await anext(events)
        await events.aclose()
        return await follow(host, answer([], "what?", SHORT))

    results(asyncio.run(leave()))
    assert host.worker is not None
    assert host.worker.scheduler.metrics.ended["cancelled"] == 1


def test_those_who_wait_are_told_their_place(make_host: Callable[..., Host]) -> None:
    host = make_host(active=1)

    async def three() -> list[int]:
        first = asyncio.create_task(follow(host, pictures([], "a cube", LONG, 1, False), "a/"))
        second = asyncio.create_task(follow(host, pictures([], "a cube", LONG, 1, False), "b/"))
        await asyncio.sleep(0.1)
        places: list[int] = []
        async for batch in host.run(answer([], "what?", SHORT), "c/"):
            places += [event.ahead for _, event in batch if isinstance(event, Queued)]
            if places[-1:] == [1]:
                host.stop("a/")
            elif places[-2:] == [1, 0]:
                host.stop("b/")
        await asyncio.gather(first, second)
        return places

    assert asyncio.run(three())[-2:] == [1, 0]


def test_tasks_wait_for_the_model_and_can_be_taken_back(bagel: Bagel) -> None:
    gate = threading.Event()
    host = Host(lambda report: (gate.wait(20), bagel)[1])
    host.start()

    async def waiting() -> None:
        back = host.run(answer([], "what?", SHORT), "a/")
        assert await anext(back) == [(0, Loading())]
        host.stop("a/")
        assert [e for batch in [b async for b in back] for _, e in batch if isinstance(e, Done) and e.error]
        other = host.run(answer([], "what?", SHORT), "b/")
        assert await anext(other) == [(0, Loading())]
        gate.set()
        *_, last = [batch async for batch in other]
        assert last[-1][1].results[0].text

    asyncio.run(waiting())
    host.close()


def test_a_full_queue_and_a_model_that_is_not_there_are_told(make_host: Callable[..., Host]) -> None:
    refused = finish(make_host(active=1, queue=0), pictures([], "a cube", QUICK, 2, False))
    assert "try again later" in refused.ended([])
    host = Host(lambda report: (_ for _ in ()).throw(InputError("no such folder.")))  # type: ignore[arg-type]
    host.start()
    assert "No such folder." in finish(host, answer([], "what?", SHORT)).ended([])


def test_the_shelf_lets_the_longest_unused_go(bagel: Bagel, make_host: Callable[..., Host]) -> None:
    host = make_host()
    said = [results(finish(host, turn(None, [], Turn(["hello"], "text", QUICK, SHORT))))[0][0] for _ in range(3)]
    shelf = Shelf(lambda: 2 * said[0].cond.length)
    talks = [Talk() for _ in said]
    for talk, conversation in zip(talks, said, strict=True):
        shelf.put(talk.key, "ann", conversation)
        shelf.take(talks[0].key)
    assert [shelf.take(talk.key) is not None for talk in talks] == [True, False, True]
    shelf.leave("ann")
    assert shelf.take(talks[0].key) is None


# --- words -------------------------------------------------------------------------------------------------


def test_errors_are_sentences() -> None:
    assert "memory" in error_box(RuntimeError("CUDA out of memory"), "en")
    assert "KeyError" in error_box(KeyError("x"), "en")
    assert "<b>" not in error_box(InputError("<b>"), "en")
    assert say("stopped", "zh") in error_box(Stopped(), "zh")


def sentences_in(path: Path) -> Iterator[str]:
    """What the errors of a module say, {} for each value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(getattr(node, "func", None), "id", "")
        if isinstance(node, ast.Call) and name in ("InputError", "BusyError", "StoppingError", "MemoryPlanError"):
            yield template(node.args[0])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "text":
            yield template(node.value)


def template(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def test_every_sentence_is_there_in_chinese() -> None:
    said = {text for room in ROOMS for text in sentences_in(SOURCE / room) if text.endswith((".", "}"))}
    assert len(said) > 30
    assert said - set(SENTENCES) == set()
    assert set(SENTENCES) - said == set(), "nobody says these any more"
    for english, chinese in SENTENCES.items():
        values = [f"v{i}" for i in range(english.count("{}"))]
        told = in_chinese(english.format(*values))
        assert told == chinese.format(*values), english
        assert all(value in told for value in values), english


def test_errors_in_chinese() -> None:
    with pytest.raises(InputError) as caught:
        settle(ImageOptions(num_timesteps=1), "draw", {})
    assert "步数是 1，至少应为 2。" in error_box(caught.value, "zh")
    with pytest.raises(InputError) as caught:
        settle(TextOptions(max_tokens=1.5), "chat", {})  # type: ignore[arg-type]
    assert "应为整数。" in error_box(caught.value, "zh")
    assert "请先放一张" in error_box(TellError(say("no.picture", "zh")), "zh")
    assert "出错了：odd." in error_box(InputError("odd."), "zh")


def test_the_watch_tells_the_time_left() -> None:
    watch = Watch("en", began=time.perf_counter() - 3)
    for update in range(1, 6):
        watch.take(0, ImageStep(update, 10, 0.5, None, (1, 1)))  # type: ignore[arg-type]
        time.sleep(0.1)
    watch.take(0, Preview(Image.new("RGB", (600, 400))))
    assert "update 5 of 10" in watch.status()
    assert "left" in watch.status()
    assert "data:image/jpeg" in (watch.pictures() or "")
    assert watch.pictures() is None


def test_the_bar_is_that_of_all_pictures() -> None:
    watch = Watch("en", count=2)
    watch.take(0, ImageStep(10, 10, 0.5, None, (1, 1)))  # type: ignore[arg-type]
    assert "width:50.0%" in watch.status()
    watch.take(1, ImageStep(2, 10, 0.5, None, (1, 1)))  # type: ignore[arg-type]
    assert "width:60.0%" in watch.status()
    assert "update 2 of 10" in watch.status()
