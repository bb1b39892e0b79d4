"""Where a model runs and in which numbers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from bagel.errors import DeviceError, InputError

DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


PACKED_PRECISIONS = ("bf11", "fp8", "int8", "nf4")
PRECISIONS = ("bf16", "fp16", "fp32", *PACKED_PRECISIONS)
"""What `precision` may be: the numbers the weights are kept in. The packed ones keep the decoder's products in
fewer bits and compute in the device's own dtype."""


def on_host() -> AbstractContextManager[Any]:
    """Within it a tensor that names no device is the host's, whatever `torch.set_default_device` says: what is small
    and made on the way is moved by us, once. Where nothing else was set it is nothing, since it slows every call."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """`auto`: a GPU if there is one, else Apple's, else the CPU. Raises DeviceError for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {str(name)!r} is unknown; use auto, cpu, cuda, cuda:1 or mps.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            built = "" if torch.version.cuda or torch.version.hip else " (this PyTorch is built without GPU support)"
            raise DeviceError(f"device {device} was asked for, but there are {count} GPUs{built}; use --device cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device mps was asked for, but this machine has no Apple GPU; use --device cpu.")
    return device


def pick_precision(
    precision: str | None, dtype: str | torch.dtype, device: torch.device
) -> tuple[torch.dtype, str | None]:
    """-> the dtype to compute in, and bf11, fp8, int8 or nf4 where the weights are kept in fewer bits."""
    check_precision(precision)
    packed = precision if precision in PACKED_PRECISIONS else None
    if packed and dtype == "auto" and device.type == "cpu" and computes_bf16():
        return torch.bfloat16, packed
    return pick_dtype(dtype if precision is None or packed else precision, device), packed


def check_precision(precision: str | None) -> None:
    """Raises InputError for one that is not there. None leaves it to the device."""
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is unknown; use one of auto, {', '.join(PRECISIONS)}.")


def computes_bf16() -> bool:
    """Whether the processor has instructions for products in bf16, which then are several times as fast."""
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # newer than PyTorch 2.5
    return bool(known and known())


def pick_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """`auto`: float32 on the CPU; bfloat16 on a GPU that computes in it, else float16. Raises InputError for
    numbers that the model does not compute in."""
    if isinstance(name, torch.dtype) and name in DTYPES.values():
        return name
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
            return torch.float16
        return torch.bfloat16
    if not isinstance(name, str) or name not in DTYPES:
        raise InputError(f"dtype {name!r} is unknown; use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def generator_for(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own. On the CPU PyTorch looks at the lower 32 bits of a seed alone; the upper ones are
    folded in, so that 1 and 1 + 2**32 draw different numbers. Smaller seeds are as they are everywhere."""
    upper = seed >> 32
    return torch.Generator(device).manual_seed(seed ^ (upper * 0x9E3779B1) % 2**32 if upper else seed)
