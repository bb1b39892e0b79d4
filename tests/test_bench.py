"""`bagel bench`: it runs, counts what it should, and says what is wrong."""

import json
import re

import pytest
import torch

from bagel.bench.__main__ import file_name, main
from bagel.bench.account import INFERENCE, covered, kind_of
from bagel.bench.ceilings import Ceilings
from bagel.bench.host import HostPeak, own_bytes
from bagel.bench.jobs import JOBS, NAMES, chosen
from bagel.bench.meter import Meter, Pass
from bagel.bench.run import ACCOUNT_TIMESTEPS, Settings
from bagel.bench.subject import Source
from bagel.errors import InputError
from bagel.infer.context import Context
from bagel.infer.engine import Read
from bagel.model.published import SEVEN_B
from bagel.pack import LatentPart, TextPart, VitPart
from conftest import CHECKPOINT

TOPS = Ceilings(copy=3e12, products={"plain": 750e12, "fp8": 1300e12}, attention=600e12)


@pytest.fixture(scope="module")
def meter():
    return Meter(SEVEN_B, torch.bfloat16, None)


def context(length=0):
    held = Context(SEVEN_B.llm, torch.bfloat16, torch.device("meta"))
    held.length = length
    return held


def picture(held, **more):
    return Read(held, LatentPart(torch.empty(4096, 64, device="meta"), (64, 64), 0.5, noised=True), keep=False, **more)


def test_an_update_is_as_much_work_as_it_should_be(meter):
    """Per 1024 x 1024 branch 53.5 TFLOP of products and 6.9 of attention behind 100 tokens."""
    done = meter.count([picture(context(102))])
    assert done.products == pytest.approx(53.5e12, rel=2e-3)
    assert done.attention == pytest.approx(6.9e12, rel=0.01)
    both = meter.count([picture(context(102)), picture(context(102))])
    assert both.flop == pytest.approx(2 * done.flop)
    assert done.floor(TOPS, "plain") == pytest.approx(53.5 / 750 + 6.9 / 600, rel=0.01)
    assert done.floor(TOPS, "fp8") == pytest.approx(53.5 / 1300 + 6.9 / 600, rel=0.01)
    assert done.floor(TOPS, "nf4") == done.floor(TOPS, "plain")


def test_a_word_is_as_much_reading_as_it_should_be(meter):
    """14.1 GB of weights and head and 5k tokens of keys and values: 4.8 ms at 3 TB/s."""
    done = meter.count([Read(context(5000), TextPart([7]))])
    assert done.read == pytest.approx(14.1e9 + 5000 * 28 * 2 * 4 * 128 * 2, rel=0.01)
    assert done.floor(TOPS, "plain") == pytest.approx(done.read / 3e12)


def test_a_question_about_a_picture(meter):
    """Spans of one context see what was read before them in the same pass, and each other only as far as they may."""
    held = context()
    seen = Read(held, VitPart(torch.empty(4900, 588, device="meta"), (70, 70)))
    words = Read(held, TextPart(range(130)))
    done = meter.count([seen, words])
    pairs = 4902**2 + 130 * 4902 + 130 * 131 / 2
    assert done.attention == pytest.approx(pairs * 28 * 28 * 128 * 4 + 4900**2 * 26 * 1152 * 4)
    assert done.vit == pytest.approx(2 * 4900 * 0.41e9, rel=0.05)


def test_the_floor_of_a_pass_is_its_slower_part():
    assert Pass(750e12, 0, 0, 1).floor(TOPS, "plain") == 1
    assert Pass(1, 0, 0, 6e12).floor(TOPS, "plain") == 2


