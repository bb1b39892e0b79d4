"""Results as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lines(results: Mapping[str, Any]) -> list[str]:
    pack = results["pack"]
    out = [
        f"{results['device']}, PyTorch {results['torch']}; {results['model']}",
        f"pack: {pack['tokens']:,} tokens ({pack['und']:,} und, {pack['gen']:,} gen; {pack['vit']:,} ViT patches, "
        f"{pack['labels']:,} labels, {pack['pictures']} pictures encoded), {pack['tflop']:.1f} TFLOP",
        "ceilings: " + ", ".join(f"{name} {value:.4g}" for name, value in results["ceilings"].items()),
        "",
        f"{'':<34}{'step ms':>10}{'tokens/s':>12}{'TFLOP/s':>10}{'MFU':>8}{'GiB':>8}{'wait':>8}",
    ]
    for row in results["rows"]:
        out.append(_row(row))
        if row.get("where"):
            total = sum(row["where"].values())
            out += [f"    {kind:<30}{ms:>10.1f}{ms / total:>12.1%}" for kind, ms in row["where"].items()]
        if row.get("fed"):
            out.append(_row(row["fed"]))
    notes = [f"{row['variant']}: {row['note']}" for row in results["rows"] if row.get("note")]
    return [*out, *notes]


def _row(row: Mapping[str, Any]) -> str:
    if "step_seconds" not in row:
        return f"{row['variant']:<34}{'out of memory':>22}"
    mfu = f"{row['mfu']:.1%}" if row["mfu"] is not None else "-"
    return (
        f"{row['variant']:<34}{1000 * row['step_seconds']:>10.1f}{row['tokens_per_second']:>12,.0f}"
        f"{row['tflops']:>10.1f}{mfu:>8}{row['peak_gib']:>8.1f}{row['data_wait']:>8.1%}"
    )
