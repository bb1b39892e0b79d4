"""Results as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTHS = (22, 11, 13, 10, 10, 12, 9)


def lines(results: Mapping[str, Any]) -> list[str]:
    """What was measured where, the ceilings, and a line a job."""
    device, versions = results["device"], results["versions"]
    out = [
        f"{device['name']}, PyTorch {versions['torch']}, {results['date']} UTC",
        f"{results['model']}, plain is {results['plain']}; {results['timesteps']} timesteps, autoencoder included, "
        f"warm, median of {results['repeat']}",
    ]
    if "ceilings" in results:
        found = results["ceilings"]
        products = ", ".join(f"{name} {rate:.4g}" for name, rate in found["products_tflops"].items())
        out.append(
            f"ceilings: copy {found['copy_tb_per_s']:.3g} TB/s; products {products} TFLOP/s; attention "
            f"{found['attention_tflops']:.4g} TFLOP/s"
        )
        if found.get("sustained_tflops"):
            kept = ", ".join(f"{name} {rate:.4g}" for name, rate in found["sustained_tflops"].items())
            out.append(f"products after seconds of nothing else, as power allows: {kept} TFLOP/s")
    heads = ("job", "seconds", "model calls", "TFLOP", "TFLOP/s", "of ceiling", "GiB")
    return [*out, "", _line(*heads), *(line for row in results["rows"] for line in _row(row))]


def _row(row: Mapping[str, Any]) -> list[str]:
    if "note" in row:
        return [_line(row["job"], row["note"])]
    if "errors" in row:
        head = f"{row['job']}: relative error of one update against float32"
        return [head, *(_errors(name, of) for name, of in row["errors"].items())]
    if "of_ceiling" not in row:
        found = [_line(row["job"], f"{row['seconds']:.3f}")]
        if "host_gib" in row:
            found.append(f"    {row['host_gib']:.2f} GiB of the host at most, beside the mapped files")
        if "very_first_seconds" in row:
            found.append(f"    the very first process {row['very_first_seconds']:.3f}, the next picture of the "
                         f"second {row['next_seconds']:.3f}")  # fmt: skip
        return found
    peak = f"{row['peak_gib']:.2f}" if "peak_gib" in row else "-"
    digits = 3 if row["seconds"] >= 0.1 else 5
    found = [
        _line(
            row["job"],
            f"{row['seconds']:.{digits}f}",
            f"{row['model_calls']:g}",
            f"{row['tflop']:.4g}",
            f"{row['tflops']:.4g}",
            f"{row['of_ceiling']:.1%}",
            peak,
        )
    ]
    return [*found, *_account(row["account"])] if "account" in row else found


def _errors(name: str, of: Mapping[str, float]) -> str:
    return f"    {name:<26}" + ", ".join(f"{path} {error:.2e}" for path, error in of.items())


def _account(found: Mapping[str, Any]) -> list[str]:
    """Where the time goes, in milliseconds of the job with few updates."""
    kinds = ", ".join(f"{kind} {took:.4g}" for kind, took in found["kinds_ms"].items())
    made = f"{found['updates']} updates" if found["updates"] else f"{found['tokens']} tokens"
    return [f"    of {found['ms']:.4g} ms ({made}): {kinds}; no kernel {found['gaps_ms']:.4g}"]


def _line(first: str, *cells: str) -> str:
    rest = "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS[1:], strict=False))
    return f"{first:<{WIDTHS[0]}}{rest}".rstrip()
