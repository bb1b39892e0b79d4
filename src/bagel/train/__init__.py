"""Training: `run` is what `bagel train` calls, `train` what a program calls."""

from bagel.train.config import TrainConfig
from bagel.train.errors import TrainError

__all__ = ["TrainConfig", "TrainError"]
