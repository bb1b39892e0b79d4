"""What `bagel.eval.closeness` found, as lines to read or as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_EQUAL = 100.0
_MEASURES = ("psnr", "psnr_twentieth", "ssim", "ssim_twentieth", "flip", "flip_twentieth")
_HEADS = ("PSNR", "1 in 20", "SSIM", "1 in 20", "FLIP", "1 in 20")


def lines(found: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    heads, rows = _cells(found)
    title = f"{found['model']}: {found['requests']} pictures, each against the exact one (in {found['exact_in']})"
    out = [title, f"{heads[0]:<16}" + "".join(f"{head:>9}" for head in heads[1:])]
    out += [f"{row[0]:<16}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows]
    return out + _words(found)


def markdown(found: Mapping[str, Any]) -> str:
    """For a page."""
    heads, rows = _cells(found)
    table = [heads, ("---",) + ("---:",) * (len(heads) - 1), *((f"`{row[0]}`", *row[1:]) for row in rows)]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *_words(found)])


def _cells(found: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    verdicts = ("right", "lost", "won") if "right" in found["rows"][0] else ()
    heads = ("mode", "calls", "seconds", *verdicts, *_HEADS, "latents")
    return heads, [
        (
            row["mode"],
            f"{row['model_calls']:g}",
            f"{row['seconds'] / found['requests']:.3f}",
            *(str(row[name]) for name in verdicts),
            *(_measure(name, row[name]) for name in _MEASURES),
            f"{row['latent_error']:.2g}",
        )
        for row in found["rows"]
    ]


def _measure(name: str, value: float) -> str:
    if name.startswith("psnr"):
        return "equal" if value >= _EQUAL else f"{value:.1f}"
    return f"{value:.3f}"


def _words(found: Mapping[str, Any]) -> list[str]:
    said = [
        "calls, seconds: of a picture, drawn in batches. PSNR, SSIM, FLIP and the relative error of the latents: the "
        "median; 1 in 20 pictures is worse than the value beside it."
    ]
    if "right" in found["rows"][0]:
        said.append(
            f"right: of {found['requests']} pictures, judged; lost: right in the exact pictures and wrong here; won: "
            "the other way round."
        )
    return said
