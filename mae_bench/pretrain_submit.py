"""A pretraining in the hands of a cluster: submitted, shown while it runs, queued again when machines are wanted back."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.core import find
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.display import make_display
from mae_bench.jobs import Job
from mae_bench.launch import check_stopped, python, run_jobs
from mae_bench.listing import OBJECTIVES
from mae_bench.locks import is_locked
from mae_bench.processes import Start, slurm, torchrun
from mae_bench.start_pretrain import Wanted
from results.store import STATUS, read_object

if TYPE_CHECKING:
    from rich.console import Console

FOLDER = "slurm"
"""Of submitit's own files, below that of the pretraining."""
GPUS, NODES = "gpus_per_node", "nodes"
"""submitit's words for the GPUs of a machine, each of which gets a process, and for the machines."""


def submit(wanted: Wanted, settings: Mapping[str, str], console: "Console", start: Start | None = None) -> int:
    """Run a pretraining on a cluster and wait for its end.

    Args:
        wanted: what is asked for; settings, data and architecture are checked before anything is submitted.
        settings: of the cluster's job, by submitit's names.
        console: takes the progress.
        start: where it runs; None takes SLURM.

    Returns:
        The exit code of the pretraining.

    Raises:
        MaeBenchError: something that `pretrain` would refuse, another process in the folder, or a cluster that is not there.
        Stopped: a signal came; the job is cancelled after it has saved.
    """
    words = command(wanted, _count(settings, GPUS), _count(settings, NODES))
    _check(wanted)
    if is_locked(wanted.out):
        raise EnvironmentFault(f"another process works in {wanted.out}; wait for it, or choose another -o")
    begin = start or slurm(wanted.out.absolute() / FOLDER, settings)
    with make_display(console, "jobs") as display:
        outcomes = run_jobs([Job(f"pretrain {wanted.out.name}", words, wanted.out)], [{}], display, begin)
    check_stopped(outcomes)
    (outcome,) = outcomes
    if outcome.state != "failed":
        return 0
    line = f"mae-bench: {outcome.message}; the log is {outcome.log}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    return int(read_object(wanted.out / STATUS).get("exit_code") or 1)


def command(wanted: Wanted, processes: int = 1, nodes: int = 1) -> tuple[str, ...]:
    """The command that runs a pretraining on each of some machines, as so many processes there."""
    given = {
        "--device": wanted.device,
        "--precision": wanted.precision,
        "--threads": wanted.threads,
        "--workers": wanted.workers,
        "--stop-after": wanted.stop_after,
        "--save-every": wanted.save_every,
    }
    flags = {"--sharded": wanted.sharded, "--tensorboard": wanted.tensorboard, "--debug": wanted.debug}
    name, _, path = wanted.data.partition("=")
    words = (
        *("pretrain", wanted.objective, "--arch", wanted.arch, "--recipe", wanted.recipe, "--seed", str(wanted.seed)),
        *("-d", f"{name}={Path(path).absolute()}", "-o", str(wanted.out.absolute())),
        *(word for option, value in given.items() if value is not None for word in (option, str(value))),
        *(option for option, on in flags.items() if on),
        *wanted.words,
    )
    if nodes == 1:
        return torchrun(python("mae_bench.cli", *words), processes)
    return python("mae_bench.pretrain_nodes", str(processes), *words)


def _check(wanted: Wanted) -> None:
    """Refuse what can be told here: the machine that computes may have another device than this one."""
    overrides = wanted.overrides()
    from backbones.source import open_source
    from mae_bench.pretrain import settings
    from tasks.handle import open_data

    module = find.load(OBJECTIVES, wanted.objective, what="objective")
    settings(module, wanted.objective, wanted.recipe, overrides)
    open_source(f"random:{wanted.arch}")
    data = open_data(wanted.data)
    if data.kind != "classification":
        raise ConfigError(f"pretraining reads images of kind classification, and {data.name} is a {data.kind} data set")


def _count(settings: Mapping[str, str], name: str) -> int:
    text = settings.get(name, settings.get(f"slurm_{name}", "1"))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--slurm {name}={text}: give a number of 1 or more")
    return int(text)
