"""BAGEL: one model that reads and writes text and pictures."""

TYPE_CHECKING = False
if TYPE_CHECKING:
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

# Imported when first asked for: most bring PyTorch, which takes seconds that `bagel --help` does not have. Nothing
# else is imported before the command can answer Ctrl-C.
_HOME = {
    "Bagel": "infer.pipeline",
    "BagelError": "errors",
    "CheckpointError": "errors",
    "DeviceError": "errors",
    "Finished": "infer.engine",
    "ImageDone": "infer.result",
    "ImageOptions": "options",
    "ImageStep": "infer.image",
    "InputError": "errors",
    "MemoryPlanError": "errors",
    "Result": "infer.result",
    "Session": "infer.session",
    "Text": "infer.inputs",
    "TextDone": "infer.result",
    "TextOptions": "options",
    "TextPiece": "infer.text",
    "__version__": "version",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
