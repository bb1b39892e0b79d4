"""A live server with the small random model, and OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bagel import Bagel
from conftest import CHECKPOINT
from server.live import Live, running


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads of so small a model would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def served() -> Bagel:
    """The server's own copy; `bagel` makes what its answers are compared with."""
    return Bagel.load(CHECKPOINT, device="cpu")


@pytest.fixture(scope="session")
def live(served: Bagel) -> Iterator[Live]:
    with running(served, body=2 * 1024 * 1024, pixels=1_000_000, drawn_pixels=256 * 256) as server:
        yield server


@pytest.fixture
def client(live: Live) -> Any:
    return live.client()
