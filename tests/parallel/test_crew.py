"""Several processes on the CPU against one, through the whole pipeline."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

import bagel as package
from bagel import Bagel, DeviceError, InputError
from bagel import checkpoint as checkpoints
from bagel.errors import CheckpointError
from bagel.infer.engine import Engine, Read
from bagel.infer.image import ImageStep
from bagel.infer.lead import undisturbed
from bagel.pack import TextPart
from bagel.parallel.crew import Crew
from conftest import CHECKPOINT, error
from make_checkpoint import config, made

PICTURE = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
SMALL = {"height": 64, "width": 64, "num_timesteps": 4}


@contextmanager
def over(parallel: str, count: int, folder: Path = CHECKPOINT, **more) -> Iterator[Bagel]:
    bagel = Bagel.load(folder, device=["cpu"] * count, parallel=parallel, **more)
    try:
        yield bagel
    finally:
        bagel.close()


def outputs(bagel: Bagel):
    """Reading, drawing (alone, with a cache, a batch), thinking and writing, greedy and not."""
    edited = bagel.edit(PICTURE, "make it blue", num_timesteps=3, seed=1)
    drawn = bagel.draw(["a cube", "two cubes"], seed=[1, 2], cfg_interval=(0.0, 1.0), **SMALL)
    cached = bagel.draw("a cube", seed=1, height=64, width=48, num_timesteps=12, step_cache="taylorseer")
    thought = bagel.draw("a cube", seed=1, think=True, max_tokens=5, do_sample=True, **SMALL)
    said = bagel.chat([PICTURE, "what is it?"], max_tokens=6)
    sampled = bagel.chat(["one", "two"], max_tokens=6, do_sample=True, seed=3)
    with bagel.session() as talk:
        talk.read(PICTURE)
        first = talk.draw(num_timesteps=3, seed=1)
        fork = talk.fork()
        fork.read("make it red")
        second = fork.draw(num_timesteps=3, seed=2)
        talk.read("make it green")
        third = talk.draw(num_timesteps=3, seed=2)
    pictures = [edited, *drawn, cached, thought, first, second, third]
    return [picture.latent for picture in pictures], [thought.token_ids, said.token_ids, sampled.token_ids]


@pytest.fixture(scope="module")
def alone():
    return outputs(Bagel.load(CHECKPOINT, device="cpu"))


def assert_same(found, wanted, most=2e-5):
    assert found[1] == wanted[1]
    for one, other in zip(found[0], wanted[0], strict=True):
        assert error(one, other) < most


@pytest.mark.parametrize("parallel", ["branches", "tensor"])
def test_two_processes_equal_one(parallel, alone):
    with over(parallel, 2) as bagel:
        assert_same(outputs(bagel), alone)


def test_rows_are_shared_and_requests_stay_apart(alone):
    """One crew through its life: previews, a drawing given up, passes that fail, parts that end."""
    with over("rows", 2) as bagel:
        assert_same(outputs(bagel), alone)
        wanted = bagel.draw("a cube", seed=5, **SMALL).latent

        events = bagel.stream("a cube", output="image", seed=5, **SMALL)
        steps = [event for event in events if isinstance(event, ImageStep)]
        assert len(steps) == 3
        assert error(steps[-1].latent, wanted) < 1e-6

        given_up = bagel.stream("a cube", output="image", seed=5, **SMALL)
        next(event for event in given_up if isinstance(event, ImageStep))
        given_up.close()
        assert error(bagel.draw("a cube", seed=5, **SMALL).latent, wanted) < 1e-6

        engine = bagel.runtime.engine
        with pytest.raises(IndexError):
            engine.forward([Read(engine.new_context(), TextPart([10**6]))])  # no such token, for any rank
        assert error(bagel.draw("a cube", seed=5, **SMALL).latent, wanted) < 1e-6

        assert len(_children()) == 1
        with pytest.raises(DeviceError, match="close"):
            Bagel.load(CHECKPOINT, device="cpu,cpu", parallel="rows")
        assert len(_children()) == 1
    assert not _children()
    with pytest.raises(DeviceError, match="closed"):
        bagel.draw("a cube", seed=5, **SMALL)


def _children() -> list[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("needs /proc")
    pids = [int(pid) for pid in path.read_text().split()]
    return [pid for pid in pids if b"bagel.infer.helper" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_process_that_dies_is_told(alone):
    with over("tensor", 2) as bagel:
        with pytest.raises(InputError, match="load it whole"):
            bagel.save("nowhere")
        os.kill(_children()[0], signal.SIGKILL)
        with pytest.raises((DeviceError, RuntimeError)):
            bagel.draw("a cube", seed=5, **SMALL)
        for _ in range(200):
            if bagel.runtime.engine.broken:
                break
            time.sleep(0.05)
        with pytest.raises(DeviceError, match="device 1 has ended"):
            bagel.draw("a cube", seed=5, **SMALL)


def test_an_end_that_was_asked_for_is_no_death(monkeypatch):
    """Those that follow may be gone before their leader has said its last word to the end."""
    order = Crew.order

    def slow(crew, what):
        order(crew, what)
        if what is None:
            for thread in threading.enumerate():
                if thread.name.startswith("bagel-watch"):
                    thread.join(60)

    monkeypatch.setattr(Crew, "order", slow)
    with over("rows", 2) as bagel:
        pass
    with pytest.raises(DeviceError, match="the model is closed"):
        bagel.draw("a cube", seed=5, **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["branches=2,tensor=2", "rows=2,tensor=2", "rows", "branches=2,rows=2"])
def test_four_processes_equal_one(parallel, alone):
    with over(parallel, 4) as bagel:
        assert_same(outputs(bagel), alone)


@pytest.mark.slow
def test_four_shares_of_a_layer(tmp_path):
    checkpoints.save(tmp_path, made(config(llm={"num_attention_heads": 8, "num_key_value_heads": 4})))
    wanted = outputs(Bagel.load(tmp_path, device="cpu"))
    with over("tensor", 4, tmp_path) as bagel:
        assert_same(outputs(bagel), wanted, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["und,gen", "und,gen,vit,vae,embed,head"])
def test_shares_are_streamed(offload, alone):
    with over("tensor", 2, offload=offload) as bagel:
        assert_same(outputs(bagel), alone)


@pytest.mark.slow
def test_three_processes_and_few_rows(alone):
    """Runs of rows of different lengths."""
    with over("rows", 3) as bagel:
        assert_same(outputs(bagel), alone)


# --- how it is asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "parallel", "said"),
    [
        ("cpu,cpu,cpu,cpu", "tensor", "2 key heads"),
        ("cpu,cpu", "columns", "unknown"),
        ("cpu,cpu", "branches=3", "3 devices"),
        ("cpu", "columns", "unknown"),
        ("cpu", "rows=2", "for 2 devices, but there are 1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(device, parallel, said):
    with pytest.raises(InputError, match=said):
        Bagel.load(CHECKPOINT, device=device, parallel=parallel)
    assert not _children()


def test_one_device_needs_nobody():
    bagel = Bagel.load(CHECKPOINT, device="cpu", parallel="auto")
    assert type(bagel.runtime.engine) is Engine
    bagel.close()
    assert bagel.draw("a cube", seed=1, **SMALL).image.size == (64, 64)


def test_ctrl_c_waits_for_the_end_of_a_pass():
    done = []

    def work():
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the pass")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the pass"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_layers_stay_in_one_process():
    bagel = Bagel.load(CHECKPOINT, device="cpu,cpu", parallel="layers")
    assert bagel.draw("a cube", seed=1, **SMALL).image.size == (64, 64)


def test_weights_that_do_not_fit_are_said_once(tmp_path):
    checkpoints.save(tmp_path, made(config()))
    (tmp_path / "ema.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"ema\.safetensors"), over("rows", 2, tmp_path):
        pass
    assert not _children()


def _command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    source = str(Path(package.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def _draw(folder: Path, name: str, *words: str) -> Image.Image:
    flags = ["--device", "cpu", "--seed", "1", "--num-timesteps", "3", "--height", "64", "--width", "64"]
    done = _command(*words, "draw", "a cube", "-o", name, *flags, *_gpus(name), cwd=folder)
    assert done.returncode == 0, done.stderr
    return Image.open(folder / name)


def _gpus(name: str) -> list[str]:
    return {"one.png": [], "two.png": ["--gpus", "2"], "run.png": ["--parallel", "tensor"]}[name]


@pytest.mark.slow
def test_the_command_line_and_torchrun(tmp_path):
    one = _draw(tmp_path, "one.png", "-m", "bagel")
    two = _draw(tmp_path, "two.png", "-m", "bagel")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "bagel"]
    three = _draw(tmp_path, "run.png", *run)
    for other in (two, three):
        difference = torch.tensor(list(one.tobytes())).int() - torch.tensor(list(other.tobytes())).int()
        assert difference.abs().max() <= 1
