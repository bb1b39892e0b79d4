"""Samples as rows of training data.

`interleaved_row` holds any sample. The others give the forms that common training code reads: text-to-image rows,
editing rows, conversation rows. A table writer takes the dicts as they are; `write_shards` writes JSON lines.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .sample import Picture, Said, Sample, TargetAnswer, TargetPicture, Text, Thought

Row = dict[str, Any]


def png(pixels: np.ndarray) -> bytes:
    """A uint8 RGB picture as PNG; light compression, as speed matters more than size here."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def interleaved_row(sample: Sample) -> Row:
    """Any sample: its parts in reading order. `loss` marks what the model must produce."""
    parts: list[Row] = []
    for part in sample.parts:
        if isinstance(part, Picture):
            parts.append({"kind": "image", "image": png(part.pixels()), "loss": isinstance(part, TargetPicture)})
        else:
            text = part.tagged if isinstance(part, Thought) else part.text
            parts.append({"kind": "text", "text": text, "loss": not isinstance(part, Text)})
    return {"task": sample.task, "category": sample.category, "language": sample.language, "parts": parts}


def _pictures(sample: Sample) -> list[bytes]:
    return [png(part.pixels()) for part in sample.parts if isinstance(part, Picture)]


def _texts(sample: Sample) -> list[str]:
    return [part.text for part in sample.parts if isinstance(part, Text)]


def text_to_image_row(sample: Sample) -> Row:
    """A "draw" sample: the picture, and a JSON object whose values are its captions."""
    return {"image": _pictures(sample)[0], "captions": json.dumps({"caption": _texts(sample)[0]}, ensure_ascii=False)}


def edit_row(sample: Sample) -> Row:
    """An "edit" or "reason" sample: pictures before and after, and the list of instructions from each to the next."""
    return {"image_list": _pictures(sample), "instruction_list": [_texts(sample)]}


def conversation_row(sample: Sample) -> Row:
    """An "ask" sample: its picture, if it has one, and what was asked and answered; <image> marks where it stands."""
    turns: list[Row] = []
    asked = ""
    for part in sample.parts:
        if isinstance(part, Said | TargetAnswer):
            turns += [{"from": "human", "value": asked}, {"from": "gpt", "value": part.text}]
            asked = ""
        else:
            asked += "<image>" if isinstance(part, Picture) else part.text
    pictures = _pictures(sample)
    return {"conversations": turns, "image": pictures[0]} if pictures else {"conversations": turns}


def write_shards(samples: Iterable[Sample], folder: Path, per_shard: int = 1000) -> list[Path]:
    """Interleaved rows as JSON lines, pictures in base64, `per_shard` to a file; the files written, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, rows = [], (interleaved_row(sample) for sample in samples)
    for number, chunk in enumerate(_chunks(rows, per_shard)):
        path = folder / f"world-{number:05}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False, default=_base64) + "\n" for row in chunk), "utf-8")
        paths.append(path)
    return paths


def _chunks(rows: Iterator[Row], n: int) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, n)):
        yield chunk


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
