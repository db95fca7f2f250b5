"""What the engine is given and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mae_bench.core.batches import MapData
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
