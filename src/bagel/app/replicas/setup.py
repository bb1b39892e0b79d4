"""Ray itself: started here or joined, and what each copy of the model gets of it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bagel.errors import BagelError, InputError
from bagel.infer.pipeline import Bagel

_REFUSED = "bagel cannot load the model: "


@contextlib.contextmanager
def ray_running(copies: int) -> Iterator[None]:
    """Ray of this machine's own, or the cluster that RAY_ADDRESS names; left again at the end. Raises InputError
    where Ray is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = _ray()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what goes wrong is said by us
    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"num_cpus": max(os.cpu_count() or 1, copies + 1), "include_dashboard": False}
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints what happens to its processes
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **({} if address else own))
        except ConnectionError as error:
            raise InputError(f"there is no Ray at RAY_ADDRESS={address} ({error}); start it, or unset it.") from None
        try:
            yield
        finally:
            ray.shutdown()


def check_installed() -> None:
    """Raises InputError where Ray is not."""
    _ray()


def _ray() -> Any:
    try:
        import ray
        import ray.data
        import ray.serve
    except ModuleNotFoundError as error:
        text = f"several copies of the model need {error.name}; pip install 'bagel-mot[ray]'."
        raise InputError(text) from None
    return ray


def gpus_each(device: str, copies: int) -> int:
    """GPUs that each copy needs, after Ray has started; it sees those alone, numbered from 0. Raises InputError
    where there are too few."""
    there = int(_ray().cluster_resources().get("GPU", 0))
    names = device.split(",")
    if device == "auto":
        each = min(there, 1)
    elif not device.startswith("cuda"):
        each = 0
    else:
        each = len(names)
        if names not in (["cuda"], [f"cuda:{number}" for number in range(each)]):
            text = f"device is {device}, but each copy gets GPUs of its own, numbered from 0; "
            raise InputError(text + "use cuda, or cuda:0,cuda:1 to share the layers.")
    if each * copies > there:
        raise InputError(f"{copies} copies of the model need {each * copies} GPUs; Ray has {there}.")
    return each


def threads_each(threads: int | None, copies: int) -> int:
    """CPU threads of each copy, if nothing else is said an even part of this machine's."""
    return threads or max((os.cpu_count() or 1) // copies, 1)


def loaded(model: Mapping[str, Any]) -> Bagel:
    """In a process of Ray: the model, or an error with the sentence that `refusal_in` finds again."""
    try:
        return Bagel.load(**model)
    except BagelError as error:
        raise RuntimeError(f"{_REFUSED}{' '.join(str(error).split())}") from None


def refusal_in(told: object) -> str | None:
    """The sentence of `loaded` in what Ray tells of a process that did not start."""
    _, found, rest = str(told).partition(_REFUSED)
    return rest.splitlines()[0].strip() if found else None


def absolute(model: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Bagel.load` with the folders' whole paths: other processes start elsewhere."""

    def whole(folder: str) -> str:
        return str(Path(folder).resolve()) if Path(folder).is_dir() else folder

    lora = [(whole(folder), weight) for folder, weight in model.get("lora") or ()]
    return {**model, "model": whole(model["model"]), "lora": lora or None}
