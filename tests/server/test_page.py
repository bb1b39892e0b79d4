"""What docs/serve.md says is so: its snippets run against a live server, its commands and flags exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from PIL import Image

from bagel.app import cli

PAGE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE)


def test_snippets_run(live, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), (200, 30, 30)).save("cat.png")
    names = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(code.replace("http://127.0.0.1:8000", live.url), names)
    assert Image.open("square.png").size == (128, 128)


def test_commands(live, monkeypatch):
    for line in [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]:
        if line.startswith("export "):
            monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
        elif line.startswith("bagel "):
            cli.app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
        elif shutil.which("curl"):
            words = shlex.split(line.replace("http://127.0.0.1:8000", live.url))
            assert b"b64_json" in subprocess.run(words, capture_output=True, check=True, timeout=30).stdout


def test_metrics_are_there(live):
    table = PAGE.partition("## Watching it")[2].partition("## ")[0]
    served = httpx.get(f"{live.url}/metrics").text
    names = set(re.findall(r"`(bagel_\w+)`", table)) - {"bagel_gpu_memory_bytes"}
    assert {name for name in names if f"# TYPE {name} " not in served} == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "API keys"),
        (["--active", "0"], "above 0"),
        (["--port", "70000"], "port"),
    ],
)
def test_flags_that_cannot_be(words, message, capsys, monkeypatch):
    monkeypatch.delenv("BAGEL_API_KEYS", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", *words])
    assert stop.value.code == 1
    assert message in " ".join(capsys.readouterr().err.split())
