"""How near the faster modes come to the exact picture, measured."""

import json

import numpy as np
import pytest
from PIL import Image

from bagel.app import cli
from bagel.errors import InputError
from bagel.eval.closeness import MODES, Settings, compare, read_prompts
from bagel.eval.closeness_table import lines, markdown
from bagel.eval.likeness import MOST_PSNR, likeness
from conftest import CHECKPOINT

pytest.importorskip("skimage")
pytest.importorskip("flip_evaluator")


def noisy(deviation):
    rng = np.random.default_rng(0)
    base = rng.integers(60, 190, (48, 64, 3))
    return Image.fromarray(np.clip(base + rng.normal(0, deviation, base.shape), 0, 255).astype(np.uint8))


def test_likeness_falls_with_noise():
    clean = noisy(0)
    assert likeness(clean, clean) == (MOST_PSNR, 1.0, 0.0)
    little, more = likeness(clean, noisy(4)), likeness(clean, noisy(30))
    assert little.psnr == pytest.approx(20 * np.log10(255 / 4), abs=0.5)
    assert more.psnr < little.psnr
    assert more.ssim < little.ssim < 1
    assert more.flip > little.flip > 0
    with pytest.raises(InputError, match="one size"):
        likeness(clean, clean.resize((32, 32)))


def test_modes_are_measured_on_the_same_requests():
    settings = Settings(modes=("fp8", "forecast5"), tasks=("draw/colours", "edit/recolour"), count=1)
    kept = []
    found = compare(str(CHECKPOINT), settings, device="cpu", keep=kept.append)
    assert [len(one["rows"]) for one in kept] == [2, 3]  # a precision that fails leaves what came before
    exact, fp8, forecast = found["rows"]
    assert [row["mode"] for row in found["rows"]] == ["exact", "fp8", "forecast5"]
    assert found["requests"] == 2
    assert (exact["psnr"], exact["flip"], exact["latent_error"]) == (MOST_PSNR, 0, 0)
    assert fp8["model_calls"] == exact["model_calls"] > 3 * forecast["model_calls"]
    for row in (fp8, forecast):
        assert 30 < row["psnr_worst"] <= row["psnr_twentieth"] <= row["psnr"] < MOST_PSNR
        assert row["flip_worst"] >= row["flip_twentieth"] >= row["flip"] > 0
        assert 0 < row["latent_error"] < 0.05
        assert row["right"] == exact["right"] + row["won"] - row["lost"]
    assert found["exact_in"] == "float32"
    heads, line, first, *_ = markdown(found).splitlines()
    assert heads.startswith("| mode | calls | seconds | right | lost | won | PSNR | 1 in 20 |")
    assert first.startswith("| `exact` |")
    assert "| equal | equal | 1.000 |" in first
    assert heads.count("|") == line.count("|") == first.count("|")
    assert any(text.startswith("right: of 2 pictures") for text in lines(found))


def test_the_command(tmp_path, capsys, monkeypatch):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "close.json"
    prompts.write_text("a red cube\n\na blue ball\n")
    words = ["--model", str(CHECKPOINT), "--modes", "ab2-half", "--prompts", str(prompts), "-o", str(out)]
    cli.main(["eval", "closeness", *words, "--device", "cpu", "--num-timesteps", "10"])
    (found,) = json.loads(out.read_text())
    assert found["requests"] == 2
    assert found["rows"][1]["model_calls"] < found["rows"][0]["model_calls"]
    printed = capsys.readouterr().out
    assert "ab2-half" in printed
    assert "right" not in printed  # a prompt of the user's own is judged by nobody
    with pytest.raises(SystemExit) as stop:
        cli.main(["eval", "closeness", "--modes", "magic"])
    assert stop.value.code == 1


def test_what_cannot_be(tmp_path):
    with pytest.raises(InputError, match="no mode 'magic'"):
        Settings(modes=("magic",))
    with pytest.raises(InputError, match="bf16, fp16 or fp32, not in 'nf4'"):
        Settings(precision="nf4")
    with pytest.raises(InputError, match="single picture"):
        Settings(tasks=("ask",)).requests()
    with pytest.raises(InputError, match="prompt a line"):
        read_prompts(tmp_path / "none.txt")
    assert set(MODES) >= {"fp8", "int8", "nf4", "taylorseer", "guidance"}
