"""How the processes of a crew come about: started here, one a device, or by torchrun."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import bagel
from bagel.errors import DeviceError
from bagel.parallel.crew import Crew

_RANK, _SIZE, _PORT, _DEVICE = "BAGEL_RANK", "BAGEL_RANKS", "BAGEL_PORT", "BAGEL_RANK_DEVICE"
_HOST = "127.0.0.1"
_START_SECONDS = 300.0


def under_torchrun() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


def torchrun_place(device_type: str) -> tuple[int, int, torch.device]:
    """(rank, ranks, device) of a process that torchrun started."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if device_type == "cuda" else torch.device(device_type)
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device


def stay_local() -> None:
    """Processes of one machine find each other without its name, which may not be known to it."""
    if any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


class Helpers:
    """The processes that follow this one, each on a device. ended: whether they may end, so that nobody is told."""

    def __init__(self, module: str, devices: Sequence[torch.device]) -> None:
        """module: what they run; devices: of all ranks, this one's first. Raises DeviceError."""
        from torch.distributed import TCPStore

        self.ended = False
        stay_local()
        self.store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        source = str(Path(bagel.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
        threads = max(1, torch.get_num_threads() // len(devices))
        shared = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        self.processes = []
        for rank, device in enumerate(devices[1:], start=1):
            place = {_RANK: rank, _SIZE: len(devices), _PORT: self.store.port, _DEVICE: device}
            environment = {**shared, **{key: str(value) for key, value in place.items()}}
            # A session of its own: Ctrl-C is the leader's to hear.
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        self._meet()

    def _meet(self) -> None:
        end = time.monotonic() + _START_SECONDS
        for rank, process in enumerate(self.processes, start=1):
            while not self.store.check([_key(rank)]):
                if process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    raise DeviceError(f"the process of device {rank} did not start; what it said stands above.")
                time.sleep(0.02)

    def watch(self, tell: Callable[[str], None]) -> None:
        """Calls `tell` with a line as soon as one of them ends before it should."""

        def wait(rank: int, process: subprocess.Popen[bytes]) -> None:
            code = process.wait()
            if not self.ended:
                tell(f"the process of device {rank} has ended (exit code {code}); load the model again.")

        for rank, process in enumerate(self.processes, start=1):
            threading.Thread(target=wait, args=(rank, process), name=f"bagel-watch-{rank}", daemon=True).start()

    def finish(self, seconds: float = 20.0) -> None:
        """Waits for those that were told to end; `ended` is set before they are told."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.poll() is None for process in self.processes):
            time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        self.ended = True
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.kill()
            process.wait()


def join_leader() -> Crew:
    """The place in a crew of a process that `Helpers` started."""
    from torch.distributed import TCPStore

    rank, size = int(os.environ[_RANK]), int(os.environ[_SIZE])
    store: Any = TCPStore(_HOST, int(os.environ[_PORT]), is_master=False)
    store.set(_key(rank), "here")
    return Crew.join(store, rank, size, torch.device(os.environ[_DEVICE]))


def _key(rank: int) -> str:
    return f"bagel/{rank}"
