"""A model loaded over several processes: the leader plans and starts them, each reads its part of the weights, and
the leader's runtime makes every pass with all of them."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from bagel import checkpoint as checkpoints
from bagel.checkpoint import read_config
from bagel.errors import DeviceError, InputError, MemoryPlanError
from bagel.infer.conversation import Runtime
from bagel.infer.follow import follow
from bagel.infer.lead import LeadEngine
from bagel.infer.loading import (
    Wanted,
    load_runtime,
    measure_room,
    pick_devices,
    read_weights,
    setup_of,
    with_stored_precision,
)
from bagel.memory.place import arrange, placer
from bagel.memory.plan import Setup
from bagel.model.bagel import BagelModel
from bagel.parallel.crew import Crew, check_free, leave
from bagel.parallel.grid import Grid, candidates, check, parse
from bagel.parallel.launch import Helpers, torchrun_place, under_torchrun
from bagel.parallel.rows import SharedRows
from bagel.parallel.shares import Cut, join_shares


@dataclass(frozen=True)
class LoadOrder:
    """What every rank loads."""

    folder: Path
    wanted: Wanted
    grid: Grid
    setup: Setup

    def wanted_on(self, device: torch.device) -> Wanted:
        return replace(self.wanted, device=str(device))


def load_together(folder: Path, wanted: Wanted, report: checkpoints.Report | None = None) -> Runtime:
    """The leader's runtime, over the devices that were named, or the ranks of torchrun; those that do not lead
    serve it, and never return. Raises what loading in one process raises."""
    if wanted.parallel == "layers":
        return load_runtime(folder, replace(wanted, parallel=None), report)
    if under_torchrun():
        rank, size, device = torchrun_place(pick_devices(wanted.device)[0].type)
        if rank:
            serve(Crew.join(None, rank, size, device))
            sys.exit(0)
        devices = [device] * size
    else:
        devices = _devices(wanted)
    wanted = with_stored_precision(folder, replace(wanted, device=str(devices[0])))
    if len(devices) == 1:
        if wanted.parallel != "auto":
            parse(str(wanted.parallel), 1)  # which refuses ways that are unknown, or for more devices
        return load_runtime(folder, replace(wanted, parallel=None), report)
    grid, setup = _planned(folder, wanted, devices)
    check_free()
    helpers = None if under_torchrun() else Helpers("bagel.infer.helper", devices)
    try:
        crew = Crew.join(helpers.store if helpers else None, 0, len(devices), devices[0])
        order = LoadOrder(folder, wanted, grid, setup)
        crew.order(order)
        runtime = _loaded(crew, order, report)
    except BaseException:
        if helpers:
            helpers.kill()
        leave()
        raise
    runtime = _leading(runtime, crew, helpers)
    runtime.engine.fast = wanted.compile  # the others are told with every pass
    return runtime


def _devices(wanted: Wanted) -> list[torch.device]:
    if wanted.device in ("auto", "cuda") and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices = pick_devices(wanted.device)
    if any(device.type not in ("cpu", "cuda") for device in devices) or len({device.type for device in devices}) > 1:
        raise InputError(f"parallel {wanted.parallel!r} is for GPUs, or for processes on the CPU (device cpu,cpu).")
    if devices[0].type == "cuda" and len(set(devices)) < len(devices):
        raise InputError(f"device {wanted.device!r} names a GPU twice; each process needs one of its own.")
    return devices


def _planned(folder: Path, wanted: Wanted, devices: list[torch.device]) -> tuple[Grid, Setup]:
    """How the work is shared out and the weights are kept, by the memory of the first device. Raises
    MemoryPlanError where nothing fits."""
    llm = read_config(folder).llm
    if wanted.parallel not in (None, "auto"):
        grid = check(parse(str(wanted.parallel), len(devices)), llm)
        return grid, setup_of(folder, wanted, devices[:1], grid.tensor)
    *others, last = candidates(len(devices), llm)
    for grid in others:
        with contextlib.suppress(MemoryPlanError):
            return grid, setup_of(folder, wanted, devices[:1], grid.tensor)
    return last, setup_of(folder, wanted, devices[:1], last.tensor)


def _loaded(crew: Crew, order: LoadOrder, report: checkpoints.Report | None = None) -> Runtime:
    """A rank's part. All ranks raise if one fails."""

    def look() -> None:
        crew.take_places(order.grid)
        if crew.rank:  # the leader has planned with its own memory
            setup_of(order.folder, order.wanted_on(crew.device), [crew.device], order.grid.tensor)

    _agreed(crew, look)
    return _agreed(crew, lambda: _part(crew, order, report))


class _ElsewhereError(DeviceError):
    """Another rank failed."""


Made = TypeVar("Made")


def _agreed(crew: Crew, work: Callable[[], Made]) -> Made:
    """What `work` gives. Raises on every rank if it fails on one; its own error where that is this one."""
    try:
        made = work()
    except Exception as error:
        crew.gather((str(error), isinstance(error, MemoryPlanError)))
        raise
    for rank, problem in enumerate(crew.gather(None)):
        if problem is not None:
            text, memory = problem
            raise MemoryPlanError(text) if memory else _ElsewhereError(f"device {rank} could not load: {text}")
    return made


def _part(crew: Crew, order: LoadOrder, report: checkpoints.Report | None) -> Runtime:
    *_, share = crew.place
    setup, device = order.setup, crew.device
    cut = Cut(share, order.grid.tensor) if order.grid.tensor > 1 else None
    planned = placer(setup, device)
    host = torch.device("cpu")

    def where(name: str) -> torch.device:
        """The leader alone encodes and decodes pictures."""
        return host if crew.rank and name.startswith("vae.") else planned(name)

    checkpoint = read_weights(order.folder, order.wanted, setup, device, where, report, cut)
    place_in(crew, checkpoint.model)
    runtime = Runtime.of(checkpoint)
    arrange(checkpoint, replace(setup, offload=tuple(p for p in setup.offload if p != "vae" or not crew.rank)), device)
    measure_room(runtime, setup)
    return runtime


def place_in(crew: Crew, model: BagelModel) -> None:
    """Ties a rank's model to the others'."""
    _, row, share = crew.place
    if crew.grid.tensor > 1:
        join_shares(model, crew.groups["tensor"], Cut(share, crew.grid.tensor))
    if crew.grid.rows > 1:
        model.decoder.through = SharedRows(crew.groups["rows"], row, crew.grid.rows)


def _leading(runtime: Runtime, crew: Crew, helpers: Helpers | None) -> Runtime:
    engine = LeadEngine(runtime.engine.model, runtime.engine.rules, crew=crew)
    runtime.engine = engine
    gone = weakref.ref(engine)

    def tell(text: str) -> None:
        found = gone()
        if found is not None:
            found.broken = text
            crew.abort()

    if helpers:
        helpers.watch(tell)
    engine.ending = weakref.finalize(engine, _end, crew, helpers)
    return runtime


def _end(crew: Crew, helpers: Helpers | None) -> None:
    """When the leader's model goes."""
    if helpers:
        helpers.ended = True  # before they are told: they may be gone sooner than this process goes on
    try:
        crew.order(None)
    except RuntimeError:  # they have gone before
        if helpers:
            helpers.kill()
    if helpers:
        helpers.finish()
    crew.leave()


def serve(crew: Crew) -> None:
    """A rank that follows, to the leader's end."""
    try:
        order: LoadOrder | None = crew.next_order()
        if order is not None:
            follow(_loaded(crew, order).engine, crew)
    except _ElsewhereError:  # the leader says it
        pass
    crew.leave()
