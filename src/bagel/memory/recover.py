"""After the device ran out of memory: what the failed request held is let go, so that the next one runs."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable

import torch

from bagel.errors import MemoryPlanError

_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch raises its own error on a GPU, and a plain RuntimeError on the CPU or from the libraries it calls."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def relieved(error: Exception, forget: Callable[[], None]) -> Exception:
    """An error as it is; one of memory as a MemoryPlanError that keeps nothing alive, after the frames that it
    came through, captured graphs (`forget`) and the allocator's cache were let go."""
    if not is_out_of_memory(error):
        return error
    said = " ".join(str(error).split())[:160]
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = error.__context__ = error.__cause__ = None
    forget()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return MemoryPlanError(
        f"the device ran out of memory during this request ({said}); its memory was given back and other requests go "
        "on. Something else may use the device; else ask for a smaller picture, fewer at once or a shorter text."
    )
