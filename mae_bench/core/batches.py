"""Which sample is drawn when: a function of (seed, step), independent of workers and of the past.

And what becomes of batches and of the data workers that make them.
"""

import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.samples import TRIES, Failure, Made, Skipped, attempt, loaded_by, unpack
from mae_bench.core.seeding import derive, generator, seed_host

Key = tuple[int, int]
"""(epoch, index) of one drawn sample."""
SECONDS_TO_TELL = 1.0
"""Time in which a process is told that another one it started has died, at most."""


class MapData(Sized, Protocol):
    """What is trained on: samples by number."""

    def __getitem__(self, index: int) -> Any:
        """One sample, with whatever random augmentation it has."""
        ...


@dataclass(frozen=True)
class Order:
    """The order of samples of a whole training: one seeded permutation after another."""

    size: int
    """Number of samples in the data set."""
    batch_size: int
    """Samples of one optimizer step, over all processes."""
    seed: int
    drop_last: bool = True
    """Whether an epoch's incomplete last batch is left out; without, batches run on into the next epoch."""

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps of one pass over the data."""
        return self.size // self.batch_size if self.drop_last else self.size / self.batch_size

    def batch(self, step: int) -> list[Key]:
        """The samples of a step, counted from 0."""
        first = step * self.batch_size
        if self.drop_last:
            epoch, place = divmod(step, self.size // self.batch_size)
            first = epoch * self.size + place * self.batch_size
        places = [divmod(position, self.size) for position in range(first, first + self.batch_size)]
        permutations = {epoch: self._permutation(epoch) for epoch, _ in places}
        return [(epoch, permutations[epoch][offset]) for epoch, offset in places]

    def _permutation(self, epoch: int) -> list[int]:
        if getattr(self, "_cached", (None,))[0] != epoch:
            numbers = torch.randperm(self.size, generator=generator(self.seed, "order", epoch)).tolist()
            object.__setattr__(self, "_cached", (epoch, numbers))
        return self._cached[1]  # type: ignore[attr-defined]


class Seeded(Dataset[Any]):
    """Seeds all generators from (seed, epoch, index) just before a sample is made."""

    def __init__(self, data: MapData, seed: int) -> None:
        self._data = data
        self._seed = seed

    def __getitem__(self, key: Key) -> Any:
        """One sample by (epoch, index)."""
        epoch, index = key
        seed_host(self._seed, "sample", epoch, index)
        return self._data[index]


class Draws(Dataset[Made]):
    """Samples of the training order; another is drawn in the place of one that cannot be made.

    Which one is a function of (seed, epoch, index) too, so that a resumed training draws the same.
    """

    def __init__(self, data: MapData, seed: int, *, replace: bool) -> None:
        self._data, self._samples, self._seed, self._replace = data, Seeded(data, seed), seed, replace

    def __getitem__(self, key: Key) -> Made:
        """One sample by (epoch, index), or the one drawn in its place, with what failed before it."""
        epoch, index = key
        failures: list[Failure] = []
        for place in range(1 + TRIES if self._replace else 1):
            drawn = index if place == 0 else derive(self._seed, "replace", epoch, index, place) % len(self._data)
            made = attempt(lambda drawn=drawn: self._samples[epoch, drawn], drawn)
            failures += made.failures
            if made.samples:
                return Made(made.samples, failures)
        return Made([], failures)


@dataclass(frozen=True)
class Share:
    """Which part of each batch one process computes, and in how many micro-batches."""

    rank: int = 0
    world: int = 1
    accumulate: int = 1


class Batches:
    """Batch sampler: the micro-batches of one process from a step on to the end."""

    def __init__(self, order: Order, start: int, stop: int, share: Share) -> None:
        self._order, self._start, self._stop, self._share = order, start, stop, share

    def __len__(self) -> int:
        """Number of micro-batches."""
        return (self._stop - self._start) * self._share.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield the samples of each micro-batch; every process takes each `world`-th sample."""
        for step in range(self._start, self._stop):
            mine = self._order.batch(step)[self._share.rank :: self._share.world]
            size = len(mine) // self._share.accumulate
            for part in range(self._share.accumulate):
                yield mine[part * size : (part + 1) * size]


def loader(
    data: MapData,
    collate: Callable[[list[Any]], Any],
    batches: Batches,
    *,
    seed: int,
    workers: int,
    skipped: Skipped | None = None,
) -> Iterator[Any]:
    """Load micro-batches in their order, in this process (`workers=0`) or in others.

    Args:
        data: what is trained on.
        collate: makes a batch of a list of samples.
        batches: which samples.
        seed: of the samples' augmentation.
        workers: data loading processes; nothing depends on it.
        skipped: takes the samples that cannot be made, of which others take the place; None raises the error of the first.

    Raises:
        MaeBenchError: a sample cannot be made; raised in this process as it is, whatever the number of workers.
    """
    draws = Draws(data, seed, replace=skipped is not None and skipped.limit > 0)
    return unpack(loaded_by(draws, collate, workers, batch_sampler=batches), skipped)


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors inside dicts, lists and tuples; anything else is left as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


@contextmanager
def deaths_told(title: str) -> Iterator[None]:
    """A block in which the death of a data worker is one line about the training of that title.

    Raises:
        EnvironmentFault: one died.
    """
    try:
        try:
            yield
        except (OSError, EOFError):
            # The pipe of a worker that dies may break before torch's handler is told of the death, which then raises here.
            time.sleep(SECONDS_TO_TELL)
            raise
    except Exception as error:  # torch's handler of SIGCHLD raises wherever this process is; what it cuts off may say more
        if not _tells_of_worker(error):
            raise
        why = "memory ran out, or a decoder crashed; lower --workers, and 0 of them shows the image"
        raise EnvironmentFault(f"{title}: a data loading process died: {why}") from error


def _tells_of_worker(error: BaseException | None) -> bool:
    """Whether a data worker's death is behind an error: what it interrupts, such as a write, may put one of its own before it."""
    while error is not None:
        if "DataLoader worker" in str(error):
            return True
        error = error.__context__
    return False
