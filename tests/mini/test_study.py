"""The study: results kept small, curves, charts, the page, and all of it once at toy size."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bagel import world
from bagel.errors import InputError
from bagel.infer.pipeline import find_model
from bagel.mini.study import checkpoints, command, knobs, losses, results, seeing
from bagel.mini.study.chart import Line, chart
from bagel.mini.study.command import study
from bagel.mini.study.page import page
from bagel.mini.study.trainings import StudyError, curves, side_by_side, tokens_by_step, totals

from .toy import start_folder, toy_folder

ROOT = Path(__file__).parents[2]
MADE = {"device": "a device", "torch": "2", "bagel": "0"}


def write_log(run: Path, steps: int) -> Path:
    run.mkdir(parents=True)
    lines = [
        {"step": n, "ce": 4 / n, "mse": 2 / n, "tokens": 100, "tokens_per_second": 1000.0} for n in range(1, steps + 1)
    ]
    lines.insert(3, {**lines[2], "ce": 99.0})  # step 3 was done, and again after a stop
    lines[2], lines[3] = lines[3], lines[2]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_a_log_becomes_a_curve_of_few_points(tmp_path: Path) -> None:
    write_log(tmp_path / "run", 10)
    found = curves(tmp_path / "run", points=4)
    assert found["step"] == [3, 6, 9, 10]
    assert found["tokens"] == [300, 600, 900, 1000]
    assert found["mse"][0] == pytest.approx((2 + 1 + 2 / 3) / 3, abs=1e-4)
    assert found["ce"][0] == pytest.approx((4 + 2 + 4 / 3) / 3, abs=1e-4)
    assert tokens_by_step(tmp_path / "run")[7] == 700
    assert totals(tmp_path / "run") == {"steps": 10, "tokens": 1000, "hours": 0.0003, "tokens_per_second": 1000}


def test_results_are_small_and_come_back(tmp_path: Path) -> None:
    result = {"a": [1, 2.5, -3e-05], "b": {"c": [[1, 2], [3, 4]], "d": "x"}, "e": [], "f": ["word", 1]}
    results.write(tmp_path / "r.json", result)
    assert results.read(tmp_path / "r.json") == result
    assert '"a": [1, 2.5, -3e-05]' in (tmp_path / "r.json").read_text()
    assert results.read(tmp_path / "none.json") == {}


def test_results_of_one_thing_are_not_added_to_those_of_another(tmp_path: Path) -> None:
    path, of = tmp_path / "r.json", {"limit": 2, "kinds": ("a", "b")}
    found = results.resumed(path, of, {"points": []})
    found["points"].append(1)
    results.write(path, found)
    assert results.resumed(path, of, {"points": []})["points"] == [1]
    assert found["limit"] == 2
    with pytest.raises(InputError, match=r"another study \(by its limit\)"):
        results.resumed(path, {**of, "limit": 4}, {"points": []})
    results.write(path, {"points": [1]})  # from before this was kept
    with pytest.raises(InputError, match="by its limit, kinds"):
        results.resumed(path, of, {"points": []})


def test_a_chart_is_well_formed_and_holds_every_point() -> None:
    text = chart("a < b", "x", "y", [Line("one & two", [0, 5, 10], [0.0, 1.0, 0.5]), Line("b", [3], [0.2])])
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    points = [line.get("points", "").split() for line in root.iter(f"{space}polyline")]
    assert [len(one) for one in points] == [3, 1]
    xs = [float(point.split(",")[0]) for point in points[0]]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert {"a < b", "one & two"} <= {element.text for element in root.iter(f"{space}text")}
    with pytest.raises(ValueError, match="no points"):
        chart("empty", "x", "y", [])


def counts(right: int) -> dict[str, list[int]]:
    return {"all": [right, 20], "edit": [right, 20], "edit/add": [right, 20]}


def test_a_page_says_what_the_files_hold(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    curve = {"step": [1, 2], "tokens": [10**6, 2 * 10**6], "ce": [2.0, 1.0], "mse": [1.0, 0.25]}
    run = {"parameters": 5, "active_per_token": 3, "steps": 2, "tokens": 2 * 10**6, "curve": curve}
    results.write(folder / losses.FILE, {"made_with": MADE, "runs": {"mot": run, "dense": run}, "note": "So it is."})
    points = [{"step": n, "tokens": n * 10**6, "results": counts(right)} for n, right in ((1, 1), (2, 9), (3, 16))]
    results.write(folder / checkpoints.FILE, {"made_with": MADE, "limit": 20, "points": points})
    runs = {name: {"steps": 9, "results": counts(5)} for name in seeing.KINDS}
    results.write(folder / seeing.FILE, {"made_with": MADE, "runs": runs})
    point = {"value": [0.4, 1.0], "results": counts(20), "seconds_a_picture": 0.25}
    sweeps: dict[str, Any] = {"cfg_interval": {"fixed": {"cfg_text_scale": 4.0}, "points": [point]}}
    results.write(folder / knobs.FILE, {"made_with": MADE, "limit": 20, "sweeps": sweeps})
    text = page(tmp_path).read_text(encoding="utf-8")
    assert "| MoT | 5 | 3 | 2 | 0.2500 | 1.0000 |" in text
    assert "So it is." in text
    assert "| edit | 2 | 3 | 80% (58 to 92) |" in text  # half of 80 % first at 45 %
    assert text.count("25% (11 to 47)") == 6
    assert "| 0.4 to 1.0 | 100% (84 to 100) | 250 ms |" in text
    for name in ("losses-mse", "losses-ce", "checkpoints"):
        assert f"study/{name}.svg" in text
        ET.fromstring((folder / f"{name}.svg").read_text())


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no command of the study"):
        study(["loses"])
    with pytest.raises(InputError, match="'limits=3' is not known here; use limit="):
        study(["knobs", "mini", str(tmp_path), "limits=3"])
    with pytest.raises(InputError, match="'cfg_text' is not swept"):
        study(["knobs", "mini", str(tmp_path), "only=cfg_text"])
    with pytest.raises(InputError, match=r"none holds no log\.jsonl; give the folder of a training"):
        study(["checkpoints", str(tmp_path / "none"), str(tmp_path)])
    write_log(tmp_path / "run", 4)
    with pytest.raises(InputError, match="run holds no checkpoints/step-"):
        study(["checkpoints", str(tmp_path / "run"), str(tmp_path)])


def test_every_swept_value_is_one_that_the_knob_takes() -> None:
    from bagel.options import ImageOptions, settle

    for knob, sweep in knobs.SWEEPS.items():
        for value in sweep.values:
            assert getattr(settle(ImageOptions(**{**sweep.fixed, knob: value}), "draw", {}), knob) == value
        assert all(name.partition("/")[0] == task for task in sweep.tasks for name in knobs.SHOWN[task])
        assert all(name.partition("/")[2] in world.TASKS[task] for task in sweep.tasks for name in knobs.SHOWN[task])


SMALL = [
    "device=cpu", "data.workers=0", "data.expected_num_tokens=500", "data.max_num_tokens=1024",
    "data.max_num_tokens_per_sample=1024", "data.prefer_buffer_before=200", "optim.warmup=1", "parallel.params=fp32",
]  # fmt: skip


def test_all_goes_on_where_a_part_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def fail(*arguments: object) -> None:
        given["seeing"] = arguments
        raise OSError("no room")

    monkeypatch.setattr(losses, "losses", lambda *arguments: given.update(losses=arguments))
    monkeypatch.setattr(command, "_seeing", fail)
    monkeypatch.setattr(command, "_knobs", lambda *arguments: given.update(knobs=arguments))
    words = ["all", "configs", str(tmp_path), "trained=some", "minutes=3", "losses_minutes=2", "knobs_minutes=1", "a=b"]
    with pytest.raises(StudyError, match="seeing: no room"):
        study(words)
    assert given["losses"] == (Path("configs"), tmp_path, find_model("mini"), Path("runs"), 2.0, ["a=b"])
    assert given["seeing"] == ("configs", str(tmp_path), "trained=some", "minutes=3", "runs=runs", "limit=10", "a=b")
    assert given["knobs"] == ("some", str(tmp_path), "limit=10", "minutes=1")


@pytest.mark.slow
def test_all_of_it_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, out, runs = str(ROOT / "configs" / "mini" / "study"), tmp_path / "out", f"runs={tmp_path / 'runs'}"
    trained = toy_folder(tmp_path / "toy")
    start = tmp_path / "toy" / "start"
    study(["losses", configs, str(out), f"start={start}", runs, "steps=4", "save.every=2", "save.keep=9", *SMALL])
    assert [run["steps"] for run in results.read(out / losses.FILE)["runs"].values()] == [4, 4, 4]
    made = tmp_path / "runs" / "study-mot"
    for _ in range(2):  # the second has nothing left to do
        study(["checkpoints", str(made), str(out), "limit=1", "tasks=draw/colours,ask/colour"])
        found = results.read(out / checkpoints.FILE)["points"]
        assert [(point["step"], point["results"]["all"][1]) for point in found] == [(2, 2), (4, 2)]
    study(
        ["seeing", configs, str(out), f"trained={trained}", runs, "limit=1", "steps=2", "optim.decay_steps=1", *SMALL]
    )
    assert {name: run["see"] for name, run in results.read(out / seeing.FILE)["runs"].items()} == {
        name: list(see) for name, see in seeing.KINDS.items()
    }
    monkeypatch.setitem(knobs.SWEEPS, "num_timesteps", knobs.Sweep((2, 3), ("edit",)))
    study(["knobs", str(trained), str(out), "limit=1", "only=num_timesteps"])
    sweep = results.read(out / knobs.FILE)["sweeps"]["num_timesteps"]["points"]
    assert [point["value"] for point in sweep] == [2, 3]
    with Image.open(out / "knob-num_timesteps.png") as picture:
        assert picture.width > 2 * 128
    (tmp_path / "docs").mkdir()
    out.rename(tmp_path / "docs" / "study")
    assert "num_timesteps" in page(tmp_path / "docs").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_training_that_fails_ends_the_others(tmp_path: Path) -> None:
    start = start_folder(tmp_path / "start")
    config = str(ROOT / "configs" / "mini" / "study" / "mot.yaml")
    good = [config, f"model.path={start}", *SMALL, "steps=100000"]
    with pytest.raises(StudyError, match=r"bad ended with 1.*the key 'oops' is not known"):
        side_by_side({tmp_path / "good": good, tmp_path / "bad": [*good, "oops=1"]}, 1)
