"""What stops a training run."""

from bagel.errors import BagelError


class TrainError(BagelError):
    """A run that cannot go on; its last whole checkpoint stays."""
