"""`bagel data check`: reads a share of the rows of every data set as training would, without a model, and
says what is wrong, how long the samples are, and what they look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bagel.data.config import DataConfig, DatasetConfig
from bagel.data.encode import TooLongError
from bagel.data.limits import TextTokenizer
from bagel.data.sample import Sample
from bagel.data.sheet import contact_sheet
from bagel.data.stream import Dataset
from bagel.errors import InputError
from bagel.model.config import ModelConfig

MAX_PROBLEMS = 20
"""Problems kept per data set; more are only counted."""
SHEET_SAMPLES = 8
BLOCKS = 16
"""Blocks that a check of some of the rows opens at most: a row group may be large."""


@dataclass
class DatasetReport:
    """What was found in one data set. lengths: tokens of the checked samples; tokens: by kind, in all."""

    name: str
    recipe: str
    files: int = 0
    rows: int = 0
    checked: int = 0
    bad: int = 0
    too_long: int = 0
    problems: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    lengths: list[int] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    sheet: Path | None = None

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.recipe}): {self.rows} rows in {self.files} files, {self.checked} checked"]
        if self.lengths:
            low, middle, high = np.percentile(self.lengths, (5, 50, 95)).astype(int)
            kinds = ", ".join(f"{kind} {100 * n // sum(self.lengths)} %" for kind, n in self.tokens.items())
            lines.append(f"  tokens a sample: median {middle}, 5-95 % {low}-{high}, most {max(self.lengths)}; {kinds}")
            lines.append(f"  tokens an epoch: about {int(np.mean(self.lengths) * self.rows):,}")
        if self.too_long:
            lines.append(f"  {self.too_long} samples are too long and would be skipped")
        lines += [f"  {line}" for line in (*self.notes, *self.problems)]
        if self.bad > len(self.problems):
            lines.append(f"  and {self.bad - len(self.problems)} more")
        if self.sheet:
            lines.append(f"  pictures: {self.sheet}")
        return "\n".join(lines)


@dataclass
class Report:
    """weights: of the mixture, one for each data set."""

    datasets: list[DatasetReport]
    weights: list[float]

    @property
    def ok(self) -> bool:
        return not any(dataset.bad for dataset in self.datasets)

    def raise_if_bad(self) -> None:
        """Raises InputError with the first problem and the number of the others."""
        bad = sum(dataset.bad for dataset in self.datasets)
        if bad:
            first = next(problem for dataset in self.datasets for problem in dataset.problems)
            raise InputError(first if bad == 1 else f"{first} ({bad - 1} more problems: `bagel data check`)")

    def __str__(self) -> str:
        """With each data set's share of the tokens: a weight counts samples, and samples differ in length."""
        means = [float(np.mean(dataset.lengths)) if dataset.lengths else 0.0 for dataset in self.datasets]
        tokens = [weight * mean for weight, mean in zip(self.weights, means, strict=True)]
        shares = [100 * n / sum(tokens) if sum(tokens) else 0.0 for n in tokens]
        return "\n".join(
            f"{dataset}\n  share of the tokens drawn by weight: {share:.0f} %"
            for dataset, share in zip(self.datasets, shares, strict=True)
        )


def validate(
    config: DataConfig,
    model: ModelConfig,
    tokenizer: TextTokenizer,
    rows: int | None = 200,
    sheets: Path | None = None,
) -> Report:
    """Checks `rows` rows of every data set, spread over it (None: all). `sheets`: a folder for a contact
    sheet of each. Problems are collected, not raised; see `Report.raise_if_bad`."""
    reports = [_check(config, own, model, tokenizer, rows, sheets) for own in config.datasets]
    return Report(reports, [own.weight for own in config.datasets])


def _check(
    config: DataConfig,
    own: DatasetConfig,
    model: ModelConfig,
    tokenizer: TextTokenizer,
    rows: int | None,
    sheets: Path | None,
) -> DatasetReport:
    report = DatasetReport(own.name, own.recipe)
    try:
        dataset = Dataset(config, own, model, tokenizer)
    except InputError as error:
        report.bad, report.problems = 1, [str(error)]
        return report
    return _looked_at(dataset, report, rows, sheets)


def look_over(datasets: Sequence[Dataset], rows: int, bad_rows: str) -> list[str]:
    """What a run does before it takes a device: reads `rows` rows of every data set, spread over it; -> what is wrong
    with some, for a warning.

    Raises InputError where a data set has nothing that can be used, or one bad row while `bad_rows` is `stop`.
    """
    found = (
        [_looked_at(one, DatasetReport(one.name, one.config.recipe), rows, None) for one in datasets] if rows else []
    )
    for report in found:
        if report.bad and (bad_rows == "stop" or not report.lengths):
            Report([report], [1.0]).raise_if_bad()
    return [problem for report in found for problem in report.problems]


def _looked_at(dataset: Dataset, report: DatasetReport, rows: int | None, sheets: Path | None) -> DatasetReport:
    report.files, report.rows, report.notes = len(dataset.source.files), dataset.rows, dataset.source.notes
    shown: list[Sample] = []
    for block, index in _spread(dataset, rows):
        report.checked += 1
        sample = _check_row(dataset, block, index, report)
        if sample and len(shown) < SHEET_SAMPLES:
            shown.append(sample)
    if report.checked and report.too_long == report.checked:
        report.bad += 1
        report.problems.append(f"data set {dataset.name!r}: every sample is too long; see max_num_tokens_per_sample.")
    if sheets and shown:
        sheets.mkdir(parents=True, exist_ok=True)
        report.sheet = sheets / f"{dataset.name}.png"
        contact_sheet(shown).save(report.sheet)
    return report


def _check_row(dataset: Dataset, block: int, index: int, report: DatasetReport) -> Sample | None:
    try:
        sample, _ = dataset.sample(0, block, index)
        counts = dataset.measure(sample, block, index)
    except TooLongError:
        report.too_long += 1
        return None
    except InputError as error:
        report.bad += 1
        if len(report.problems) < MAX_PROBLEMS:
            report.problems.append(str(error))
        return None
    report.lengths.append(sum(counts.values()))
    report.tokens = {kind: report.tokens.get(kind, 0) + n for kind, n in counts.items()}
    return sample


def _spread(dataset: Dataset, rows: int | None) -> Iterator[tuple[int, int]]:
    """(block, index) of the rows to check, the first and the last row among them."""
    sizes = [int(size) for size in dataset.order(0).sizes]
    blocks = [block for block, size in enumerate(sizes) if size]
    if rows is None or rows >= dataset.rows:
        yield from ((block, index) for block in blocks for index in range(sizes[block]))
        return
    blocks = [blocks[i] for i in _even(len(blocks), min(BLOCKS, rows))]
    for block in blocks:
        yield from ((block, index) for index in _even(sizes[block], max(rows // len(blocks), 1)))


def _even(count: int, wanted: int) -> list[int]:
    """Up to `wanted` numbers below `count`, evenly spread, the first and the last among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(wanted, count))})
