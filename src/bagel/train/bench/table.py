"""Results as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def head(results: Mapping[str, Any]) -> list[str]:
    """What was measured, the ceilings, and the names of the columns."""
    pack = results["pack"]
    return [
        f"{results['device']}, PyTorch {results['torch']}; {results['model']}",
        f"pack: {pack['tokens']:,} tokens ({pack['und']:,} und, {pack['gen']:,} gen; {pack['vit']:,} ViT patches, "
        f"{pack['labels']:,} labels, {pack['pictures']} pictures encoded), {pack['tflop']:.1f} TFLOP",
        "ceilings: " + ", ".join(f"{name} {value:.4g}" for name, value in results["ceilings"].items()),
        "",
        f"{'':<34}{'step ms':>10}{'tokens/s':>12}{'TFLOP/s':>10}{'MFU':>8}{'GiB':>8}{'wait':>8}",
    ]


def row_lines(row: Mapping[str, Any]) -> list[str]:
    """A variant, where its time goes, the same from files, and what is to be said of it."""
    out = [_row(row)]
    if row.get("where"):
        total = sum(row["where"].values())
        out += [f"    {kind:<30}{ms:>10.1f}{ms / total:>12.1%}" for kind, ms in row["where"].items()]
    if row.get("fed"):
        out.append(_row(row["fed"]))
    return [*out, f"    {row['note']}"] if row.get("note") else out


def _row(row: Mapping[str, Any]) -> str:
    if "step_seconds" not in row:
        return f"{row['variant']:<34}{'out of memory':>22}"
    mfu = f"{row['mfu']:.1%}" if row["mfu"] is not None else "-"
    return (
        f"{row['variant']:<34}{1000 * row['step_seconds']:>10.1f}{row['tokens_per_second']:>12,.0f}"
        f"{row['tflops']:>10.1f}{mfu:>8}{row['peak_gib']:>8.1f}{row['data_wait']:>8.1%}"
    )