def test_the_command(tmp_path, capsys):
    jobs = "draw,first-token,next-token,draw-4,draw-fp8-forecast5"
    few = ["--random", "tiny", "--timesteps", "8", "--repeat", "1"]
    assert main([*few, "--jobs", jobs, "--account", "draw", "-o", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    results = json.loads(path.read_text())
    assert path.name == file_name(results)
    rows = {row["job"]: row for row in results["rows"]}
    assert list(rows) == jobs.split(",")
    assert rows["draw"]["model_calls"] == rows["draw-4"]["model_calls"]
    assert rows["draw"]["model_calls"] in (13, 14)  # by the presets of the embedded model
    assert rows["draw-fp8-forecast5"]["model_calls"] < rows["draw"]["model_calls"] / 1.5
    assert rows["next-token"]["model_calls"] == 1
    for row in rows.values():
        assert 0 < row["floor_seconds"] < row["seconds"]
        assert row["of_ceiling"] == pytest.approx(row["floor_seconds"] / row["seconds"], rel=1e-3)
    found = rows["draw"]["account"]
    assert [name for name, row in rows.items() if "account" in row] == ["draw"]
    assert found["updates"] == ACCOUNT_TIMESTEPS - 1
    assert {"products", "attention", "autoencoder"} < set(found["kinds_ms"])
    assert sum(kernel["ms"] for kernel in found["kernels"]) <= sum(found["kinds_ms"].values()) * 1.001
    assert 0 <= found["gaps_ms"] < found["ms"]
    shown = capsys.readouterr().out
    assert all(job in shown for job in rows)
    assert "5 updates): attention" in shown
    assert "ceilings: copy" in shown


@pytest.mark.parametrize(("jobs", "account"), [("draw", "edit"), ("load,draw", "load")])
def test_an_account_of_what_is_not_timed(jobs, account, capsys):
    assert main(["--random", "tiny", "--jobs", jobs, "--account", account]) == 1
    assert f"no account of {account!r}" in capsys.readouterr().err


def test_velocities(capsys):
    """On the CPU the fast path is the plain one but for rounding in float32, and fp8 is not; the rows are told."""
    assert main(["--random", "tiny", "--jobs", "velocity"]) == 0
    shown = capsys.readouterr().out
    rounding = re.findall(r"fast (\S+), plain 0.00e\+00", shown)
    assert len(rounding) == 4
    assert all(float(error) < 2e-6 for error in rounding)
    errors = [float(line.rpartition("fp8 ")[2]) for line in shown.splitlines() if "fp8 " in line and "plain" in line]
    assert len(errors) >= 4
    assert all(1e-4 < error < 5e-2 for error in errors[-4:])


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("_gemv", "products"),
        ("nvjet_sm90_tst_320x128_64x3_1x2_h_bz_coopB_TNT", "products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("_attend_token", "attention"),
        ("_swiglu_row", "SwiGLU"),
        ("_quantise_row", "quantising and widening"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "autoencoder"),
        ("_apply", "autoencoder"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("_rms_norm", "norms, rotation and the rest"),
    ],
)
def test_kinds_of_kernels(kernel, kind):
    assert kind_of(kernel, INFERENCE) == kind


def test_time_in_which_anything_runs():
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    assert covered([]) == 0


@pytest.mark.slow
def test_processes_and_folders(tmp_path):
    out = tmp_path / "results.json"
    arguments = ["--timesteps", "4", "--repeat", "1", "--jobs", "load,first-picture", "-o", str(out)]
    assert main(["--random", "tiny", "--write", str(tmp_path / "model"), *arguments]) == 0
    first, loaded = json.loads(out.read_text())["rows"]
    assert first["seconds"] > 0
    assert first["very_first_seconds"] > 0
    assert loaded["seconds"] > 0
    assert main(["--model", str(tmp_path / "model"), *arguments]) == 0


def test_jobs_by_name():
    assert chosen(None) == list(NAMES)
    assert chosen("edit, draw") == ["draw", "edit"]
    assert set(JOBS) < set(NAMES)
    with pytest.raises(InputError, match="no job 'paint'"):
        chosen("draw,paint")


@pytest.mark.parametrize(("model", "random"), [(None, None), (str(CHECKPOINT), "7b"), (None, "8b")])
def test_what_is_measured_must_be_said(model, random):
    with pytest.raises(InputError):
        Source.of("cpu", model, random)


def test_settings_that_cannot_be(capsys):
    with pytest.raises(InputError, match="at least"):
        Settings(("draw",), timesteps=2)
    assert main(["--random", "tiny", "--repeat", "0"]) == 1
    assert "repeat 0" in capsys.readouterr().err


@pytest.mark.skipif(own_bytes() is None, reason="the system does not say what a process holds")
def test_the_peak_of_the_host_counts_what_is_gone_again(tmp_path):
    """Own memory is counted, also where it is given back at once; a mapped file's pages are not."""
    with HostPeak() as peak:
        held = torch.ones(25 * 2**20)
        del held
    assert 60 < peak.bytes / 2**20 < 200
    mapped = tmp_path / "mapped"
    mapped.write_bytes(bytes(100 * 2**20))
    with HostPeak() as peak:
        float(torch.from_file(str(mapped), size=25 * 2**20).sum())
    assert peak.bytes / 2**20 < 50


def test_loading_says_what_the_host_took(tmp_path, capsys):
    out = tmp_path / "load.json"
    main(["--random", "tiny", "--write", str(tmp_path / "model"), "--jobs", "load", "-o", str(out)])
    (row,) = json.loads(out.read_text("utf-8"))["rows"]
    assert row["job"] == "load"
    assert row["seconds"] > 0
    if own_bytes() is not None:
        assert 0 <= row["host_gib"] < 1
        assert "of the host at most, beside the mapped files" in capsys.readouterr().out
