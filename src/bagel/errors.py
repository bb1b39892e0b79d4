"""The errors a user can cause. Each message names the value, the limit and the remedy in one sentence;
the command line prints it alone and exits with 1, the server returns it in the error body."""


class BagelError(Exception):
    """Something the user can put right; its text is meant to be shown."""


class InputError(BagelError, ValueError):
    """A prompt, image, option or script that cannot be used."""


class CheckpointError(BagelError):
    """A model folder that is missing, incomplete, damaged, or of another shape."""


class MemoryPlanError(BagelError):
    """The job does not fit the device."""


class DeviceError(BagelError):
    """A device was asked for that this machine or this build of PyTorch does not have."""
