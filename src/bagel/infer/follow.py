"""A rank that follows: it has contexts of the same numbers as the leader's, and makes the passes it is told."""

from __future__ import annotations

import torch
from torch import Tensor

from bagel.infer.context import Context
from bagel.infer.engine import Engine, Read
from bagel.infer.lead import PassOrder, applied, deal, with_tensor
from bagel.parallel.crew import Crew


@torch.inference_mode()
def follow(engine: Engine, crew: Crew) -> None:
    """Until the leader says that it was all (None). A pass that fails here and there is forgotten, as the leader
    takes it back; one that fails here alone ends this process, since the contexts would differ."""
    contexts: dict[int, Context] = {}
    problem: Exception | None = None
    while True:
        order: PassOrder | None = crew.next_order()
        if order is None:
            return
        if problem is not None and ("failed",) not in order.notes:
            raise problem
        applied(order.notes, contexts, engine)
        problem = None
        try:
            _make_pass(order, contexts, engine, crew)
        except Exception as error:
            problem = error


def _make_pass(order: PassOrder, contexts: dict[int, Context], engine: Engine, crew: Crew) -> None:
    engine.fast = order.fast
    tensors = [torch.empty(shape, dtype=dtype, device=crew.device) for shape, dtype in order.tensors]
    crew.share_out(tensors)
    reads = [
        Read(contexts[number], with_tensor(part, None if index is None else tensors[index]), keep)
        for number, part, index, keep in order.reads
    ]
    owners = deal(reads, crew.grid.branches)
    branch, row, share = crew.place
    mine = [(read, owner) for read, owner in zip(reads, owners, strict=True) if owner in (None, branch)]
    seen = engine._pass([read for read, _ in mine]) if mine else []
    for found, (_, owner) in zip(seen, mine, strict=True):
        if owner and row == share == 0:
            crew.send(_whole(found.latents))


def _whole(latents: Tensor) -> Tensor:
    return latents.contiguous()
