"""Packs for one rank: worker processes, exact resume on the same or on another number of ranks and workers.

Every pack brings the state of its worker after it, so that the state of the loader is that of the packs that
were handed out, whatever lies ready in the queues. (A stateful loader library would keep the workers' states
in its own sealed form, which cannot be dealt out again to another number of ranks.)
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bagel.data.block import Parcel
from bagel.data.config import DataConfig
from bagel.data.limits import TextTokenizer
from bagel.data.order import Todo, share_again
from bagel.data.packing import TrainPack
from bagel.data.stream import Dataset, Packer, fresh_state
from bagel.errors import InputError
from bagel.model.config import ModelConfig

VERSION = 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt, in malloc.h


def open_datasets(config: DataConfig, model: ModelConfig, tokenizer: TextTokenizer) -> list[Dataset]:
    """Finds all files and counts all rows. Raises InputError, naming the data set."""
    return [Dataset(config, own, model, tokenizer) for own in config.datasets]


class PackLoader:
    """Iterate for packs, without end. Iterating again goes on after the last pack handed out.

    draws: whether packs bring what latents are sampled with. wait_seconds: spent so far waiting for packs; skipped:
    rows passed over so far.
    """

    def __init__(
        self,
        config: DataConfig,
        model: ModelConfig,
        tokenizer: TextTokenizer,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        draws: bool = True,
    ) -> None:
        self.datasets = open_datasets(config, model, tokenizer)
        self._config, self._rank, self._world = config, rank, world_size
        self._shift = config.timestep_shift or model.timestep_shift
        self._pin, self._draws = pin_memory, draws
        self._lanes = max(1, config.workers)
        self._states = [fresh_state([d.name for d in self.datasets]) for _ in range(self._lanes)]
        self._next = 0
        self.wait_seconds = 0.0
        self.skipped = 0

    def __iter__(self) -> Iterator[TrainPack]:
        packs = iter(self._loader())
        while True:
            yield self._taken(packs)

    def _taken(self, packs: Iterator[Sent]) -> TrainPack:
        """The next pack. It is a call of its own, so that no one but the caller holds the pack's memory."""
        start = time.perf_counter()
        got = _next(packs)
        self.wait_seconds += time.perf_counter() - start
        if isinstance(got, _Failure):
            raise InputError(got.message)
        pack = got.opened()
        self._states[self._next] = dict(pack.state)
        self._next = (self._next + 1) % self._lanes
        self.skipped += len(pack.skipped)
        return replace(pack, state=self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Of this rank, after the last pack handed out; plain values. Every pack carries it too, as `state`: a
        trainer that takes packs ahead saves the state of the last one it used. Save those of all ranks together."""
        return {
            "version": VERSION,
            "rank": self._rank,
            "world_size": self._world,
            "workers": self._lanes,
            "next": self._next,
            "seed": self._config.seed,
            "rows": {dataset.name: dataset.rows for dataset in self.datasets},
            "consumers": list(self._states),
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Takes the states of all ranks, in any order. With the numbers of ranks and workers of the saved run
        the packs go on exactly; else every row that was left, or waited in a buffer, is dealt out anew, so
        that none is lost or seen twice in its epoch. A data set that is new starts at its beginning."""
        ordered = sorted(states, key=lambda state: state["rank"])
        saved = self._check(ordered)
        if (saved["world_size"], saved["workers"]) == (self._world, self._lanes):
            own = ordered[self._rank]
            self._states = [self._completed(state) for state in own["consumers"]]
            self._next = own["next"]
        else:
            consumers = [consumer for state in ordered for consumer in state["consumers"]]
            dealt = self._dealt(consumers)
            self._states = dealt[self._rank * self._lanes : (self._rank + 1) * self._lanes]
            self._next = 0

    def _check(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        if not states or [state["rank"] for state in states] != list(range(states[0]["world_size"])):
            raise InputError(
                "the data states of all ranks of the saved run are needed, one of each; resume from a whole checkpoint."
            )
        if states[0]["version"] != VERSION:
            raise InputError(
                f"the data state has version {states[0]['version']}, this program writes {VERSION}; resume with "
                "the release that saved it."
            )
        if states[0]["seed"] != self._config.seed:
            raise InputError(
                f"the run was saved with data.seed {states[0]['seed']}, and {self._config.seed} is another order of "
                "the rows; resume with the seed that was saved."
            )
        for dataset in self.datasets:
            rows = states[0]["rows"].get(dataset.name, dataset.rows)
            if rows != dataset.rows:
                raise InputError(
                    f"data set {dataset.name!r} had {rows} rows when the run was saved and has {dataset.rows} now; "
                    "restore it, or give it another name to start it anew."
                )
        return states[0]

    def _completed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        fresh = fresh_state([dataset.name for dataset in self.datasets])
        return {**state, "todos": {**fresh["todos"], **state["todos"]}}

    def _dealt(self, consumers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A state for every consumer of this run."""
        count = self._world * self._lanes
        draws = max(consumer["draws"] for consumer in consumers)
        dealt = [{**fresh_state([d.name for d in self.datasets]), "draws": draws} for _ in range(count)]
        for dataset in self.datasets:
            todos = [Todo.from_json(c["todos"][dataset.name]) for c in consumers if dataset.name in c["todos"]]
            if not todos:
                continue
            waiting = [(epoch, place) for c in consumers for name, epoch, place in c["waiting"] if name == dataset.name]
            for state, todo in zip(dealt, share_again(todos, waiting, dataset.rows, count), strict=True):
                state["todos"][dataset.name] = todo.to_json()
        return dealt

    def _loader(self) -> DataLoader[Sent]:
        workers = self._config.workers
        packs = _Packs(self.datasets, self._config, self._shift, self._rank, self._world, self._draws)
        packs.states, packs.first = list(self._states), self._next
        fork = "fork" in multiprocessing.get_all_start_methods()
        return DataLoader(
            packs,
            batch_size=None,
            num_workers=workers,
            pin_memory=self._pin,
            prefetch_factor=self._config.prefetch if workers else None,
            multiprocessing_context=("fork" if fork else None) if workers else None,
            worker_init_fn=_settle,
        )


def _settle(worker: int) -> None:
    """A worker makes the same hundreds of megabytes again for every pack: with memory that the C library keeps for the
    next one it takes a fifth less time, and a tenth less where Python seldom looks for garbage among all it holds."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "mallopt"):  # glibc: nothing gets a mapping of its own, and up to 1 GiB that is free stays
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def of_a_killed_worker(error: BaseException) -> InputError | None:
    """The sentence for an error that says that a worker was killed. PyTorch raises it wherever the process happens to
    be when the worker dies."""
    if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
        return None
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
    return InputError(
        f"a worker that reads the data has died ({said}), most often for lack of memory: lower data.workers or "
        "data.prefetch, and give a container shared memory (docs/data.md)."
    )


def _next(packs: Iterator[Sent]) -> Sent:
    try:
        return next(packs)
    except (RuntimeError, ConnectionError, EOFError) as error:
        killed = of_a_killed_worker(error)
        if killed:
            raise killed from error
        raise


class _Failure:
    """An error of a worker as a value, so that its one sentence arrives without a traceback around it."""

    def __init__(self, message: str) -> None:
        self.message = message


Sent = Parcel[TrainPack] | _Failure
"""What a worker hands over."""


class _Packs(IterableDataset[Sent]):
    """What a worker runs. The loader takes packs from its workers in turn, from worker 0 on; `first` is the
    one whose turn it was when the state was taken."""

    def __init__(
        self, datasets: Sequence[Dataset], config: DataConfig, shift: float, rank: int, world: int, draws: bool
    ) -> None:
        self._datasets, self._config, self._shift = datasets, config, shift
        self._rank, self._world, self._draws = rank, world, draws
        self.states: list[dict[str, Any]] = []
        self.first = 0

    def __iter__(self) -> Iterator[Sent]:
        info = get_worker_info()
        lanes = len(self.states)
        lane = ((info.id if info else 0) + self.first) % lanes
        consumer, consumers = self._rank * lanes + lane, self._world * lanes
        try:
            state = self.states[lane]
            packs = Packer(self._datasets, self._config, self._shift, consumer, consumers, state, self._draws)
            yield from map(Parcel.of, packs)
        except InputError as error:
            yield _Failure(str(error))
