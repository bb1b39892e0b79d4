"""A generated world whose answers can be checked: what `mini` is trained and judged on.

`make` and `samples` give exercises, the same ones for the same numbers; `bagel.world.check.judge` judges what a model
makes of them from the output alone (it alone loads SciPy); `contact_sheet` shows them.
"""

from .sample import Picture, Said, Sample, TargetAnswer, TargetPicture, Text, Thought
from .sheet import contact_sheet
from .splits import heldout
from .stream import VERSION, WEIGHTS, make, sample, samples
from .tasks import TASKS

__all__ = [
    "TASKS",
    "VERSION",
    "WEIGHTS",
    "Picture",
    "Said",
    "Sample",
    "TargetAnswer",
    "TargetPicture",
    "Text",
    "Thought",
    "contact_sheet",
    "heldout",
    "make",
    "sample",
    "samples",
]
