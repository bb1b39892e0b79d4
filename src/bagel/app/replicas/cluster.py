"""The server as an application of Ray Serve, for a cluster: what a Serve config file names as its import path."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import replace
from typing import Any

from ray import serve

from bagel.app.model_flags import ModelFlags
from bagel.app.replicas.front import Front
from bagel.app.replicas.launch import model_deployment
from bagel.app.replicas.setup import absolute
from bagel.app.serve_flags import ServeFlags, words
from bagel.app.server.guard import Guard
from bagel.app.server.settings import Settings
from bagel.errors import InputError


def application(arguments: dict[str, Any]) -> Any:
    """arguments: flags of `bagel serve` by name, `max_body: 64` for one. Keys are no arguments: each front takes
    them from BAGEL_API_KEYS of its machine, so that no config file holds them. GPUs a replica:
    `ray_actor_options` of the deployment Model. Raises InputError."""
    flag_names, model_names = ({field.name for field in dataclasses.fields(cls)} for cls in (ServeFlags, ModelFlags))
    unknown = set(arguments) - (flag_names | model_names) | set(arguments) & {"host", "port", "api_keys", "replicas"}
    if unknown:
        raise InputError(f"{', '.join(sorted(unknown))}: no arguments of the application; see `bagel serve --help`.")
    flags = ServeFlags(**{name: value for name, value in arguments.items() if name in flag_names})
    source = ModelFlags(**{name: value for name, value in arguments.items() if name in model_names})
    settings = flags.settings(source.model)
    model = model_deployment(absolute(source.arguments()), settings, flags.threads, gpus=0)
    deployment: Any = FrontDeployment
    return deployment.bind(model.bind(), settings, flags.open)


@serve.deployment(name="Front", max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class FrontDeployment:
    """The front behind Ray's own HTTP proxies."""

    def __init__(self, handle: Any, settings: Settings, is_open: bool) -> None:
        keys = words(os.environ.get("BAGEL_API_KEYS"))
        if not keys and not is_open:
            raise RuntimeError("set BAGEL_API_KEYS on the machines of the cluster, or `open: true` to go without")
        self.front = Front(handle, replace(settings, keys=keys))

    def __serve_build_asgi_app__(self) -> Guard:
        return Guard(self.front, self.front)
