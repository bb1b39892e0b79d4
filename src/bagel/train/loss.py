"""What the model is told: cross-entropy of the labelled tokens, squared error of the velocities.

Letters: U und tokens, G gen tokens, D model width, C labelled rows, M noised rows, Z latent width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bagel.data.packing import TrainPack
from bagel.model.attention import Attend
from bagel.model.bagel import BagelModel
from bagel.model.decoder import Read
from bagel.train.config import LossPart


class Counts(NamedTuple):
    """What the losses of a step are divided by, over all ranks and all accumulated packs: the sum of the
    labels' weights, and the number of noised tokens."""

    ce: float
    mse: float

    @classmethod
    def of(cls, batches: list[TrainPack]) -> Counts:
        return cls(
            sum(float(batch.ce_weights.double().sum()) for batch in batches),
            float(sum(len(batch.mse_rows) for batch in batches)),
        )


class Errors(NamedTuple):
    """Per token: cross-entropy float32 [C], squared velocity error float32 [M, Z]."""

    ce: Tensor
    mse: Tensor


class Sums(NamedTuple):
    """Of one pack, float32 scalars on the device: weighted cross-entropy, and squared error averaged over the
    numbers of a token. Divided by `Counts` and summed over packs and ranks they are the losses."""

    ce: Tensor
    mse: Tensor


def errors(model: BagelModel, batch: TrainPack, target: Tensor, attend: Attend, chunk_rows: int) -> Errors:
    """One forward of a noised pack. target: velocities float32 [M, Z]. Logits exist for labelled rows only,
    `chunk_rows` of them at a time."""
    num_und, rows = batch.pack.layout.num_und, (batch.ce_rows, batch.mse_rows)
    read = Read(_two_at_least(rows[0], num_und), _two_at_least(rows[1], len(batch) - num_und))
    und, gen = (
        x if len(x) == len(wanted) else x[: len(wanted)]
        for x, wanted in zip(model(batch.pack, attend, read), rows, strict=True)
    )
    velocity = model.velocity(gen)
    return Errors(_cross_entropy(model, und, batch.ce_labels, chunk_rows), (velocity - target) ** 2)


def _two_at_least(rows: Tensor, count: int) -> Tensor:
    """With others of so many behind them, which get no gradient, and in memory of its own: a compiler makes a graph of
    its own for no row, for one, and for the first of a block of memory."""
    missing = min(2, count) - len(rows)
    if missing <= 0:
        return rows.clone()
    return torch.cat((rows, (rows + 1) % count)) if len(rows) else torch.arange(missing, device=rows.device)


def _cross_entropy(model: BagelModel, rows: Tensor, labels: Tensor, chunk_rows: int) -> Tensor:
    def of_chunk(rows: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model.logits(rows).float(), labels, reduction="none")

    if len(rows) <= chunk_rows:
        return of_chunk(rows, labels)
    chunks = zip(rows.split(chunk_rows), labels.split(chunk_rows), strict=True)
    return torch.cat([checkpoint(of_chunk, *chunk, use_reentrant=False) for chunk in chunks])


def sums(found: Errors, batch: TrainPack) -> Sums:
    return Sums((found.ce * batch.ce_weights).sum(), found.mse.mean(-1).sum())


def total(found: Sums, counts: Counts, part: LossPart) -> Tensor:
    """This pack's share of the step's loss. A task without a token in the whole step counts nothing, but keeps
    its place in the graph: under FSDP every rank must reduce the same gradients."""
    ce = found.ce * (part.ce_weight / max(counts.ce, 1e-12) if counts.ce else 0.0)
    mse = found.mse * (part.mse_weight / counts.mse if counts.mse else 0.0)
    return ce + mse
