"""What a checker says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`ok`, and in one line why. True where a bool is asked for."""

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok


def right(reason: str = "as asked") -> Verdict:
    """A good verdict."""
    return Verdict(True, reason)


def wrong(reason: str) -> Verdict:
    """A bad verdict."""
    return Verdict(False, reason)
