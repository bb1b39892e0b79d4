"""Bars with the time left, on stderr, while a model folder is downloaded."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bagel.hub_clients import RemoteFile, held

_LOOK_EVERY = 0.25  # seconds


class Bars:
    """One bar for the whole download, one for each long check. What has arrived is read off the disk: the
    client libraries and their versions have no common way of telling."""

    def __init__(self, files: list[RemoteFile], shown: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),  # this very stream: sys.stderr is redirected during a fetch
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not shown,
        )
        self._total = sum(file.size for file in files)
        self._done = 0

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, present: list[RemoteFile]) -> None:
        """Show the whole download; `present` need not be fetched."""
        self._done = sum(file.size for file in present)
        self._task = self._progress.add_task("download", total=self._total, completed=self._done)

    @contextmanager
    def fetching(self, file: RemoteFile, folder: Path) -> Iterator[None]:
        """Follow how `file` grows in `folder`, where nothing else lies."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(_LOOK_EVERY):
                self._progress.update(self._task, completed=self._done + min(file.size, held(folder)))

        self._progress.update(self._task, description=file.name)
        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            over.set()
            follower.join()
        self._done += file.size
        self._progress.update(self._task, completed=self._done)

    @contextmanager
    def checking(self, file: RemoteFile) -> Iterator[Callable[[int], None]]:
        """Gives the function to call with the number of bytes just read."""
        task = self._progress.add_task(f"check {file.name}", total=file.size)
        try:
            yield lambda count: self._progress.advance(task, count)
        finally:
            self._progress.remove_task(task)
