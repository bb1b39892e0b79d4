"""The same step fed by the real data loader: pictures as JPEG files, JSONL beside them, decoded, resized, tokenised
and packed by worker processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bagel.data.config import DataConfig
from bagel.data.loader import PackLoader
from bagel.model.config import ModelConfig
from bagel.tokens import Tokenizer
from bagel.train.bench.shapes import Mix


def loader(
    folder: Path, config: ModelConfig, mix: Mix, tokenizer: Tokenizer, tokens: int, workers: int, pinned: bool
) -> PackLoader:
    """Packs of at most `tokens` tokens in the proportions of `mix`, from files written to `folder`."""
    return PackLoader(_data(folder, mix, tokens, workers), config, tokenizer, pin_memory=pinned)


def _data(folder: Path, mix: Mix, tokens: int, workers: int) -> DataConfig:
    """Three data sets of 48 rows each; pictures have twice the side that they are resized to."""
    names = [_picture(folder, number, 2 * mix.picture) for number in range(48)]
    word = "red cube on a blue table by the window, morning light "
    prompt, answer = (word * 4)[: mix.prompt], (word * 4)[: mix.answer]
    rows: dict[str, list[dict[str, Any]]] = {
        "t2i": [{"image": name, "caption": prompt} for name in names],
        "edit": [
            {"source": name, "target": other, "instruction": word[: mix.instruction]}
            for name, other in zip(names, reversed(names), strict=True)
        ],
        "understand": [{"image": name, "conversations": _talk(word[: mix.question], answer)} for name in names],
    }
    sides = {"t2i": mix.seen, "edit": mix.seen, "understand": mix.asked}
    weights = {"t2i": mix.draw, "edit": mix.edit, "understand": mix.ask}
    datasets = []
    for recipe, lines in rows.items():
        path = folder / f"{recipe}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        datasets.append(
            {
                "name": recipe,
                "recipe": recipe,
                "path": str(path),
                "weight": float(weights[recipe]),
                "vae": {"max_size": mix.picture, "min_size": mix.picture},
                "vit": {"max_size": sides[recipe], "min_size": sides[recipe]},
            }
        )
    budget = {"expected_num_tokens": int(tokens * 0.95), "max_num_tokens": int(tokens * 1.05)}
    return DataConfig.from_dict(
        {"datasets": datasets, **budget, "max_num_tokens_per_sample": int(tokens * 1.05), "workers": workers}
    )


def _talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def _picture(folder: Path, number: int, side: int) -> str:
    """Smooth colours with some grain: a file of the size that photographs have."""
    rng = np.random.default_rng(number)
    blobs = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(blobs.resize((side, side), Image.Resampling.BICUBIC))
    levels = np.clip(smooth + rng.integers(-12, 12, (side, side, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(levels).save(folder / f"{number}.jpg", quality=90)
    return f"{number}.jpg"
