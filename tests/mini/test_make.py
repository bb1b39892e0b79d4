"""The making within a set time: what it does when a training goes wrong, and all of it at toy size, killed once."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bagel import Bagel
from bagel.errors import InputError
from bagel.mini import detached
from bagel.mini.make import collect, driver, status
from bagel.mini.make.carry import pack_pieces, unpack
from bagel.mini.make.plan import Plan, read_plan
from bagel.mini.make.state import State
from bagel.train import config as configs

from .toy import start_folder

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "mini" / "make.yaml"
TRAINING = """
import json, sys, time
from pathlib import Path
given = dict(word.split("=", 1) for word in sys.argv[3:])
run = Path(given["run"])
run.mkdir(exist_ok=True)
starts = run / "starts.txt"
with starts.open("a") as file:
    file.write(json.dumps(given) + "\\n")
number = len(starts.read_text().splitlines())
if number == 1:
    time.sleep(60)  # compiles
with (run / "log.jsonl").open("a") as log:
    log.write(json.dumps({"step": number, "lr": 0.008}) + "\\n")
if number in (2, 3):
    (run / f"bad-batch-step-{number}.json").write_text("{}")
    sys.exit("no number")
if number == 4:
    time.sleep(60)  # hangs
"""


def plan_for(work: Path, **changes: object) -> Plan:
    return replace(read_plan(CONFIG, [f"work={work}", "minutes=60"]), **changes)  # type: ignore[arg-type]


def test_plans(tmp_path: Path) -> None:
    plan = read_plan(CONFIG, [f"work={tmp_path}", "limit=3", "train", "optim.lr=1e-3", "steps=9"])
    assert (plan.limit, plan.overrides, plan.begins_from_weights) == (3, ("optim.lr=1e-3", "steps=9"), False)
    for words, goes_on in (
        ([], False),
        (["init=checkpoint"], True),
        (["start=mini"], True),  # a start of the command's own, which holds weights
        (["start=mini", "init=scratch"], False),
        ([f"start={start_folder(tmp_path / 'start')}"], False),  # which holds none
    ):
        assert read_plan(CONFIG, words).begins_from_weights == goes_on, words
    with pytest.raises(InputError, match="init is 'und'"):
        read_plan(CONFIG, ["init=und"])
    with pytest.raises(InputError, match=r"minutes is 9, but .* want 9 of them"):
        read_plan(CONFIG, ["minutes=9"])
    with pytest.raises(InputError, match="'limits' is not known"):
        read_plan(CONFIG, ["limits=3"])


def test_a_training_that_fails_is_started_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent at first: not compiled. Numbers that are none: half the rate, as often as needed. Silent later: as is."""
    (tmp_path / "stand_in.py").write_text(TRAINING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(driver, "CLI", "stand_in")
    plan = plan_for(tmp_path / "work", first_step_seconds=1.5, quiet_seconds=1.5, tries=5, overrides=("steps=7",))
    made = driver.Driver(plan, State(tmp_path / "work"))
    made._train("pretrain", "some.yaml", time.time() + 60)
    starts = [json.loads(line) for line in (tmp_path / "work" / "run" / "starts.txt").read_text().splitlines()]
    assert [given.get("parallel.compile") for given in starts] == [None, *4 * ["off"]]
    assert [given.get("optim.lr") for given in starts] == [None, None, "0.004", "0.002", "0.002"]
    assert {given["steps"] for given in starts} == {"7"}
    left = [float(given["max_minutes"]) for given in starts]
    assert left == sorted(left, reverse=True)
    assert left[0] <= 1
    notes = State(tmp_path / "work").notes
    assert [note.split(": ", 2)[2][:9] for note in notes] == ["made no f", "failed wi", "failed wi", "fell sile"]
    assert not State(tmp_path / "work").children


def test_pieces_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/one.txt", "a/b/two.txt", "c.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    with pytest.raises(InputError, match=r"there is no missing and no none\."):
        pack_pieces(Path("out"), [Path("missing"), Path("none")])
    with pytest.raises(InputError, match=r"nothing holds no make\.json"):
        collect(Path("nothing"), Path("out"))
    assert not Path("out").exists()
    pack_pieces(Path("out"), [Path("a"), Path("c.txt"), Path("missing")])
    unpack(Path("out"), Path("back"))
    found = {path.relative_to("back").as_posix(): path.read_text() for path in Path("back").rglob("*.txt")}
    assert found == {name: name for name in ("a/one.txt", "a/b/two.txt", "c.txt")}


@pytest.mark.slow
def test_a_command_goes_on_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "table"
    detached.begin(folder, ["table"])
    assert detached.watch(folder, 1, every=0.2) == 0
    assert "connector" in capsys.readouterr().out
    waiting = tmp_path / "waiting"
    detached.begin(waiting, ["watch", str(waiting), "minutes=5"])
    with pytest.raises(InputError, match="under way"):
        detached.begin(waiting, ["table"])
    end = time.monotonic() + 60
    while not detached.tail(waiting / detached.OUTPUT) and time.monotonic() < end:
        time.sleep(0.1)
    assert detached.watch(waiting, 0) is None
    detached.halt(waiting)
    assert detached.watch(waiting, 0) == 128 + signal.SIGTERM


SMALL = [
    "device=cpu", "data.workers=1", "data.expected_num_tokens=500", "data.max_num_tokens=1024",
    "data.max_num_tokens_per_sample=1024", "data.prefer_buffer_before=200", "parallel.params=fp32",
    "save.minutes=0.03", "optim.warmup=2",
]  # fmt: skip


@pytest.mark.slow
def test_everything_at_toy_size_killed_on_the_way(tmp_path: Path) -> None:
    work, start = tmp_path / "work", start_folder(tmp_path / "start")
    own = [f"work={work}", f"start={start}", "minutes=1.9", "finish_minutes=0.35", "judge_minutes=0.4",
           "probe_every=0.1", "probe_limit=1", "limit=1"]  # fmt: skip
    own += [f"{stage}={CONFIG.with_name(f'{stage}.yaml')}" for stage in ("pretrain", "finish")]
    command = ["make", str(CONFIG), *own, "train", *SMALL]
    detached.begin(work, command)
    end = time.monotonic() + 60
    while not list((work / "run" / "checkpoints").glob("step-*")) and time.monotonic() < end:
        time.sleep(0.2)
    os.killpg(json.loads((work / detached.FILE).read_text())["pid"], signal.SIGKILL)
    time.sleep(0.2)
    early = collect(work, tmp_path / "early")
    assert "scores.json" in early
    detached.begin(work, command)
    assert detached.watch(work, 3, every=1, more=lambda: status(work)) == 0
    state = State(work)
    assert state.ended
    assert any("were left over" in note for note in state.notes)
    assert list(state.stages) == ["start", "pretrain", "trunk", "finish", "export", "judge"]
    rates = [json.loads(line)["lr"] for line in (work / "run" / "log.jsonl").read_text().splitlines()]
    assert rates[-1] == 1e-5
    assert max(rates) == configs.load(CONFIG.with_name("pretrain.yaml")).optim.lr
    names = collect(work, tmp_path / "out")
    assert len(names) <= 8
    unpack(tmp_path / "out", tmp_path / "back")
    assert Bagel.load(tmp_path / "back" / "packed", device="cpu").config.llm.num_hidden_layers == 3
    summary = json.loads((tmp_path / "out" / "scores.json").read_text())["summary"]
    assert summary["results"]["all"]["count"] > 0
