"""Small real files for the tests, and the golden files' place."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagel.data.config import DataConfig

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHECKPOINT = GOLDEN / "checkpoint"

BUDGET = {
    "expected_num_tokens": 400,
    "max_num_tokens": 600,
    "max_num_tokens_per_sample": 300,
    "prefer_buffer_before": 200,
    "max_buffer_size": 4,
    "workers": 0,
}


def image(seed: int, width: int = 80, height: int = 64) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height))


def png(seed: int, width: int = 80, height: int = 64) -> bytes:
    stream = io.BytesIO()
    image(seed, width, height).save(stream, "PNG")
    return stream.getvalue()


def sizes(seed: int) -> tuple[int, int]:
    """Sides between 64 and 128 pixels."""
    rng = Random(seed)
    return rng.randrange(64, 129), rng.randrange(64, 129)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def t2i_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"image": png(i, *sizes(i)), "captions": json.dumps({"a": f"picture {i}", "b": f"number {i}"})}
        for i in range(start, start + count)
    ]


def data_config(*datasets: Mapping[str, Any], **settings: Any) -> DataConfig:
    return DataConfig.from_dict({**BUDGET, **settings, "datasets": list(datasets)})
