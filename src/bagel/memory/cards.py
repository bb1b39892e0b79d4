"""The memory of a device, as it is now or as it would be on a card of some size."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from bagel.devices import pick_device, pick_dtype
from bagel.errors import InputError
from bagel.memory.sizes import GIB
from bagel.model.fp8 import can_multiply
from bagel.model.packed import multiplies_int8

DRIVER = int(0.6 * GIB)
"""What an imagined card has lost to the driver and the process's own context before the first tensor."""


@dataclass(frozen=True)
class Card:
    """total, free: bytes; dtype: what it computes in by itself; fp8, int8: whether it multiplies them."""

    name: str
    total: int
    free: int
    dtype: torch.dtype = torch.bfloat16
    fp8: bool = True
    int8: bool = True

    def widens(self, packed: str | None) -> bool:
        """Whether weights in these few bits become wide for a product of many rows."""
        return packed in ("bf11", "nf4") or (packed == "fp8" and not self.fp8) or (packed == "int8" and not self.int8)

    @classmethod
    def of(cls, device: torch.device) -> Card:
        """A GPU, with what other processes leave free and what this one holds without using it."""
        if device.index is None:  # some of what follows wants the number
            device = torch.device(device.type, torch.cuda.current_device())
        free, total = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)  # newer than PyTorch 2.5
        allowed = int(total * fraction(device))
        free = min(free + unused, allowed - torch.cuda.memory_allocated(device))
        name, kind = torch.cuda.get_device_name(device), pick_dtype("auto", device)
        return cls(name, total, free, kind, can_multiply(device), multiplies_int8(device))

    @classmethod
    def imagined(cls, size: str) -> Card:
        """From words like 24, 24GB or 16GB-fp16: a card without bf16 (Turing, Volta); -nofp8: one without fp8
        (Ampere). Raises InputError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:gi?b)?(-fp16|-nofp8)?", size.strip().lower())
        if not found or not 1 <= float(found[1]) <= 1024:
            raise InputError(f"card {size!r} is unknown; give its gigabytes, 1 to 1024, like 24, 16-nofp8 or 16-fp16.")
        total = int(float(found[1]) * GIB)
        kind = torch.float16 if found[2] == "-fp16" else torch.bfloat16
        bf16 = kind is torch.bfloat16
        return cls(f"a card of {found[1]} GB", total, total - DRIVER, kind, found[2] is None, bf16)


def card_of(size: str | None, device: str) -> Card:
    """An imagined card, or the GPU of that name. Raises InputError for a device without memory of its own."""
    if size is not None:
        return Card.imagined(size)
    where = pick_device(device)
    if where.type != "cuda":
        raise InputError(f"device {where} has no memory of its own to plan; name a card by its gigabytes: --card 24.")
    return Card.of(where)


def free_bytes(device: torch.device) -> int:
    """What a request may still take."""
    return Card.of(device).free
