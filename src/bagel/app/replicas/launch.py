"""`bagel serve --replicas N`: the front in this process, N copies of the model behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from bagel.app.replicas.front import Front
from bagel.app.replicas.replica import Replica
from bagel.app.replicas.setup import absolute, gpus_each, ray_running, refusal_in, threads_each
from bagel.app.server.guard import Guard
from bagel.app.server.serve import log_to_stderr, server_of
from bagel.app.server.settings import Settings
from bagel.errors import BagelError, InputError

NAME = "bagel"
Started = Callable[[], None]
Report = Callable[[int, int], None]
"""Called with (replicas ready, replicas in all)."""


def serve_replicas(
    model: Mapping[str, Any],
    settings: Settings,
    copies: int,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    report: Report = lambda ready, total: None,
    started: Started = lambda: None,
) -> None:
    """Serves until SIGINT or SIGTERM. model: arguments of `Bagel.load`; threads: CPU threads of each copy;
    started: called when all replicas are ready."""
    with ray_running(copies):
        gpus = gpus_each(model["device"], copies)
        deployment = model_deployment(absolute(model), settings, threads_each(threads, copies), gpus)
        serve.start(proxy_location="Disabled")
        try:
            handle = _started(deployment.options(num_replicas=copies), copies, report)
            started()
            log_to_stderr()
            front = Front(handle, settings)
            server_of(Guard(front, front), front, settings, host, port).run()
        finally:
            serve.shutdown()


def model_deployment(model: Mapping[str, Any], settings: Settings, threads: int | None, gpus: int) -> Any:
    """The deployment of `Replica`, named Model, not bound yet to a number of replicas. How many requests a replica
    holds is its own affair: beyond its queue it answers 429."""
    options = {
        "name": "Model",
        "max_ongoing_requests": settings.connections,
        "graceful_shutdown_timeout_s": settings.grace + 5,
        "health_check_period_s": 2,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": gpus},
        "request_router_config": RequestRouterConfig(request_router_class="bagel.app.replicas.kept:KeptRouter"),
    }
    bound = {"model": dict(model), "settings": replace(settings, keys=()), "threads": threads}
    return _Deployment(serve.deployment(**options)(Replica), bound)


class _Deployment:
    """A deployment with its arguments."""

    def __init__(self, deployment: Any, arguments: Mapping[str, Any]) -> None:
        self.deployment, self.arguments = deployment, arguments

    def options(self, **options: Any) -> _Deployment:
        return _Deployment(self.deployment.options(**options), self.arguments)

    def bind(self) -> Any:
        return self.deployment.bind(**self.arguments)


def _started(deployment: _Deployment, copies: int, report: Report) -> Any:
    """The handle of the deployment once all replicas are ready. Raises InputError where the model cannot be
    loaded."""
    outcome: list[Any] = []

    def start() -> None:
        try:
            outcome.append(serve.run(deployment.bind(), name=NAME, route_prefix=None))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    message = ""
    while thread.is_alive():
        if (app := serve.status().applications.get(NAME)) and (found := app.deployments.get("Model")):
            report(found.replica_states.get("RUNNING", 0), copies)
            message = found.message or message
        time.sleep(0.2)
    if isinstance(outcome[0], Exception):
        raise _reason(f"{message}\n{outcome[0]}") from outcome[0]
    return outcome[0]


def _reason(told: str) -> BagelError:
    """The sentence in what Ray tells of a start that failed."""
    return InputError(refusal_in(told) or f"the replicas did not start: {told.strip()[-1000:]}")
