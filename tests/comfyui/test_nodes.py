"""The ComfyUI node pack against a small stand-in for ComfyUI (`fake`). What runs it in a real one is
`against_comfyui`."""

from __future__ import annotations

import gc
import json
import re
import weakref
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import Bagel, ImageOptions, InputError, TextOptions
from bagel.options import PRESETS
from comfyui.draw_workflow import workflow_picture
from comfyui.fake import PACK, Comfy, ExecutionBlocker, InterruptProcessingException, installed, run
from comfyui.make_files import WORKFLOWS, files, is_widget, workflow_keys
from conftest import CHECKPOINT

SMALL = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def loaded_pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    models = tmp_path_factory.mktemp("models")
    (models / "bagel").mkdir()
    (models / "bagel" / "small").symlink_to(CHECKPOINT, target_is_directory=True)
    (models / "bagel" / "no model").mkdir()
    with installed(models) as comfy:
        yield comfy


@pytest.fixture
def comfy(loaded_pack: Comfy) -> Comfy:
    """With nothing said yet."""
    for said in (loaded_pack.progress, loaded_pack.texts, loaded_pack.freed):
        said.clear()
    loaded_pack.stop_after, loaded_pack.device = None, "cpu"
    return loaded_pack


@pytest.fixture(scope="module")
def model(loaded_pack: Comfy) -> Any:
    return load(loaded_pack)


def call(comfy: Comfy, kind: str, **inputs: Any) -> Any:
    """Runs one node on its defaults but for `inputs`."""
    cls = comfy.nodes[f"BagelMot{kind}"]
    kinds = cls.INPUT_TYPES()
    declared = {**kinds["required"], **kinds.get("optional", {})}
    assert set(inputs) <= set(declared) | {"node"}, kind
    values = {name: one[1]["default"] for name, one in declared.items() if is_widget(one)}
    return getattr(cls(), cls.FUNCTION)(**{**values, **inputs})


def load(comfy: Comfy, **inputs: Any) -> Any:
    return call(comfy, "Load", **{"model": "small", **inputs})[0]


def quick(comfy: Comfy, job: str = "Draw", **knobs: Any) -> Any:
    return call(comfy, f"{job}Knobs", **{"num_timesteps": 4, "max_tokens": 6, **knobs})[0]


def short(comfy: Comfy, **knobs: Any) -> Any:
    return call(comfy, "TextKnobs", **{"max_tokens": 6, **knobs})[0]


def picture(number: int = 0, side: int = 64) -> Image.Image:
    levels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def image_of(*pictures: Image.Image) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(p)).float() / 255 for p in pictures])


def levels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()


# --- what lies in the folder ----------------------------------------------------------------------------------


