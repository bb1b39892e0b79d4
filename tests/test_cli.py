"""The command line: what each command prints, writes and refuses. Bad input is one line on stderr, exit 1 (2 for
a wrong call), nothing on stdout and nothing left behind."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import Bagel, lora, lora_files
from bagel.app import cli
from bagel.options import PRESETS, ImageOptions, TextOptions
from conftest import CHECKPOINT, GOLDEN

SMALL = ["--height", "32", "--width", "32", "--num-timesteps", "3", "--seed", "1"]
QUICK = ["--num-timesteps", "3", "--seed", "1"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """An empty folder to stand in, with pictures good and bad and a copy of no model."""
    (tmp_path / "tall.png").write_bytes((GOLDEN / "images" / "tall.png").read_bytes())
    (tmp_path / "zero.png").touch()
    (tmp_path / "cut.png").write_bytes((GOLDEN / "images" / "tall.png").read_bytes()[:200])
    (tmp_path / "words.png").write_text("not a picture")
    (tmp_path / "words.txt").write_text("no picture either")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAGEL_MODEL", str(CHECKPOINT))  # smaller than the embedded one
    return tmp_path


@pytest.fixture
def bagel_cli(desk, capsys, monkeypatch):
    def call(*arguments: str, stdin: str | bytes = "") -> Done:
        content = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        capsys.readouterr()
        try:
            cli.main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def label(value: object) -> str:
    return " ".join(map(str, value))[:30] if isinstance(value, list) else ""


def refused(done: Done, code: int, says: str) -> None:
    assert done.code == code, done
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("bagel: ")
    assert re.search(says, done.err), done.err


BAD_KNOBS = [
    (["--height", "17"], 1, "height is 17; .*multiple of 16"),
    (["--width", "2048"], 1, "width is 2048; .*1024"),
    (["--height", "0"], 1, "height is 0"),
    (["--height", "tall"], 2, "height"),
    (["--height", "32.4"], 2, "height"),
    (["--num-timesteps", "1"], 1, "num_timesteps is 1; .*at least 2"),
    (["--num-timesteps", "2.5"], 2, "num-timesteps"),
    (["--num-timesteps", "1000000"], 1, "at most 10000"),
    (["--cfg-interval", "0.9", "0.1"], 1, r"cfg_interval is \(0.9, 0.1\)"),
    (["--cfg-interval", "-0.5", "1"], 1, r"cfg_interval is \(-0.5, 1\)"),
    (["--cfg-interval", "0", "1.5"], 1, r"cfg_interval is \(0, 1.5\)"),
    (["--cfg-interval", "0.4"], 2, "cfg-interval"),
    (["--cfg-renorm-type", "local"], 1, "'local'; use one of global, channel, text_channel"),
    (["--cfg-renorm-min", "2"], 1, "cfg_renorm_min is 2.0; .*at most 1"),
    (["--cfg-text-scale", "-1"], 1, "cfg_text_scale is -1.0"),
    (["--cfg-text-scale", "nan"], 1, "cfg_text_scale is nan"),
    (["--cfg-image-scale", "-2"], 1, "cfg_image_scale is -2.0"),
    (["--timestep-shift", "0"], 1, "timestep_shift is 0.0; .*above 0"),
    (["--step-cache", "magic"], 1, "step_cache is 'magic'"),
    (["--seed", "-1"], 1, "seed is -1"),
    (["--seed", str(2**63)], 1, "seed is 9223372036854775808"),
    (["--seed", str(2**63 - 1), "--count", "2"], 1, "seed is 9223372036854775808"),
    (["--temperature", "0"], 1, "temperature is 0.0"),
    (["--max-tokens", "0"], 1, "max_tokens is 0"),
    (["--count", "0"], 1, "count is 0"),
    (["--count", "1.5"], 2, "count"),
    (["--no-such-flag", "3"], 2, "no-such-flag"),
    (["--device", "cuda:63"], 1, "device cuda:63 was asked for"),
    (["--device", "tpu"], 1, "device 'tpu' is unknown"),
    (["--device", "meta"], 1, "device 'meta' is unknown"),
    (["--dtype", "int8"], 1, "dtype 'int8' is unknown"),
    (["--precision", "int3"], 1, "precision 'int3' is unknown"),
    (["-m", "nowhere"], 1, "no model folder nowhere"),
    (["-m", ""], 1, "the model is ''"),
    (["-m", "x" * 5000], 1, "no path of a model folder"),
    (["-m", "org/name"], 1, "bagel download org/name"),
    (["-m", "."], 1, "no llm_config.json"),
]


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--batch"], ["plan", "--context"], ["plan", "--height"], ["plan", "--width"], ["plan", "--tensor"],
        ["export", "run", "out", "--step"], ["data", "check", "data.yaml", "--rows"], ["eval", "world", "--limit"],
    ],
    ids=label,
)  # fmt: skip
def test_no_fraction_is_rounded(bagel_cli, desk, words):
    refused(bagel_cli(*words, "1.5"), 2, words[-1])


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("flags", "code", "says"), BAD_KNOBS, ids=lambda x: " ".join(x)[:30] if type(x) is list else ""
)
def test_bad_knobs(bagel_cli, desk, flags, code, says, as_json):
    before = names(desk)
    done = bagel_cli("draw", "a cube", "-o", "new/q.png", *flags, *(["--json"] if as_json else []))
    refused(done, code, says)
    assert names(desk) == before


BAD_CALLS = [
    (["draw", ""], 1, "prompt is empty"),
    (["draw", "  "], 1, "prompt is empty"),
    (["draw", "-"], 1, "prompt is empty"),
    (["draw", "a\udcffb"], 1, "no valid Unicode"),
    (["draw"], 2, "prompt"),
    (["draw", "one", "two"], 2, "two"),
    (["draw", "-x"], 2, "unknown option: -x"),
    (["draw", "a", "-o", "q"], 1, "no picture suffix"),
    (["draw", "a", "-o", "q.gif"], 1, "no picture suffix"),
    (["draw", "a", "-o", ""], 1, "no picture suffix"),
    (["draw", "a", "-o", "zero.png/q.png"], 1, "zero.png cannot be written to"),
    (["draw", "a", "-o", "zero.png/new/q.png"], 1, "zero.png/new cannot be written to"),
    (["draw", "a", "-o", "/proc/q.png"], 1, "/proc cannot be written to"),
    (["edit"], 2, "edit needs a picture"),
    (["edit", "tall.png"], 2, "edit needs a picture"),
    (["edit", "tall.png", "tall.png"], 2, "is a picture; the instruction comes after"),
    (["edit", "tall.png", ""], 1, "prompt is empty"),
    (["edit", "nowhere.png", "x"], 1, "nowhere.png'?: No such file"),
    (["edit", "zero.png", "x"], 1, r"zero.png is empty \(0 bytes\)"),
    (["edit", "cut.png", "x"], 1, "cut.png is damaged"),
    (["edit", "words.png", "x"], 1, "words.png is not a picture"),
    (["chat", "words.txt", "what?"], 1, "words.txt is not a picture"),
    (["edit", "words.txt", "x"], 1, "words.txt is not a picture"),
    (["edit", "tall.png", "words.txt"], 2, "is a picture; the instruction comes after"),
    (["draw", "a", "--lora", "nowhere"], 1, "nowhere is no adapter folder"),
    (["draw", "a", "--lora", "nowhere=much"], 1, "'much'; it must be a number"),
    (["chat", "hi", "-m", "words.txt"], 1, "words.txt is no model folder, nor a file of weights"),
    (["export", "nowhere", "out"], 1, "nowhere"),
    (["edit", ".", "x"], 1, "directory"),
    (["edit", "a\0.png", "x"], 1, "null byte"),
    (["chat"], 2, "chat needs a question"),
    (["chat", ""], 1, "prompt is empty"),
    (["chat", "nowhere.png", "what?"], 1, "nowhere.png"),
    (["chat", "hi", "--max-tokens", "99999"], 1, "max_tokens is 99999, .* only 32,7"),
    (["chat", "word " * 20000], 1, "context would need"),
    (["chat", "hi", "--height", "32"], 2, "--height"),
    (["run", "nowhere.json"], 1, "no script 'nowhere.json'"),
    (["run", "."], 1, "cannot be read"),
    (["demo", "-o", "zero.png"], 1, "zero.png cannot be written to"),
    (["info", "-m", "nowhere"], 1, "no model folder"),
    (["nonsense"], 2, "nonsense"),
]


@pytest.mark.parametrize(
    ("words", "code", "says"), BAD_CALLS, ids=lambda x: " ".join(x)[:30] if type(x) is list else ""
)
def test_bad_calls(bagel_cli, desk, words, code, says):
    before = names(desk)
    refused(bagel_cli(*words), code, says)
    assert names(desk) == before


def test_decompression_bomb_is_refused_before_it_unpacks(bagel_cli, desk):
    Image.new("1", (12_000, 12_000)).save("bomb.png")
    assert Path("bomb.png").stat().st_size < 30_000
    refused(bagel_cli("edit", "bomb.png", "x"), 1, "12000 x 12000 pixels; at most 128 million")


def test_bad_model_folders(bagel_cli, desk):
    broken = desk / "broken"
    for damage in ("truncated", "no tokenizer", "no weights"):
        broken.mkdir(exist_ok=True)
        for path in CHECKPOINT.iterdir():
            (broken / path.name).write_bytes(path.read_bytes())
        if damage == "truncated":
            (broken / "ema.safetensors").write_bytes((CHECKPOINT / "ema.safetensors").read_bytes()[:5000])
        elif damage == "no weights":
            (broken / "ema.safetensors").unlink()
        else:
            for name in ("tokenizer.json", "vocab.json"):
                (broken / name).unlink()
        says = {"no tokenizer": "no tokenizer", "truncated": "truncated", "no weights": "no weights"}[damage]
        refused(bagel_cli("draw", "a", "-m", "broken", "-o", "q.png"), 1, says)
        assert not Path("q.png").exists()


# --- what works ------------------------------------------------------------------------------------------


def test_draw_says_where_the_picture_is_and_the_picture_tells_its_settings(bagel_cli, desk):
    done = bagel_cli("draw", "一只 cat", *SMALL, "-o", "new/deep/cat.png")
    assert (done.code, done.out) == (0, "new/deep/cat.png\n")
    with Image.open("new/deep/cat.png") as image:
        assert image.size == (32, 32)
        settings = json.loads(image.text["bagel"])
    assert settings["prompt"] == "一只 cat"
    assert settings["seed"] == 1
    assert settings["num_timesteps"] == 3


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp", "图片.png"])
def test_formats(bagel_cli, desk, name):
    assert bagel_cli("draw", "a cube", *SMALL, "-o", name).out == f"{name}\n"
    with Image.open(name) as image:
        assert image.format == {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "png": "PNG"}[name.split(".")[1].lower()]


def test_json_is_one_object_and_nothing_else(bagel_cli, desk):
    done = bagel_cli("draw", "a cube", *SMALL, "--think", "--max-tokens", "4", "--json", "-o", "q.png")
    found = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert found["path"] == "q.png"
    assert found["seed"] == 1
    assert len(found["token_ids"]) == 4
    assert found["stats"]["updates"] == 2
    found = json.loads(bagel_cli("edit", "tall.png", "tall.png", "join", *QUICK, "--json", "-o", "e.png").out)
    assert found["path"] == "e.png"
    found = json.loads(bagel_cli("chat", "tall.png", "what?", "--max-tokens", "4", "--json").out)
    assert found["text"]
    found = json.loads(bagel_cli("info", "--json").out)
    assert found["folder"] == str(CHECKPOINT)
    assert found["parameters"]["all"] > 1e6


def test_json_on_a_stdout_without_unicode(desk):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "bagel.app.cli", "chat", "天空", "--max-tokens", "6"]
    plain = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
    assert plain.returncode == 0, plain.stderr
    done = subprocess.run([*command, "--json"], capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.decode("ascii"))["token_ids"]) <= 6


def test_count_makes_a_batch_with_seeds_one_apart(bagel_cli, desk):
    done = bagel_cli("draw", "a cube", *SMALL, "--count", "2", "--json", "-o", "n.png")
    assert [picture["seed"] for picture in json.loads(done.out)["pictures"]] == [1, 2]
    bagel_cli("draw", "a cube", *SMALL, "-o", "alone.png")
    first, second, alone = (np.array(Image.open(name)).astype(int) for name in ("n-1.png", "n-2.png", "alone.png"))
    assert np.abs(first - alone).max() <= 1
    assert np.abs(second - alone).max() > 1
    assert not Path("n.png").exists()


def test_stdin(bagel_cli, desk):
    assert bagel_cli("draw", "-", *SMALL, "-o", "a.png", stdin=" a cube\n").code == 0
    with Image.open("a.png") as image:
        assert json.loads(image.text["bagel"])["prompt"] == "a cube"
    assert bagel_cli("edit", "tall.png", "-", *QUICK, "-o", "b.png", stdin="tall.png").code == 0
    assert bagel_cli("chat", "tall.png", "-", "--max-tokens", "3", stdin="what?").code == 0
    assert bagel_cli("chat", "-", "--max-tokens", "3", stdin="words.png").code == 0  # text, whatever it looks like
    refused(bagel_cli("draw", "-", "-o", "c.png", stdin=b"\xff\xfe"), 1, "stdin gives is no text")


def test_chat_writes_as_it_comes(bagel_cli):
    whole = json.loads(bagel_cli("chat", "hello", "--max-tokens", "8", "--json").out)["text"]
    done = bagel_cli("chat", "hello", "--max-tokens", "8")
    assert done.out.rstrip("\n").encode() == whole.rstrip("\n").encode()


def test_model_from_the_environment(bagel_cli, desk, monkeypatch):
    monkeypatch.setenv("BAGEL_MODEL", "nowhere")
    refused(bagel_cli("draw", "a", "-o", "q.png"), 1, "no model folder nowhere")
    monkeypatch.setenv("BAGEL_MODEL", str(CHECKPOINT))
    assert json.loads(bagel_cli("info", "--json").out)["folder"] == str(CHECKPOINT)
    assert json.loads(bagel_cli("info", "--json", "-m", "mini").out)["layers"] == "mot"


def test_numbers_by_name(bagel_cli, desk):
    for flags in (["--dtype", "bf16"], ["--precision", "fp16"], ["--dtype", "float32", "--device", "cpu"]):
        assert bagel_cli("draw", "a cube", *SMALL, *flags, "-o", "q.png").code == 0


def test_adapters_by_flag(bagel_cli, desk):
    model = Bagel.load(CHECKPOINT, device="cpu").runtime.checkpoint.model
    lora.attach(model, lora.LoraConfig(rank=2, alpha=4), "ink")
    for adapter in lora.adapters(model, "ink"):
        torch.nn.init.constant_(adapter.B, 0.05)
    lora_files.save(model, desk / "ink", "ink")

    def drawn(*flags):
        assert bagel_cli("draw", "a cube", *SMALL, *flags, "-o", "q.png").code == 0
        return np.array(Image.open("q.png")).astype(int)

    plain, with_ink, half = drawn(), drawn("--lora", "ink"), drawn("--lora", "ink=0.25,ink=0.25")
    assert np.abs(plain - with_ink).max() > 1
    assert np.abs(drawn("--lora", "ink=0.5") - half).max() <= 1
    assert np.abs(half - with_ink).max() > 1


def test_the_embedded_model_as_a_folder(bagel_cli, desk):
    assert bagel_cli("export", "mini", "official").code == 0
    assert bagel_cli("draw", "a cube", *SMALL, "-m", "official", "-o", "q.png").code == 0


def test_a_missing_extra_is_said_before_pictures_are_drawn(bagel_cli, monkeypatch):
    find = importlib.util.find_spec

    def absent(name, *more):
        return None if name == "flip_evaluator" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    refused(bagel_cli("eval", "closeness"), 1, r"needs flip_evaluator: pip install 'bagel-mot\[quality\]'")


# --- files are whole or absent ---------------------------------------------------------------------------


def test_full_disk_leaves_nothing(bagel_cli, desk, monkeypatch):
    def full(self, path, *args, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = names(desk)
    monkeypatch.setattr(Image.Image, "save", full)
    done = bagel_cli("draw", "a cube", *SMALL, "-o", "q.png")
    assert done.code == 1
    assert "No space left on device" in done.err.splitlines()[-1]
    assert names(desk) == before


def test_full_stdout(desk):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "bagel.app.cli", "info"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr


def test_ctrl_c_leaves_no_file(desk):
    command = [sys.executable, "-u", "-m", "bagel.app.cli", "draw", "a cube", "--height", "64", "--width", "64"]
    command += ["--num-timesteps", "10000", "-o", "new/q.png"]
    watched = "import bagel.infer.engine as e; f = e.Engine.forward\n"
    watched += "def g(*a):\n print('at work', flush=True)\n return f(*a)\n"
    watched += "e.Engine.forward = g\nfrom bagel.app.cli import main\nmain()"
    process = subprocess.Popen(
        [sys.executable, "-c", watched, *command[4:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    before = names(desk)
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "bagel: stopped.\n"
    assert time.monotonic() - began < 30
    assert names(desk) == before


@pytest.mark.parametrize(("words", "waits"), [(["info"], True), (["info", "--help"], False), (["--version"], False)])
def test_a_terminal_is_told_of_the_start(desk, words, waits):
    command = [sys.executable, "-m", "bagel", *words]
    for watched in (True, False):
        environment = {**os.environ, "TTY_COMPATIBLE": str(int(watched))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert ("starting" in done.stderr) == (waits and watched)
        assert "starting" not in done.stdout


@pytest.mark.parametrize("module", ["bagel.app.cli", "cyclopts", "torch", "bagel.checkpoint"])
def test_ctrl_c_while_something_is_imported(desk, module):
    """torch alone takes seconds to import."""
    watched = f"""
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
sys.argv = ["bagel", "info"]
from bagel.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130
    assert done.stderr == "bagel: stopped.\n"
    assert done.stdout == ""


