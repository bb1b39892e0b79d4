"""Memory of the host that a piece of work takes beside files it maps."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")
OWN = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
"""Pages of this process alone and those it shares without a file; pages of mapped files are the system's cache."""


def own_bytes() -> int | None:
    """What this process holds in the host's memory, mapped files left out; None where the system does not say."""
    try:
        found = OWN.findall(STATUS.read_text(encoding="ascii"))
    except OSError:
        return None
    return 1024 * sum(map(int, found)) if found else None


class HostPeak:
    """`with HostPeak() as peak: ...`; then peak.bytes: the most that was held inside above what was held before,
    looked at every `period` seconds by a thread; None where the system does not say."""

    def __init__(self, period: float = 0.005) -> None:
        self.bytes: int | None = None
        self._period = period
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> HostPeak:
        self._before = own_bytes()
        if self._before is not None:
            self.bytes = 0
            self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch.is_alive():
            self._ended.set()
            self._watch.join()

    def _look(self) -> None:
        last = False
        while not last:
            last = self._ended.wait(self._period)
            self.bytes = max(self.bytes or 0, (own_bytes() or 0) - (self._before or 0))
