"""From users' files to packs of training samples, exact to resume; docs/data.md is the guide.

    files -> `sources` (rows) -> `recipes` (Sample) -> `encode` (segments) -> `packing` (TrainPack)

`stream` runs this for one worker, `loader` for one rank, `check` before a run.
"""

from bagel.data.check import Report, validate
from bagel.data.config import DataConfig, DatasetConfig
from bagel.data.loader import PackLoader
from bagel.data.packing import TrainPack, times_of

__all__ = ["DataConfig", "DatasetConfig", "PackLoader", "Report", "TrainPack", "times_of", "validate"]