def test_out_of_memory_is_one_line(bagel_cli, desk, monkeypatch):
    from bagel.infer.engine import Engine

    def forward(*args):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation.")

    monkeypatch.setattr(Engine, "forward", forward)
    refused(bagel_cli("draw", "a cube", *SMALL, "-o", "q.png"), 1, "ran out of memory .*smaller picture")
    assert not Path("q.png").exists()


def test_training_out_of_memory_says_what_training_can_do(bagel_cli, desk, monkeypatch):
    def run(*args):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("bagel.train.loop.run", run)
    refused(bagel_cli("train", "mine.yaml"), 1, "does not fit into memory .*lower data.expected_num_tokens")


# --- scripts ---------------------------------------------------------------------------------------------

TURNS = [
    {"text": "a story.png"},
    {"image": "tall.png"},
    {"draw": {"seed": 3, "num_timesteps": 3}},
    {"say": {"max_tokens": 4}},
    {"continue": {"parts": ["text", "image"], "max_tokens": 3, "num_timesteps": 3}},
]


def test_run(bagel_cli, desk):
    Path("story.json").write_text(json.dumps(TURNS))
    done = bagel_cli("run", "story.json", "-o", "story")
    assert (done.code, done.out) == (0, "story/transcript.json\n")
    assert names(desk / "story") == {"03.png", "04.txt", "05.txt", "05.png", "transcript.json"}
    transcript = json.loads(Path("story/transcript.json").read_text(encoding="utf-8"))
    assert [turn["turn"] for turn in transcript] == [1, 2, 3, 4, 5]
    assert transcript[2]["pictures"] == ["03.png"]
    with Image.open("story/05.png") as image:
        assert image.size == (64, 96)
    again = bagel_cli("run", "story.json", "-o", "again", "--json")
    assert len(json.loads(again.out)) == 5


