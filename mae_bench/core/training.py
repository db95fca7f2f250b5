"""What the engine is given, what of it cannot be trained, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from mae_bench.core.batches import MapData, Share
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
from mae_bench.core.optim import LayerId, NoDecay, OptimConfig, no_decay_1d
from mae_bench.core.schedule import ScheduleConfig

LOGGED = "log/"
"""Loss terms whose names begin so are logged and not minimised."""


@dataclass(frozen=True)
class Training:
    """One training, whole: what is trained, on what, how and for how long."""

    model: nn.Module
    """In train mode `model(batch)` gives a dict of loss terms (scalars); their sum is minimised, but for terms named `log/...`,
    which are only logged. Changed in place."""
    dataset: MapData
    """Samples by number; the generators of Python, NumPy and torch are seeded by (seed, epoch, index) before each."""
    collate: Callable[[list[Any]], Any]
    """Makes a batch of a list of samples."""
    optim: OptimConfig
    schedule: ScheduleConfig
    batch_size: int
    """Samples of one optimizer step, over all processes and micro-batches (the effective batch)."""
    steps: int
    """Optimizer steps of the whole training."""
    key: str
    """Digest of everything that shapes the result; a saved state of another key is refused."""
    title: str
    """Name in progress displays."""
    accumulate: int = 1
    """Micro-batches of one optimizer step in each process."""
    layer_id: LayerId | None = None
    depth: int = 0
    """Number of blocks that `layer_id` counts."""
    no_decay: NoDecay = no_decay_1d
    drop_last: bool = True
    """Whether incomplete last batches of an epoch are left out; without, batches run on into the next epoch."""
    before_step: Callable[[int], None] | None = None
    """Called with the number of each step just before it."""
    after_step: Callable[[int, nn.Module], dict[str, float]] | None = None
    """Called after each step, and when a training is resumed, with the number of steps made and the model as it would be kept
    (the moving average where there is one). It leaves the model as it is and gives numbers to log; its time is not counted, and
    a signal that stops it stops the training."""
    split_unit: int = 1
    """Micro-batches are halved when memory runs out, as long as they stay multiples of this; 0 never halves them, nor goes on in
    another number of processes, for losses that their size shapes (batch norm, negatives)."""
    average_decay: float | None = None
    """Decay of an exponential moving average of the weights, kept beside them (`Trained.average`); None keeps none."""
    clip_each: bool = False
    """Whether `optim.clip_grad` is the largest norm of each tensor's gradient; without, of all gradients together."""
    compile: bool = False
    """Whether torch compiles the model; results differ in the last digits."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves."""

    model: nn.Module
    """The model that was given, changed in place; where weights were sharded a whole copy of it, in the main process only."""
    losses: list[float]
    """Total loss of every step from the first, those of earlier sessions included."""
    seconds: float
    """Time taken over all sessions."""
    samples: int
    """Samples drawn over all sessions."""
    accumulate: int = 1
    """Micro-batches a step had in the end; more than asked for where memory ran out."""
    average: nn.Module | None = None
    """The model with the moving average of its weights, where one was asked for."""


def check_sizes(training: Training, share: Share) -> None:
    """See that the data are enough for a batch, and that it divides into micro-batches.

    Raises:
        InputError: there are fewer samples.
        ConfigError: it does not divide, or nothing is to be trained.
    """
    size, parts = len(training.dataset), share.world * share.accumulate
    if size == 0 or (training.drop_last and size < training.batch_size):
        raise InputError(f"{training.title}: {size} training samples for a batch of {training.batch_size}; lower batch_size")
    if training.batch_size % parts:
        raise ConfigError(f"{training.title}: batch_size {training.batch_size} does not divide into {parts} micro-batches")
    if training.steps < 1:
        raise ConfigError(f"{training.title}: a training of {training.steps} steps; set at least 1")


def check_world(training: Training, share: Share, before: int) -> None:
    """See that as many processes as there are now can go on with what another number of them began.

    Raises:
        ConfigError: they cannot.
    """
    begun = f"{training.title}: {before} processes began this training, and here are {share.world}"
    if share.world != before and not training.split_unit:
        raise ConfigError(f"{begun}; the images of one process shape its loss: start {before}, or choose another -o")
    if training.batch_size % (share.world * share.accumulate):
        parts = f"{share.world} processes of {share.accumulate} micro-batches each"
        raise ConfigError(f"{begun}; batch_size {training.batch_size} does not divide into {parts}")


def halved(training: Training, share: Share, error: Exception) -> Share:
    """The share of this process with micro-batches half as large.

    Raises:
        EnvironmentFault: they cannot be halved without changing what is optimised; from the error, of the memory that ran out.
    """
    size = training.batch_size // (share.world * share.accumulate)
    # Other processes are in the middle of the same step and cannot be told.
    whole = training.split_unit and size % (2 * training.split_unit) == 0
    if not whole or share.world > 1:
        raise EnvironmentFault(f"{training.title}: no memory for {size} samples at once; {_smaller(training, share)}") from error
    return replace(share, accumulate=2 * share.accumulate)


def _smaller(training: Training, share: Share) -> str:
    """What makes micro-batches smaller and leaves what is optimised as it is: the next number that the batch divides into."""
    size, unit = training.batch_size // share.world, training.split_unit
    parts = next((count for count in range(share.accumulate + 1, size + 1) if unit and size % (count * unit) == 0), 0)
    return f"set accumulate={parts}, and another -o where a state is saved already" if parts else "lower batch_size"
