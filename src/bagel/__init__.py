"""BAGEL: one model that reads and writes text and pictures."""

from bagel.errors import BagelError, CheckpointError, DeviceError, InputError, MemoryPlanError
from bagel.infer.engine import Finished
from bagel.infer.image import ImageStep
from bagel.infer.inputs import Text
from bagel.infer.pipeline import Bagel
from bagel.infer.result import ImageDone, Result, TextDone
from bagel.infer.session import Session
from bagel.infer.text import TextPiece
from bagel.options import ImageOptions, TextOptions
from bagel.version import __version__

__all__ = [
    "Bagel",
    "BagelError",
    "CheckpointError",
    "DeviceError",
    "Finished",
    "ImageDone",
    "ImageOptions",
    "ImageStep",
    "InputError",
    "MemoryPlanError",
    "Result",
    "Session",
    "Text",
    "TextDone",
    "TextOptions",
    "TextPiece",
    "__version__",
]