BAD_SCRIPTS = [
    ("", "cannot be read as JSON"),
    ("{", "cannot be read as JSON"),
    ("[" * 100_000, "cannot be read as JSON"),
    ("{}", "must be a JSON list"),
    ("[]", "at least one turn"),
    ("[3]", "turn 1: a turn is an object"),
    ('[{"text": "a"}, {"dance": {}}]', "turn 2: a turn is an object"),
    ('[{"text": "a", "draw": {}}]', "turn 1"),
    ('[{"text": 3}]', "turn 1: text must be a string"),
    ('[{"text": " "}]', "turn 1: the prompt is empty"),
    ('[{"image": "nowhere.png"}]', "turn 1: .*nowhere.png"),
    ('[{"image": "zero.png"}]', "turn 1: .*is empty"),
    ('[{"text": "a"}, {"draw": 3}]', "turn 2: draw must be an object"),
    ('[{"text": "a"}, {"draw": {"hight": 32}}]', "turn 2: .*did you mean height"),
    ('[{"text": "a"}, {"draw": {"height": 17}}]', "turn 2: height is 17"),
    ('[{"text": "a"}, {"draw": {"options": {}}}]', "turn 2: there is no option 'options'"),
    ('[{"text": "a"}, {"say": {"max_tokens": "3"}}]', "turn 2: max_tokens is '3'"),
    ('[{"text": "a"}, {"continue": {"parts": 3}}]', "turn 2: the output parts are 3"),
    ('[{"text": "a"}, {"continue": {"parts": ["song"]}}]', "turn 2: .*'song' is unknown"),
    ('[{"text": "a"}, {"continue": {"max_images": -1}}]', "turn 2: max_images is -1"),
    ('[{"text": "a"}, {"continue": {"seed": -1}}]', "turn 2: seed is -1"),
]


