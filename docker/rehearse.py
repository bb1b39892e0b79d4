"""Does what docker/Dockerfile and compose.yaml say, without Docker: `python docker/rehearse.py`.

The build stage's files are copied and its commands run in a folder of their own, with this Python in place of the
image's; then the commands of the page and of the server are started as compose.yaml has them, on ports of their own,
until their health checks pass. Takes minutes and a network. --index: where PyTorch comes from, instead of the
Dockerfile's index; "" for the default one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PATIENCE = 300
"""Seconds until a health check must have passed."""


def instructions(stage: str) -> list[tuple[str, str]]:
    """(instruction, its words) of a stage of the Dockerfile, in order."""
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found, inside = [], False
    for line in text.splitlines():
        name, _, words = line.strip().partition(" ")
        if name == "FROM":
            inside = words.endswith(f" AS {stage}")
        elif inside and name and name != "#":
            found.append((name, words.strip()))
    return found


def build(folder: Path, index: str | None) -> Path:
    """Runs the build stage below `folder`; -> the folder of the commands that it installs."""
    env = {**os.environ}
    (folder / "src").mkdir()
    for name, words in instructions("build"):
        words = words.replace("/opt/bagel", str(folder / "bagel"))
        if name == "ENV":
            for pair in words.split():
                key, _, value = pair.partition("=")
                env[key] = value
        elif name == "ARG":
            key, _, value = words.partition("=")
            env[key] = index if key == "PIP_EXTRA_INDEX_URL" and index is not None else value
        elif name == "WORKDIR":
            continue  # all of it happens in one folder
        elif name == "COPY":
            *sources, target = words.split()
            for source in sources:
                copy(ROOT / source, folder / "src" / target)
        elif name == "RUN":
            command = re.sub(r"--mount=\S+ ", "", words).replace("python -m", f"{sys.executable} -m", 1)
            print("+", command, flush=True)
            subprocess.run(command, shell=True, check=True, cwd=folder / "src", env=env)
        else:
            raise SystemExit(f"the build stage has {name}, which this script does not know.")
    return folder / "bagel" / "bin"


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def serve(name: str, commands: Path, folder: Path) -> float:
    """Starts a service of compose.yaml; -> seconds until its health check passed."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"][name]
    inner = service["ports"][0].split(":")[-1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("/data", str(folder)) for word in service["command"]]
    check = health(service).replace(f":{inner}/", f":{port}/")
    env = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(folder), "BAGEL_API_KEYS": ""}
    began = time.monotonic()
    process = subprocess.Popen([commands / "bagel", *words, "--port", str(port)], cwd=folder, env=env)
    try:
        while subprocess.run([commands / "python", "-c", check], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise SystemExit(f"{name} is not healthy.")
            time.sleep(1)
        return time.monotonic() - began
    finally:
        process.terminate()
        process.wait(60)


def health(service: dict[str, object]) -> str:
    """The Python of a service's health check: its own, or the image's."""
    own = service.get("healthcheck")
    if isinstance(own, dict):
        return str(own["test"][-1])
    (words,) = [words for name, words in instructions("cpu") if name == "HEALTHCHECK"]
    return str(yaml.safe_load(words.partition("CMD ")[2])[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--index", help='index of PyTorch; "" for the default one')
    index = parser.parse_args().index
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        commands = build(folder, index)
        size = sum(file.stat().st_size for file in (folder / "bagel").rglob("*") if file.is_file())
        print(f"installed: {size / 1e9:.2f} GB")
        for name in ("serve", "ui"):
            print(f"{name}: healthy after {serve(name, commands, folder):.0f} s", flush=True)


if __name__ == "__main__":
    main()