def test_files_are_fresh(comfy: Comfy) -> None:
    for path, text in files(comfy).items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m comfyui.make_files` in tests"


def test_every_node_and_widget_is_explained(comfy: Comfy) -> None:
    assert set(comfy.nodes) == set(comfy.names)
    for key, cls in comfy.nodes.items():
        assert cls.DESCRIPTION
        assert len(cls.RETURN_TYPES) == len(cls.RETURN_NAMES)
        kinds = cls.INPUT_TYPES()
        for name, declared in {**kinds["required"], **kinds.get("optional", {})}.items():
            assert declared[1]["tooltip"], f"{key}.{name}"


@pytest.mark.parametrize(("kind", "cls", "job"), [("Draw", ImageOptions, "draw"), ("Edit", ImageOptions, "edit")])
def test_every_knob_is_there_at_the_official_value(comfy: Comfy, kind: str, cls: type, job: str) -> None:
    made = call(comfy, f"{kind}Knobs")[0]
    on_the_node = {"height", "width", "seed", "think", "noise"}
    for field in fields(cls):
        wanted = None if field.name in on_the_node else PRESETS[job].get(field.name)
        assert getattr(made, field.name) == wanted, field.name
    widgets = comfy.nodes[f"BagelMot{kind}Knobs"].INPUT_TYPES()["required"]
    wanted = {f.name for f in fields(cls)} - on_the_node - {"cfg_interval"} | {"cfg_interval_from", "cfg_interval_to"}
    assert set(widgets) == wanted


def test_writing_knobs(comfy: Comfy) -> None:
    made = call(comfy, "TextKnobs", do_sample=True)[0]
    assert made == TextOptions(max_tokens=512, do_sample=True, temperature=0.3)


def test_widgets_allow_only_what_the_options_allow(comfy: Comfy, model: Any) -> None:
    """The lowest and the highest value of each widget are taken."""
    widgets = comfy.nodes["BagelMotDrawKnobs"].INPUT_TYPES()["required"]
    for end in ("min", "max"):
        values = {name: shown[end] for name, (kind, shown) in widgets.items() if kind in ("INT", "FLOAT")}
        values |= {"cfg_interval_from": 0.0, "cfg_interval_to": 1.0, "num_timesteps": 2, "max_tokens": 2}
        image, _ = call(comfy, "Draw", model=model, knobs=call(comfy, "DrawKnobs", **values)[0], **SMALL)
        assert image.isfinite().all()


def test_readmes_name_every_node(comfy: Comfy) -> None:
    for page in ("README.md", "README.zh.md"):
        text = (PACK / page).read_text(encoding="utf-8")
        chinese = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
        for key, name in comfy.names.items():
            assert (name if page == "README.md" else chinese[key]["display_name"]) in text, f"{page}: {name}"


# --- pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_goes_through_unchanged(comfy: Comfy, channels: int) -> None:
    """Every level comes back, whatever the device or number type of the IMAGE."""
    module = comfy.nodes["BagelMotDraw"].run.__globals__
    to_image, to_pil = module["to_image"], module["inputs"].to_pil
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, -1, -1, channels)
    images = every.float() / 255
    pictures = to_pil(images)
    assert [p.size for p in pictures] == [(16, 16)] * 2
    assert len(pictures[0].getbands()) == channels
    if channels == 3:
        assert torch.equal(to_image(pictures), images)
        assert to_pil(images.half())[0].tobytes() == pictures[0].tobytes()
    assert to_image(pictures).shape == (2, 16, 16, 3)


def test_what_is_out_of_range_is_cut_off(comfy: Comfy) -> None:
    to_pil = comfy.nodes["BagelMotDraw"].run.__globals__["inputs"].to_pil
    (made,) = to_pil(torch.tensor([-1.0, 0.5, 7.0]).reshape(1, 1, 1, 3))
    assert made.getpixel((0, 0)) == (0, 128, 255)
    with pytest.raises(InputError, match=r"\[2, 3, 3\]"):
        to_pil(torch.zeros(2, 3, 3))


# --- the nodes, each against the pipeline ----------------------------------------------------------------------


def test_draw_is_what_the_pipeline_draws(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    image, thought = call(comfy, "Draw", model=model, prompt="a cat", seed=5, knobs=quick(comfy), **SMALL)
    wanted = bagel.draw("a cat", seed=5, height=64, width=64, num_timesteps=4)
    assert image.dtype == torch.float32
    assert image.shape == (1, 64, 64, 3)
    assert np.array_equal(levels(image)[0], np.asarray(wanted.image))
    assert thought == ""


def test_several_pictures_have_seeds_one_apart(comfy: Comfy, model: Any) -> None:
    knobs = quick(comfy)
    pair, _ = call(comfy, "Draw", model=model, seed=5, count=2, knobs=knobs, **SMALL)
    second, _ = call(comfy, "Draw", model=model, seed=6, knobs=knobs, **SMALL)
    assert pair.shape == (2, 64, 64, 3)
    assert np.abs(levels(pair)[1].astype(int) - levels(second)[0]).max() <= 1


def test_size_and_knobs_left_open_are_the_models_own(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    image, _ = call(comfy, "Draw", model=model, seed=1)
    preset = bagel.config.presets["draw"]
    assert image.shape == (1, preset["height"], preset["width"], 3)


def test_think_gives_the_thought(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    knobs = quick(comfy)
    image, thought = call(
        comfy, "Draw", model=model, prompt="a cat", seed=5, think=True, knobs=knobs, node="9", **SMALL
    )
    wanted = bagel.draw("a cat", seed=5, think=True, height=64, width=64, num_timesteps=4, max_tokens=6)
    assert thought == wanted.text
    assert np.array_equal(levels(image)[0], np.asarray(wanted.image))
    assert comfy.texts[-1] == (wanted.text, "9")
    assert all(wanted.text.startswith(text) and node == "9" for text, node in comfy.texts)


def test_edit_changes_each_picture_of_a_batch(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    pictures, knobs = [picture(1), picture(2)], quick(comfy, "Edit")
    image, _ = call(comfy, "Edit", model=model, image=image_of(*pictures), instruction="blue", seed=5, knobs=knobs)
    wanted = bagel.edit(pictures, ["blue", "blue"], seed=[5, 6], num_timesteps=4)
    assert np.array_equal(levels(image), np.stack([np.asarray(result.image) for result in wanted]))


def test_edit_takes_several_pictures_of_any_size(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    first, second = picture(1), picture(2, 96)
    image, _ = call(
        comfy,
        "Edit",
        model=model,
        image=image_of(first),
        image_2=image_of(second),
        instruction="both",
        seed=5,
        knobs=quick(comfy, "Edit"),
    )
    wanted = bagel.edit([first, second], "both", seed=5, num_timesteps=4)
    assert np.array_equal(levels(image)[0], np.asarray(wanted.image))
    with pytest.raises(InputError, match="a batch has 2 pictures, another 3"):
        call(
            comfy,
            "Edit",
            model=model,
            image=image_of(first, first),
            image_2=image_of(*[second] * 3),
            instruction="both",
        )


def test_ask_answers_each_or_all_together(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    pictures, knobs = [picture(1), picture(2)], short(comfy)
    common = {"model": model, "question": "What?", "seed": 0, "knobs": knobs}
    each = call(comfy, "Ask", image=image_of(*pictures), **common)[0]
    assert each == [bagel.chat([p, "What?"], max_tokens=6).text for p in pictures]
    assert call(comfy, "Ask", image=image_of(*pictures), together=True, **common)[0] == [
        bagel.chat([*pictures, "What?"], max_tokens=6).text
    ]
    assert call(comfy, "Ask", **common)[0] == [bagel.chat(["What?"], max_tokens=6).text]


def test_words_that_look_like_a_picture_are_words(comfy: Comfy, model: Any) -> None:
    (answer,) = call(comfy, "Ask", model=model, question="cat.png", knobs=short(comfy))[0]
    assert isinstance(answer, str)


# --- conversations -----------------------------------------------------------------------------------------------


def test_turns_are_those_of_a_session(comfy: Comfy, model: Any, bagel: Bagel) -> None:
    knobs, given = quick(comfy), picture(3)
    begun = call(comfy, "Talk", model=model)[0]
    read = call(comfy, "TalkRead", conversation=begun, message="a cat", image=image_of(given))[0]
    drawn, image, _ = call(comfy, "TalkDraw", conversation=read, message="at night", seed=3, knobs=knobs)
    said, answer = call(comfy, "TalkSay", conversation=drawn, message="What?", seed=0, knobs=short(comfy))
    _, images, text = call(
        comfy,
        "TalkGoOn",
        conversation=said,
        seed=2,
        parts="text, image",
        image_knobs=knobs,
        text_knobs=short(comfy),
        **SMALL,
    )

    fields_ = {f.name: v for f in fields(knobs) if (v := getattr(knobs, f.name)) is not None}
    with bagel.session() as session:
        session.read(given)
        session.read("a cat")
        session.read("at night")
        first = session.draw(knobs, seed=3)
        session.read("What?")
        second = session.say(max_tokens=6, seed=0)
        third = session.go_on(["text", "image"], **{**fields_, "max_tokens": 6}, seed=2, height=64, width=64)
    assert np.array_equal(levels(image)[0], np.asarray(first.image))
    assert answer == second.text
    assert text == third.text
    assert [levels(one)[0].tolist() for one in images] == [np.asarray(one).tolist() for one in third.images]


def test_turns_branch_and_leave_what_was_before(comfy: Comfy, model: Any) -> None:
    knobs, begun = quick(comfy), call(comfy, "Talk", model=model)[0]
    drawn, _, _ = call(comfy, "TalkDraw", conversation=begun, message="a cat", seed=3, knobs=knobs, **SMALL)
    night = {"conversation": drawn, "message": "night", "seed": 4, "knobs": knobs}
    _, first, _ = call(comfy, "TalkDraw", **night)
    call(comfy, "TalkDraw", **{**night, "message": "snow"})
    _, again, _ = call(comfy, "TalkDraw", **night)
    assert torch.equal(first, again)


def test_a_turn_without_pictures_blocks_what_saves_them(comfy: Comfy, model: Any) -> None:
    begun = call(comfy, "Talk", model=model)[0]
    inputs = {"conversation": begun, "message": "hello", "parts": "text", "text_knobs": short(comfy)}
    _, images, text = call(comfy, "TalkGoOn", **inputs)
    assert [type(one) for one in images] == [ExecutionBlocker]
    assert images[0].message is None
    assert text
    with pytest.raises(InputError, match="nothing to read"):
        call(comfy, "TalkRead", conversation=begun)


def test_a_conversation_outlives_its_models_unloading(comfy: Comfy) -> None:
    model, knobs = load(comfy), quick(comfy)
    begun = call(comfy, "Talk", model=model)[0]
    drawn, _, _ = call(comfy, "TalkDraw", conversation=begun, message="a cat", seed=3, knobs=knobs, **SMALL)
    night = {"conversation": drawn, "message": "night", "seed": 4, "knobs": knobs}
    _, before, _ = call(comfy, "TalkDraw", **night)
    runtime = weakref.ref(model.get().runtime)
    assert call(comfy, "Unload", model=model, after=before)[0] is before
    gc.collect()
    assert runtime() is None, "something holds the weights"
    _, after, _ = call(comfy, "TalkDraw", **night)
    assert torch.equal(before, after)


# --- loading ---------------------------------------------------------------------------------------------------------


def test_models_are_found_in_comfyuis_folder(comfy: Comfy) -> None:
    choices, _ = comfy.nodes["BagelMotLoad"].INPUT_TYPES()["required"]["model"]
    assert choices == ["mini", "small"]
    with pytest.raises(InputError, match="'gone'"):
        load(comfy, model="gone")


def test_a_path_wins_and_settings_reach_the_pipeline(comfy: Comfy) -> None:
    whole, small = load(comfy).get(), load(comfy, model="mini", path=str(CHECKPOINT), precision="int8").get()

    def size(model: Bagel) -> int:
        decoder = model.runtime.checkpoint.model
        return sum(one.nbytes for one in (*decoder.parameters(), *decoder.buffers()))

    assert size(small) < 0.7 * size(whole)


def test_loading_another_model_lets_the_first_go(comfy: Comfy) -> None:
    first = load(comfy)
    runtime = weakref.ref(first.get().runtime)
    load(comfy, model="mini")
    gc.collect()
    assert runtime() is None
    assert first.get().config


def test_comfyui_frees_a_gpu_before_and_is_left_alone_on_the_cpu(comfy: Comfy, monkeypatch: Any) -> None:
    model = load(comfy)
    model.get()
    assert not comfy.freed
    wanted: list[dict[str, Any]] = []
    held = model.get()
    monkeypatch.setattr(Bagel, "load", lambda **settings: wanted.append(settings) or held)
    comfy.device = "cuda:0"
    other = load(comfy)
    assert wanted[0]["device"] == "cuda:0"
    assert "all" in comfy.freed
    comfy.freed.clear()
    other.get()
    assert comfy.freed == ["some"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("a", [("a", 1.0)]),
        (" a : 0.5 ", [("a", 0.5)]),
        ("C:\\ink\nb:2", [("C:\\ink", 1.0), ("b", 2.0)]),
    ],
)
def test_adapters(comfy: Comfy, text: str, wanted: Any) -> None:
    adapters = comfy.nodes["BagelMotLoad"].run.__globals__["adapters"]
    assert adapters(text) == wanted


# --- while it runs --------------------------------------------------------------------------------------------------


def test_progress_counts_every_update_and_shows_pictures(comfy: Comfy, model: Any) -> None:
    knobs = quick(comfy, num_timesteps=9)
    model.get()
    comfy.progress.clear()
    call(comfy, "Draw", model=model, count=2, knobs=knobs, **SMALL)
    values = [(value, total) for value, total, _ in comfy.progress]
    assert values == [(number, 16) for number in range(1, 17)]
    previews = [preview for _, _, preview in comfy.progress if preview]
    assert previews
    for kind, image, side in previews:
        assert kind == "JPEG"
        assert image.size == (64, 64)
        assert side == 512


def test_progress_of_writing_and_loading(comfy: Comfy, model: Any) -> None:
    model.get()
    comfy.progress.clear()
    call(comfy, "Ask", model=model, question="What?", knobs=short(comfy))
    assert [(value, total) for value, total, _ in comfy.progress] == [(1, 6), (2, 6), (3, 6), (4, 6)]
    comfy.progress.clear()
    load(comfy)
    values = [value for value, _, _ in comfy.progress]
    assert values == sorted(values)
    assert values[-1] > comfy.progress[-1][1] / 2 > 1e6


@pytest.mark.parametrize("kind", ["Draw", "Ask", "TalkDraw", "TalkSay", "Load"])
def test_cancel_stops_at_the_next_step(comfy: Comfy, kind: str) -> None:
    model = load(comfy)
    inputs: dict[str, Any] = {
        "Draw": {"model": model, "knobs": quick(comfy, num_timesteps=1000), **SMALL},
        "Ask": {"model": model, "knobs": short(comfy, max_tokens=1000)},
        "TalkDraw": {"message": "a cat", "knobs": quick(comfy, num_timesteps=1000), **SMALL},
        "TalkSay": {"message": "a cat", "knobs": short(comfy, max_tokens=1000)},
        "Load": {"model": "small"},
    }[kind]
    if kind.startswith("Talk"):
        inputs["conversation"] = call(comfy, "Talk", model=model)[0]
    comfy.progress.clear()
    comfy.stop_after = 3
    with pytest.raises(InterruptProcessingException):
        call(comfy, kind, **inputs)
    assert len(comfy.progress) == 3
    image, _ = call(comfy, "Draw", model=model, knobs=quick(comfy), **SMALL)
    assert image.shape == (1, 64, 64, 3)


def test_errors_are_the_pipelines_sentences(comfy: Comfy, model: Any) -> None:
    with pytest.raises(InputError, match=re.escape("the prompt is empty")):
        call(comfy, "Draw", model=model, prompt=" ")
    with pytest.raises(InputError, match="Draw a smaller picture"):
        call(comfy, "Draw", model=model, width=4096)


# --- the examples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(WORKFLOWS))
def test_examples_run(comfy: Comfy, name: str) -> None:
    prompt = json.loads((PACK / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in prompt.values():
        if "num_timesteps" in node["inputs"]:
            node["inputs"].update(num_timesteps=4, max_tokens=6)
    keys = workflow_keys(name)
    done = run(comfy, prompt)
    for key, number in keys.items():
        if prompt[number]["class_type"] == "SaveImage":
            ((image,),) = done[number]
            assert image.ndim == 4, key
            assert image.std() > 0, key
        if prompt[number]["class_type"] == "PreviewAny":
            assert isinstance(done[number][0][0], str), key


def test_the_pages_workflow_is_the_apis(comfy: Comfy) -> None:
    """Links lead from outputs to inputs of one type, and widgets stand in their order."""
    for name in WORKFLOWS:
        page = json.loads((PACK / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
        api = json.loads((PACK / "api" / f"{name}.json").read_text(encoding="utf-8"))
        nodes = {node["id"]: node for node in page["nodes"]}
        for link, source, slot, target, place, kind in page["links"]:
            given = nodes[target]["inputs"][place]
            assert given["link"] == link
            assert kind == given["type"]
            assert link in nodes[source]["outputs"][slot]["links"]
            assert api[str(target)]["inputs"][given["name"]] == [str(source), slot]
            assert (
                "*" in (kind, nodes[source]["outputs"][slot]["type"]) or kind == nodes[source]["outputs"][slot]["type"]
            )
        for number, node in nodes.items():
            values = [value for value in api[str(number)]["inputs"].values() if not isinstance(value, list)]
            shown = list(node["widgets_values"])
            if "fixed" in shown:
                shown.remove("fixed")
            assert shown == values


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in Path(PACK).rglob("*") if path.is_file()) < 500_000


@pytest.mark.slow
def test_the_workflow_is_drawn_with_its_results(tmp_path: Path) -> None:
    workflow_picture(str(CHECKPOINT), tmp_path / "workflow.png")
    assert (tmp_path / "workflow.png").stat().st_size < 300_000
    with Image.open(tmp_path / "workflow.png") as drawn:
        assert drawn.width > 1000
        assert len(set(drawn.convert("RGB").crop((900, 100, 1130, 320)).tobytes())) > 50  # the picture made
