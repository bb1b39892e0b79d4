"""Result files: small JSON, written whole, extended by a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bagel.errors import InputError
from bagel.version import __version__

TASKS = ("ask", "draw", "edit", "reason", "frames", "navigate", "turn", "think")
"""In the order in which the paper sees abilities appear, the world's own ones behind."""
Result = dict[str, Any]


def read(path: Path) -> Result:
    """What the file holds; empty without one."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def resumed(path: Path, of: Mapping[str, Any], empty: Mapping[str, Any]) -> Result:
    """What the file holds, to be added to, or its beginning. of: what all its results have in common. Raises InputError
    where the file's are of something else."""
    found, of = read(path), json.loads(json.dumps(of))
    if not found:
        return {"made_with": made_with(), "of": of, **of, **empty}
    before = found.get("of", {})
    if before != of:
        changed = ", ".join(key for key in of if before.get(key) != of[key])
        raise InputError(f"{path} holds results of another study (by its {changed}); give another folder, or move it.")
    return found


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    text = json.dumps(result, indent=1, ensure_ascii=False)
    partial.write_text(_short_lists(text) + "\n", encoding="utf-8")
    partial.replace(path)


def _short_lists(text: str) -> str:
    """Lists of numbers on one line each."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        bare = line.strip()
        is_number = bare.rstrip(",").lstrip("-").replace(".", "").replace("e-", "").isdigit()
        if inside and (is_number or bare.rstrip(",") == "]"):
            lines[-1] += bare if bare.startswith("]") else f"{bare} " if bare.endswith(",") else bare
            inside = is_number
            continue
        inside = bare.endswith("[")
        lines.append(line)
    return "\n".join(line.rstrip() for line in lines)


def made_with() -> dict[str, str]:
    """The device and the versions, for the file."""
    device = "one " + torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    return {"device": device, "torch": torch.__version__, "bagel": __version__}