@pytest.mark.parametrize(("script", "says"), BAD_SCRIPTS, ids=lambda x: x[:40])
def test_bad_scripts(bagel_cli, desk, script, says):
    Path("bad.json").write_text(script)
    before = names(desk)
    refused(bagel_cli("run", "bad.json", "-o", "story"), 1, says)
    assert names(desk) == before


# --- help ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "options"), [("draw", ImageOptions), ("edit", ImageOptions), ("chat", TextOptions)]
)
def test_help_tells_of_every_field(bagel_cli, command, options):
    text = " ".join(bagel_cli(command, "--help").out.split())
    plain = re.sub(r"[│╭╮╰╯─\s]+", "", text)
    for field in dataclasses.fields(options):
        if field.name == "noise":
            continue
        assert f"--{field.name.replace('_', '-')}" in text, field.name
        assert re.sub(r"\s+", "", field.metadata["help"])[:20] in plain, field.name
        preset = PRESETS[command].get(field.name)
        if preset is not None and not isinstance(preset, (bool, tuple)):
            assert f"Default:{preset}." in plain, field.name
    for flag in ("--model", "--device", "--dtype", "--precision", "--json"):
        assert flag in text


def test_help_lists_the_commands(bagel_cli):
    text = bagel_cli("--help").out
    for command in ("draw", "edit", "chat", "run", "demo", "info", "download"):
        assert command in text
    assert bagel_cli("--version").out.strip()


def test_info_is_a_table(bagel_cli):
    out = bagel_cli("info").out
    assert re.search(r"largest picture +1,024", out)
    assert re.search(r"parameters: all +[\d,]{7,}", out)


def test_demo_makes_a_sheet(bagel_cli, desk, monkeypatch):
    from bagel.app import demo

    monkeypatch.setattr(demo, "OPTIONS", {"num_timesteps": 2, "height": 128, "width": 128, "max_tokens": 4})
    monkeypatch.setattr(demo, "EXERCISES", demo.EXERCISES[:2] + demo.EXERCISES[6:8])
    done = bagel_cli("demo", "-o", "new/out")
    assert (done.code, done.out) == (0, "new/out/sheet.png\n")
    assert "0 of 4 right" in done.err
    with Image.open("new/out/sheet.png") as sheet:
        assert min(sheet.size) > 400
        assert np.array(sheet).std() > 20
    assert len(list(Path("new/out").glob("0*.png"))) == 5
    report = json.loads(Path("new/out/demo.json").read_text())
    assert [line["exercise"].rpartition("/")[0] for line in report["exercises"]] == [e[1] for e in demo.EXERCISES]
    assert all(line["reasons"] for line in report["exercises"])
