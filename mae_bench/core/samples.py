"""Samples that cannot be made: carried out of data workers as values, then skipped and counted, or raised where they are told.

torch wraps an exception of a data worker into one of its own with a traceback in it, and our one line is lost. So an error that a
user can cause travels as a value, and the process that asked for the samples raises it.
"""

import json
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from mae_bench.core.errors import InputError, MaeBenchError
from mae_bench.core.files import write_text
from mae_bench.core.run import append_line

FILE = "skipped.jsonl"
TRIES = 8
"""Samples tried in the place of one that cannot be made; so many bad ones in a row mean that most of the data is."""


class Failure(NamedTuple):
    """A sample that could not be made."""

    number: int
    error: MaeBenchError


class Made(NamedTuple):
    """What comes of one draw."""

    samples: list[Any]
    """The sample, or nothing."""
    failures: list[Failure]


class Loaded(NamedTuple):
    """A batch on its way out of a data worker."""

    batch: Any
    """None where no sample could be made."""
    failures: list[Failure]
    short: bool
    """Whether a sample is missing for good, without another in its place."""


def attempt(make: Callable[[], Any], index: int) -> Made:
    """Make one sample; an error that a user can cause becomes a value."""
    try:
        return Made([make()], [])
    except MaeBenchError as error:
        return Made([], [Failure(index, error)])


class Carrying(Dataset[Made]):
    """Samples by number, with errors as values."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __getitem__(self, index: int) -> Made:
        """One sample, or why there is none."""
        return attempt(lambda: self._data[index], index)


class Collate:
    """Makes a batch of what could be made."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, made: list[Made]) -> Loaded:
        """Collate the samples, and gather the failures."""
        samples = [sample for one in made for sample in one.samples]
        failures = [failure for one in made for failure in one.failures]
        return Loaded(self._collate(samples) if samples else None, failures, short=len(samples) < len(made))


class Skipped:
    """Training images that cannot be read: each is named once in `skipped.jsonl`, and only so many are borne."""

    def __init__(self, out: Path, images: int, share: float, by: str = "training") -> None:
        """Bear a share of the images.

        Args:
            out: folder of the run.
            images: number of training images.
            share: 0 to 1 of them that may be skipped; rounded up, so that any share above 0 bears one image.
            by: the part of the work that skips them.
        """
        self._path, self._images, self._by, self.limit = out / FILE, images, by, math.ceil(images * share)

    def forget(self) -> None:
        """Begin anew, as a training does that starts from its first step; what others have skipped stays."""
        if self._path.exists():
            kept = [line for line in read_lines(self._path) if line.get("by") != self._by]
            write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, failure: Failure) -> None:
        """Name an image that is skipped.

        Raises:
            MaeBenchError: the error of the sample itself, where nothing may be skipped or it is of another kind.
            InputError: too many images have been skipped.
        """
        if self.limit == 0 or not isinstance(failure.error, InputError):
            raise failure.error
        known = {line["index"] for line in read_lines(self._path) if line.get("by") == self._by}
        if failure.number in known:
            return
        append_line(self._path, {"split": "train", "index": failure.number, "reason": str(failure.error), "by": self._by})
        if len(known) >= self.limit:
            count = f"{len(known) + 1} of {self._images} training images cannot be read, and {self.limit} may be skipped"
            raise InputError(f"{count}: {self._path} names them; repair them or raise max_skipped; the last: {failure.error}")


def skipped_images(out: Path) -> int:
    """Number of training images that a run has skipped."""
    return len({line["index"] for line in read_lines(out / FILE) if "index" in line})


def unpack(batches: Iterable[Loaded], skipped: Skipped | None, *, shorten: bool = False) -> Iterator[Any]:
    """Give the batches, after their failures are noted or raised.

    Args:
        batches: as they come from the workers.
        skipped: takes what cannot be made; None raises it.
        shorten: whether a batch may lack samples; else the first error is raised of one without another in its place.
    """
    for loaded in batches:
        for failure in loaded.failures:
            if skipped is None or (loaded.short and not shorten):
                raise failure.error
            skipped.add(failure)
        if loaded.batch is not None:
            yield loaded.batch


def in_order(
    data: Any, collate: Callable[[list[Any]], Any], *, batch_size: int, workers: int, skipped: Skipped | None = None
) -> Iterator[Any]:
    """Load samples from the first to the last, in batches.

    Args:
        data: samples by number, with a length.
        collate: makes a batch of a list of samples.
        batch_size: samples of a batch; the last one may be smaller.
        workers: data loading processes; 0 loads in this one.
        skipped: takes the samples that cannot be made, which batches then lack; None raises the error of the first.

    Raises:
        MaeBenchError: a sample cannot be made; raised in this process as it is, whatever the number of workers.
    """
    loader = loaded_by(Carrying(data), collate, workers, batch_size=batch_size, sampler=range(len(data)))
    return unpack(loader, skipped, shorten=True)


def loaded_by(data: Dataset[Made], collate: Callable[[list[Any]], Any], workers: int, **order: Any) -> DataLoader[Any]:
    """Make torch's loader with the data workers that all loading has; `order` says which samples make a batch."""
    return DataLoader(
        data,
        collate_fn=Collate(collate),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_spared,
        **order,
    )


def _spared(number: int) -> None:
    """Let a data worker live on after a first SIGTERM.

    A cluster, a service manager or `kill -- -GROUP` sends it to all processes of a job, and the one that trains has a state to
    save first; it ends its workers itself.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; one cut by a kill, which can only be the last, is passed over."""
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            continue
