"""A folder as files of at most 16 MiB, and back: for what carries no larger ones.

python -m bagel.mini pieces split runs/mini/checkpoints/step-00010000 carried
python -m bagel.mini pieces join carried runs/mini/checkpoints/step-00010000
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from bagel.errors import InputError

LIMIT = 16 << 20
LIST = "pieces.json"


def split(source: Path, out: Path, limit: int = LIMIT) -> None:
    """Every file below `source`, or the one file, cut where it is longer; `pieces.json` says what they were."""
    if not source.exists():
        raise InputError(f"there is no {source}.")
    out.mkdir(parents=True, exist_ok=True)
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    listed, number = [], 0
    for path in files:
        digest, parts = hashlib.sha256(), []
        with path.open("rb") as file:
            while content := file.read(limit):
                digest.update(content)
                parts.append(f"{number:05d}.piece")
                (out / parts[-1]).write_bytes(content)
                number += 1
        name = path.name if source.is_file() else path.relative_to(source).as_posix()
        listed.append({"name": name, "parts": parts, "sha256": digest.hexdigest()})
    (out / LIST).write_text(json.dumps(listed, indent=1), encoding="utf-8")


def join(source: Path, out: Path) -> None:
    """The files as they were, below `out`. Raises InputError for pieces that are missing or changed."""
    if not (source / LIST).exists():
        raise InputError(f"{source} holds no {LIST}; give the folder that `split` wrote.")
    for entry in json.loads((source / LIST).read_text(encoding="utf-8")):
        path = out / entry["name"]
        if not path.resolve().is_relative_to(out.resolve()):
            raise InputError(f"{entry['name']} leads out of {out}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, partial = hashlib.sha256(), path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            for part in entry["parts"]:
                if not (source / part).exists():
                    raise InputError(f"{source / part} is missing; carry all pieces over.")
                content = (source / part).read_bytes()
                digest.update(content)
                file.write(content)
        if digest.hexdigest() != entry["sha256"]:
            raise InputError(f"{entry['name']} is not what it was; carry its pieces over again.")
        partial.replace(path)
