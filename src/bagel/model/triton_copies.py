"""The gradient of rows that are listed several times (`bagel.model.varlen.list_keys`), in Triton: each number is summed
by one thread, copy by copy, so that the same bits come out every time.

Letters: T rows, L copies of them.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_TILE = 1024
"""Numbers that a program sums: 8 a thread, one wide load a copy, and few enough registers for an SM full of threads."""
_AT_ONCE = 4
"""Copies whose places are read together: most rows have no more, and wait for them once."""


@triton.jit
def _sum_copies(  # type: ignore[no-untyped-def]
    grad_ptr, copies, copy_ends, out_ptr, count, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.load(copy_ends + row, mask=row < count, other=0)
    number = tl.load(copy_ends + row + 1, mask=row < count, other=0) - first
    inside = (column < WIDTH)[None, :]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    # Neighbours mostly belong to one segment, which a run sees as a whole: their numbers of copies hardly differ.
    for begin in range(0, tl.max(number), AT_ONCE):
        for step in tl.static_range(AT_ONCE):
            listed = begin + step < number
            place = tl.load(copies + first + begin + step, mask=listed, other=0).to(tl.int64)
            each = grad_ptr + place[:, None] * WIDTH + column[None, :]
            total += tl.load(each, mask=listed[:, None] & inside, other=0.0).to(tl.float32)
    out = out_ptr + row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=(row < count)[:, None] & inside)


def sum_copies(grad: Tensor, copies: Tensor, copy_ends: Tensor) -> Tensor:
    """grad [L, ...], copies [L] and copy_ends [T + 1] as in `bagel.runs.PackRuns` -> [T, ...]."""
    grad, count = grad.contiguous(), len(copy_ends) - 1
    out = grad.new_empty(count, *grad.shape[1:])
    width = grad[0].numel()
    columns = min(triton.next_power_of_2(width), 512)
    rows = _TILE // columns
    _sum_copies[(triton.cdiv(count, rows), triton.cdiv(width, columns))](
        grad, copies, copy_ends, out, count, WIDTH=width, ROWS=rows, COLUMNS=columns, AT_ONCE=_AT_ONCE
    )
    return out
