"""The stream of packs of one consumer (a worker of a rank): rows -> samples -> packs, and the state to go on
from any pack.

1. `Dataset` reads, cooks and encodes one row, told by (epoch, place); it is the same for all consumers.
2. `Packer` draws data sets by weight, asks each for this consumer's next place, and fills packs.
3. Every pack carries the state after it: what is left to read, what waits in the buffer, how many draws
   were made. Each choice depends on the seed and on one of (epoch, row), (consumer, number of the draw).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple, TypeVar

from bagel.data.config import DataConfig, DatasetConfig
from bagel.data.encode import Encoded, Encoder, TooLongError
from bagel.data.limits import TextTokenizer
from bagel.data.order import Epoch, Todo
from bagel.data.packing import TrainPack, assemble
from bagel.data.recipes import Cook
from bagel.data.sample import Sample
from bagel.data.sources import Rows, open_source
from bagel.errors import InputError
from bagel.model.config import ModelConfig

T = TypeVar("T")

MAX_SKIPS, MAX_ROUNDS = 1000, 10
"""So many unusable rows one after the other end the run; of a small data set, as many as it has rows in so many rounds:
its few good rows may come first in one epoch and last in the next, or go to another worker."""


class Dataset:
    """One data set, opened: any row of it as a sample. Raises InputError for what can be known at once."""

    def __init__(self, config: DataConfig, own: DatasetConfig, model: ModelConfig, tokenizer: TextTokenizer) -> None:
        self.config, self.name, self._seed = own, own.name, config.seed
        self._cook = Cook(own)
        try:
            self.encoder = Encoder(config, own, model, tokenizer)
        except InputError as error:
            raise InputError(f"data set {own.name!r}: {error}") from None
        self.source = open_source(own, self._cook.wanted)
        try:
            self._cook.check_columns(self.source.columns)
        except InputError as error:
            raise InputError(f"data set {own.name!r}: {self.source.files[0]}: {error}") from None
        whole = sum(self.source.block_sizes)
        self.rows = min(whole, own.max_rows) if own.max_rows else whole
        self._epochs: dict[int, Epoch] = {}
        self._block: tuple[int, Rows] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the block in hand, for worker processes that are not forked."""
        return {**self.__dict__, "_block": None}

    def sample(self, epoch: int, block: int, index: int) -> tuple[Sample, Random]:
        """A row as a sample, and its randomness, used up by the recipe so far. Raises InputError with data
        set and row."""
        rng = Random(f"{self._seed}/{self.name}/{epoch}/{block}/{index}")
        where = self.source.where(block, index)
        try:
            row, root = self._rows(block)[index], self.source.root(block)
            return self._cook.sample(row, root, f"{self.name}: {where}", rng), rng
        except InputError as error:
            raise InputError(f"data set {self.name!r}, {where}: {error}") from None
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise InputError(
                f"data set {self.name!r}, {where}: the row has a form that the recipe {self.config.recipe} does "
                f"not know ({error!r}); compare it with the recipe's schema in docs/data.md."
            ) from None

    def encoded(self, epoch: int, place: int) -> Encoded:
        """Raises InputError, TooLongError with data set and row."""
        block, index = self.order(epoch).row(place)
        sample, rng = self.sample(epoch, block, index)
        return self._placed(block, index, lambda: self.encoder.encode(sample, rng))

    def measure(self, sample: Sample, block: int, index: int) -> dict[str, int]:
        """`Encoder.measure`, with data set and row in its errors."""
        return self._placed(block, index, lambda: self.encoder.measure(sample))

    def _placed(self, block: int, index: int, work: Callable[[], T]) -> T:
        try:
            return work()
        except InputError as error:
            raise type(error)(f"data set {self.name!r}, {self.source.where(block, index)}: {error}") from None

    def order(self, epoch: int) -> Epoch:
        if epoch not in self._epochs:
            if len(self._epochs) > 2:
                self._epochs.pop(min(self._epochs))
            key = [self._seed, *self.name.encode(), epoch]
            self._epochs[epoch] = Epoch(self.source.block_sizes, self.rows, key, self.config.shuffle)
        return self._epochs[epoch]

    def _rows(self, block: int) -> Rows:
        if self._block is None or self._block[0] != block:
            self._block = None  # frees the old one before the new one comes
            self._block = block, self.source.read(block)
        return self._block[1]


