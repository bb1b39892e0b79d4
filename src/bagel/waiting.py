"""How PyTorch's threads on the CPU wait for each other; to be settled before PyTorch is loaded."""

import os


def wait_asleep() -> None:
    """They sleep. Else they spin, and where other programs want the same cores that is where most of the time goes.
    OMP_WAIT_POLICY decides if it is set."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
