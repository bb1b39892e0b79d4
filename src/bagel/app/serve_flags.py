"""The flags of `bagel serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bagel.app.words import Whole
from bagel.errors import InputError

if TYPE_CHECKING:
    from bagel.app.server.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ServeFlags:
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all, which needs API keys."""
    port: Whole = 8000
    """Port to listen on."""
    api_keys: Annotated[str | None, Parameter(env_var="BAGEL_API_KEYS", show_env_var=True)] = None
    """Keys that requests must bring, separated by commas; better given by the environment than here."""
    open: Annotated[bool, Parameter(name="--open", negative="")] = False
    """Listen beyond this machine without API keys."""
    name: str | None = None
    """The model's name in requests; that of its folder, if not given."""
    active: Whole = 64
    """Jobs under way at a time."""
    queue: Whole = 256
    """Jobs that may wait; beyond it requests are answered with 429."""
    timeout: float = 600.0
    """Seconds that a request may take."""
    grace: float = 30.0
    """Seconds that requests under way get to finish when the server stops."""
    max_body: Whole = 32
    """Most MiB of one request."""
    max_pixels: float = 50.0
    """Most million pixels of a picture that is sent."""
    max_drawn_pixels: float = 4.2
    """Most million pixels of a picture that is asked for."""
    image_hosts: str | None = None
    """Hosts that pictures may be fetched from by https, separated by commas; none if not given."""
    replicas: Whole | None = None
    """Copies of the model, each in a process and on GPUs of its own, through Ray; RAY_ADDRESS names a cluster."""
    threads: Whole | None = None
    """CPU threads of the model; 1 is often the fastest for a small model on a busy machine."""

    def settings(self, model: str) -> Settings:
        """Raises InputError for values that cannot be."""
        from bagel.app.server.settings import MIB, Settings

        for name in ("active", "timeout", "max_body", "max_pixels", "max_drawn_pixels"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.queue < 0 or self.grace < 0 or not 0 <= self.port < 65536 or (self.threads or 1) < 1:
            raise InputError("queue and grace must be 0 or more, port below 65536, threads 1 or more.")
        if self.replicas is not None and self.replicas < 1:
            raise InputError(f"replicas is {self.replicas}; it must be at least 1.")
        keys = words(self.api_keys)
        if not keys and not self.open and self.host not in ("127.0.0.1", "localhost", "::1"):
            raise InputError(f"listening on {self.host} needs API keys (BAGEL_API_KEYS), or --open to go without.")
        return Settings(
            name=self.name or Path(model).resolve().name,
            keys=keys,
            hosts=tuple(host.lower() for host in words(self.image_hosts)),
            active=self.active,
            queue=self.queue,
            body=self.max_body * MIB,
            pixels=int(self.max_pixels * 1e6),
            drawn_pixels=int(self.max_drawn_pixels * 1e6),
            timeout=self.timeout,
            grace=self.grace,
        )


def words(text: str | None) -> tuple[str, ...]:
    """What commas separate."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())
