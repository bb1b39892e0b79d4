"""Scripts for `bagel run`: a conversation as a JSON list of turns.

[
  {"text": "A story about a fox, told in pictures."},
  {"image": "fox.png"},                        a path, relative to the script
  {"draw": {"seed": 3, "num_timesteps": 25}},  ImageOptions; may be {}
  {"say": {"max_tokens": 100}},                TextOptions; may be {}
  {"continue": {"parts": ["text", "image"]}}   what comes out in which order; without `parts` the model decides
]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bagel.app.show import save_image, write_text
from bagel.errors import InputError
from bagel.infer.inputs import Text, check_size, checked_text, open_image, split_fields
from bagel.infer.jobs import Plan
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.infer.session import Session
from bagel.model.config import ModelConfig
from bagel.options import ImageOptions, TextOptions, make, settle

KINDS = ("text", "image", "draw", "say", "continue")
Turn = tuple[str, Any]


def load_script(path: Path, config: ModelConfig) -> list[Turn]:
    """The turns of a script, checked as far as that goes before the model is loaded. Raises InputError, naming
    the turn."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"there is no script {str(path)!r}; give the path of a JSON file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); correct the file.") from None
    if not isinstance(data, list) or not data:
        raise InputError(f"{path} must be a JSON list with at least one turn.")
    return [_turn(f"{path}, turn {number}", turn, path.parent, config) for number, turn in enumerate(data, 1)]


def _turn(name: str, turn: Any, base: Path, config: ModelConfig) -> Turn:
    try:
        return _checked(turn, base, config)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _checked(turn: Any, base: Path, config: ModelConfig) -> Turn:
    if not isinstance(turn, dict) or len(turn) != 1 or next(iter(turn)) not in KINDS:
        raise InputError(f"a turn is an object with one key of {', '.join(KINDS)}.")
    kind, value = next(iter(turn.items()))
    if kind in ("text", "image"):
        if not isinstance(value, str):
            raise InputError(f"{kind} must be a string.")
        if kind == "text":
            return kind, checked_text(value)
        open_image(base / value)
    elif not isinstance(value, dict):
        raise InputError(f"{kind} must be an object.")
    else:
        _check_output(kind, value, config)
    return kind, value


def _check_output(kind: str, fields: dict[str, Any], config: ModelConfig) -> None:
    options = {name: value for name, value in fields.items() if name not in _OWN_FIELDS[kind]}
    if kind == "continue":
        Plan(**{name: value for name, value in fields.items() if name in _OWN_FIELDS[kind]})
        image, text = split_fields(options)
    else:
        image = make(ImageOptions, None, options) if kind == "draw" else ImageOptions()
        text = make(TextOptions, None, options) if kind == "say" else TextOptions()
    check_size(settle(image, "edit", config.presets), config)
    settle(text, "chat", config.presets)


_OWN_FIELDS = {"draw": {"keep"}, "say": {"keep"}, "continue": {"parts", "max_images"}}
"""What a turn takes besides options."""


def run_script(
    bagel: Bagel, turns: list[Turn], base: Path, folder: Path, progress: Callable[[int, Any], None]
) -> list[dict[str, Any]]:
    """Plays the turns in one session; writes each output as NN.png or NN.txt as soon as it is there, and
    `transcript.json`, which it returns."""
    transcript: list[dict[str, Any]] = []
    with bagel.session(progress=progress) as session:
        for number, (kind, value) in enumerate(turns, 1):
            entry: dict[str, Any] = {"turn": number, kind: value}
            if kind in ("text", "image"):
                session.read(base / value if kind == "image" else Text(value))
            else:
                entry.update(_written(_output(session, kind, value), folder / f"{number:02d}"))
            transcript.append(entry)
            write_text(folder / "transcript.json", json.dumps(transcript, ensure_ascii=False, indent=1))
    return transcript


def _output(session: Session, kind: str, fields: dict[str, Any]) -> Result:
    if kind == "draw":
        return session.draw(**fields)
    return session.say(**fields) if kind == "say" else session.go_on(**fields)


def _written(result: Result, stem: Path) -> dict[str, Any]:
    """Writes what came out; -> its part of the transcript."""
    entry: dict[str, Any] = {"seed": result.seed}
    if result.text is not None:
        entry["answer"] = result.text
        entry["text_file"] = write_text(stem.with_suffix(".txt"), result.text).name
    names = [stem if len(result.images) == 1 else stem.with_name(f"{stem.name}-{i}") for i in range(len(result.images))]
    entry["pictures"] = [
        save_image(image, name.with_suffix(".png"), {"seed": result.seed}).name
        for name, image in zip(names, result.images, strict=True)
    ]
    return entry