class Waiting(NamedTuple):
    """A sample that fitted no pack yet, and the row it comes from."""

    dataset: str
    epoch: int
    place: int
    sample: Encoded

    @property
    def row(self) -> tuple[str, int, int]:
        return self.dataset, self.epoch, self.place


class Packer:
    """Packs without end. Give the `state` of a pack to go on after it."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        config: DataConfig,
        shift: float,
        consumer: int = 0,
        consumers: int = 1,
        state: Mapping[str, Any] | None = None,
        draws: bool = True,
    ) -> None:
        self._with_draws = draws
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self._config, self._shift = config, shift
        self._consumer, self._consumers = consumer, consumers
        self._names = [dataset.name for dataset in datasets]
        self._shares = list(accumulate(dataset.config.weight for dataset in datasets))
        state = state or fresh_state(self._names)
        self._draws: int = state["draws"]
        self._todos = {name: Todo.from_json(state["todos"][name]) for name in self._names}
        self._waiting = [self._fetched(*row) for row in state["waiting"] if row[0] in self._datasets]
        self._skipped: list[str] = []

    def __iter__(self) -> Iterator[TrainPack]:
        while True:
            yield self._packed()

    def _packed(self) -> TrainPack:
        """The next pack. It is a call of its own, so that a worker which waits holds neither pack nor samples."""
        rules = self._datasets[self._names[0]].encoder.rules
        made = assemble(self._fill(), rules, self._shift, self._config.ce_loss_reweighting, self._with_draws)
        skipped, self._skipped = tuple(self._skipped), []
        return replace(made, skipped=skipped, state=self.state())

    def state(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "draws": self._draws,
            "todos": {name: todo.to_json() for name, todo in self._todos.items()},
            "waiting": [list(waiting.row) for waiting in self._waiting],
        }

    def _fill(self) -> list[Encoded]:
        """The samples of the next pack: one of each mandatory data set, then what waits, then new ones."""
        config, samples, total = self._config, list[Encoded](), 0
        for dataset in self._datasets.values():
            if dataset.config.mandatory:
                new = self._next(dataset)
                if total + new.sample.length <= config.max_num_tokens:
                    samples.append(new.sample)
                    total += new.sample.length
                else:
                    self._waiting.append(new)
        while total < config.expected_num_tokens:
            room = config.max_num_tokens - total
            full = len(self._waiting) >= config.max_buffer_size
            taken = self._waited(room) if full or total < config.prefer_buffer_before else None
            if taken is None and len(self._waiting) > config.max_buffer_size:
                break
            new = taken or self._next(self._drawn())
            if new.sample.length > room:
                self._waiting.append(new)
                continue
            samples.append(new.sample)
            total += new.sample.length
        return samples

    def _waited(self, room: int) -> Waiting | None:
        """Takes the first waiting sample that fits."""
        at = next((i for i, waiting in enumerate(self._waiting) if waiting.sample.length <= room), None)
        return None if at is None else self._waiting.pop(at)

    def _drawn(self) -> Dataset:
        key = f"{self._config.seed}/mixture/{self._consumer}/{self._consumers}/{self._draws}"
        self._draws += 1
        at = bisect(self._shares, Random(key).random() * self._shares[-1])
        return self._datasets[self._names[min(at, len(self._names) - 1)]]

    def _next(self, dataset: Dataset) -> Waiting:
        """The next row of a data set that can be used."""
        tries = min(MAX_ROUNDS * dataset.rows, MAX_SKIPS)
        for _ in range(tries):
            epoch, place, self._todos[dataset.name] = self._todos[dataset.name].next(
                dataset.rows, self._consumer, self._consumers
            )
            try:
                return self._fetched(dataset.name, epoch, place)
            except TooLongError as error:
                self._skipped.append(str(error))
            except InputError as error:
                if self._config.bad_rows == "stop":
                    raise
                self._skipped.append(str(error))
        raise InputError(
            f"data set {dataset.name!r}: {tries} rows in a row cannot be used; the last: {self._skipped[-1]}"
        )

    def _fetched(self, name: str, epoch: int, place: int) -> Waiting:
        return Waiting(name, epoch, place, self._datasets[name].encoded(epoch, place))


def fresh_state(names: Sequence[str]) -> dict[str, Any]:
    return {"draws": 0, "todos": {name: Todo().to_json() for name in names}, "waiting": []}
