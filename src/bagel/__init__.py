"""BAGEL: one model that reads and writes text and pictures."""

from bagel.errors import BagelError, CheckpointError, DeviceError, InputError, MemoryPlanError
from bagel.infer.inputs import Text
from bagel.infer.pipeline import Bagel
from bagel.infer.result import Result
from bagel.infer.session import Session
from bagel.options import ImageOptions, TextOptions
from bagel.version import __version__

__all__ = [
    "Bagel",
    "BagelError",
    "CheckpointError",
    "DeviceError",
    "ImageOptions",
    "InputError",
    "MemoryPlanError",
    "Result",
    "Session",
    "Text",
    "TextOptions",
    "__version__",
]
