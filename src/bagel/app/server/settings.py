"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """active, queue: jobs under way, and jobs that may wait besides; text_passes: see `scheduler.Limits`.

    body, bodies: bytes of one request, and of all that are being handled; pixels: of one picture that is sent;
    drawn_pixels: of one that is asked for. timeout: seconds from a request's queueing to its end; body_timeout:
    seconds for its body to arrive; grace: seconds that requests under way get to finish when the server stops.
    hosts: from which pictures may be fetched, none by default; keys: API keys, none needed by default.
    """

    name: str = "bagel"
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    active: int = 64
    queue: int = 256
    text_passes: int = 4
    connections: int = 1000
    body: int = 32 * MIB
    bodies: int = 512 * MIB
    pixels: int = 50_000_000
    drawn_pixels: int = 2048 * 2048
    pictures: int = 16
    letters: int = 200_000
    n: int = 8
    tokens: int = 8192
    timesteps: int = 250
    previews: int = 3
    timeout: float = 600.0
    body_timeout: float = 30.0
    grace: float = 30.0
