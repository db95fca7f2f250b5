"""What every task that trains does the same way."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from mae_bench.core.batches import Order
from mae_bench.core.config import Config
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from mae_bench.core.seeding import derive

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.handle import DataHandle

T = TypeVar("T")


def training_key(source: "Source", data: "DataHandle", config: Config, run: Run) -> str:
    """Digest of all that shapes a task's training: checkpoint, data, settings, seed and precision."""
    facts = (source.sha256, data.fingerprint, config.digest(), run.seed, run.precision)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def check_whole(task: str, run: Run) -> None:
    """See that a task's weights are not to be cut over processes.

    Raises:
        ConfigError: they are; every process would predict with a part of them.
    """
    if run.sharded:
        raise ConfigError(
            f"{task}: weights cannot be sharded, since each process predicts by itself with all of them; leave it out"
        )


def seeded(build: Callable[[], T], run: Run) -> T:
    """Make what is initialised at random, such as a head, from the run's seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(run.seed, "head"))
        return build()


def epoch_schedule(order: Order, epochs: int, warmup_epochs: int, *, end: float = 0.0) -> tuple[int, ScheduleConfig]:
    """Steps, and warm-up with cosine, of a training whose lengths are given in epochs.

    Args:
        order: tells how many steps an epoch has.
        epochs: length of the training.
        warmup_epochs: length of the linear warm-up from 0.
        end: share of the peak rate that the cosine ends at.
    """
    warmup, steps = (int(count * order.steps_per_epoch) for count in (warmup_epochs, epochs))
    return steps, ScheduleConfig(kind="cosine", warmup_steps=warmup, end=end)


def no_decay(name: str, parameter: torch.nn.Parameter) -> bool:
    """Say which parameters MAE and timm exempt from weight decay: 1-D ones, positions and prefix tokens."""
    return parameter.ndim <= 1 or name.rpartition(".")[2] in ("pos_embed", "cls_token", "reg_token")
