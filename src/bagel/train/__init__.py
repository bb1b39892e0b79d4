"""Training: `bagel.train.loop.run` is what `bagel train` calls, `bagel.train.loop.train` what a program calls."""

from bagel.train.config import TrainConfig
from bagel.train.errors import TrainError

__all__ = ["TrainConfig", "TrainError"]
