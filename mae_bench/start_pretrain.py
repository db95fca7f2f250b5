"""From words of the command line to a pretraining, or to what it would cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.core import find
from mae_bench.core.config import nearest, parse_assignments
from mae_bench.core.errors import ConfigError
from mae_bench.early import refuse_pretraining
from mae_bench.listing import OBJECTIVES
from results.names import plain

if TYPE_CHECKING:
    from rich.console import Console

    from mae_bench.core.progress import Reporter

SECONDS_BETWEEN_NOTES = 5.0
"""Time between two notes of the progress for other processes."""


@dataclass(frozen=True)
class Wanted:
    """What a `pretrain` command asks for."""

    objective: str
    arch: str
    data: str
    out: Path
    words: list[str]
    recipe: str
    seed: int
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    workers: int | None = None
    sharded: bool = False
    tensorboard: bool = False
    stop_after: str | None = None
    save_every: str | None = None
    debug: bool = False

    def overrides(self) -> dict[str, str]:
        """Settings by name; words such as `epochs=3` and `mae.epochs=3` mean the same."""
        found: dict[str, str] = {}
        for key, value in parse_assignments(self.words).items():
            head, dot, rest = key.partition(".")
            name = rest if dot and head == self.objective else key
            if name in found:
                raise ConfigError(f"{name} is given twice ({found[name]!r} and {value!r}); keep one")
            found[name] = value
        if self.objective not in find.names(OBJECTIVES):
            raise ConfigError(f"unknown objective {self.objective!r}; {nearest(self.objective, find.names(OBJECTIVES))}")
        return found


def pretrain_in(wanted: Wanted) -> Callable[[], None]:
    """The work of the `pretrain` command.

    All that can be refused is refused here, before anything is written.

    Raises:
        MaeBenchError: a word that is no setting, or anything else that `pretrain` refuses.
    """
    overrides = wanted.overrides()
    refuse_pretraining(wanted)
    import torch

    from mae_bench import pretrain
    from mae_bench.core.run import Run
    from mae_bench.options import make_options, parse_time
    from mae_bench.pretrain_state import beginning, read_state, tell
    from tasks.handle import open_data

    options = make_options(
        device=wanted.device,
        precision=wanted.precision,
        threads=wanted.threads,
        workers=wanted.workers,
        jobs=1,
        save_every=wanted.save_every,
    )
    handle = open_data(wanted.data)
    run = Run(
        out=wanted.out,
        seed=wanted.seed,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        workers=options.workers,
        sharded=wanted.sharded,
        save_seconds=options.save_seconds,
        deadline=None if wanted.stop_after is None else time.monotonic() + parse_time(wanted.stop_after),
        tensorboard=wanted.tensorboard,
        reporter=_watched(wanted.out),
    )
    done = pretrain.is_finished(wanted.objective, wanted.arch, handle, overrides, run, recipe=wanted.recipe)
    before = read_state(wanted.out)

    def work() -> None:
        torch.set_num_threads(options.threads)
        if not done:
            _say(beginning(before, run.save_seconds))
        with run.reporter.live():
            pretrain.pretrain(wanted.objective, wanted.arch, handle, overrides, run, recipe=wanted.recipe)
        after = read_state(wanted.out, running=False)
        _say(*(tell(after) if after is not None else ()))

    return work


def _watched(out: Path) -> "Reporter":
    """Progress as a job shows it, and in a file for `mae-bench status`."""
    from mae_bench.core.progress import Bar, FileReporter, Several
    from mae_bench.job import reporter
    from mae_bench.lines import Lines

    shown = reporter(out)
    return Several(shown, FileReporter(out, every=SECONDS_BETWEEN_NOTES)) if isinstance(shown, Bar | Lines) else shown


def _say(*lines: str) -> None:
    """Tell a person who has started this; in a cluster's job the log tells."""
    from mae_bench.core import processes
    from mae_bench.job import started_as_job

    if processes.is_main() and not started_as_job():
        for line in filter(None, lines):
            print(plain(line), flush=True)  # noqa: T201


def show_cost(wanted: Wanted, console: "Console", *, devices: int, throughput: float | None) -> None:
    """Print what a pretraining would cost; nothing is written.

    Args:
        wanted: what is asked for.
        console: takes the lines.
        devices: number of processes, each with a device of its own.
        throughput: images a second of one device; None measures a few steps on this machine.

    Raises:
        MaeBenchError: what `pretrain` would refuse.
    """
    overrides = wanted.overrides()
    refuse_pretraining(wanted)
    from mae_bench.estimate_pretrain import estimate, lines
    from mae_bench.options import make_options
    from tasks.handle import open_data

    options = make_options(
        device=wanted.device, precision=wanted.precision, threads=wanted.threads, workers=wanted.workers, jobs=1
    )
    cost = estimate(
        wanted.objective,
        wanted.arch,
        open_data(wanted.data),
        overrides,
        recipe=wanted.recipe,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        devices=devices,
        sharded=wanted.sharded,
        throughput=throughput,
    )
    for line in lines(cost):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
