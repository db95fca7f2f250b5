"""The ablations of arXiv 2111.06377: each row a pretraining with its probes, shown in the paper's own table.

A file of `mae_bench/ablations` is one of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from rich.console import Console

from mae_bench.chain import Chain, Pretraining, settings_of
from mae_bench.core import find
from mae_bench.core.errors import ConfigError
from mae_bench.options import Options
from mae_bench.runner import blocked_failures, conclude, describe, say
from results.store import Order, write_order

ROOM = "mae_bench.ablations"
OBJECTIVE = "mae"
TASKS = ("finetune", "linear")
"""What the paper measures of every row."""
PUBLISHED = {"epochs": "800", "norm_pix_loss": "false"}
"""Where the rows start from at the paper's scale: 800 epochs, unnormalised pixels (arXiv 2111.06377, Table 1)."""


class Ablation(Protocol):
    """What a file of the room has."""

    LAYOUT: str
    """The layout of `mae-bench table` that holds the published rows."""
    ROWS: Mapping[str, Mapping[str, str]]
    """Settings of `mae` by row; a row is named as the published one is, with `-` for `=`."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    name: str
    arch: str
    data: Path
    """An image folder."""
    out: Path
    recipe: str
    """Of the pretraining and of the tasks."""
    tasks: Sequence[str]
    seeds: Sequence[int]
    settings: Mapping[str, str]
    """`mae.KEY` or `TASK.KEY`; they change every row, what a row is about excepted."""


def run_ablation(request: Request, options: Options, console: Console) -> int:
    """Pretrain each row, measure it, and show the paper's table with what was measured; goes on where it was stopped.

    Returns:
        Exit code: 0, or 1 when something failed.

    Raises:
        ConfigError: an unknown ablation or setting.
        Stopped: a signal came.
    """
    ablation = cast(Ablation, find.load(ROOM, request.name.replace("-", "_"), what="ablation"))
    rows = pretrainings(ablation, request)
    for row in rows:
        row.check()
    of_tasks = {key: value for key, value in request.settings.items() if not key.startswith(f"{OBJECTIVE}.")}
    tasks = [f"{task}:{request.recipe}" for task in request.tasks]
    weights = dict.fromkeys(request.tasks, 0.5)
    chain = Chain(request.out, {"folder": request.data}, tasks, of_tasks, weights, request.seeds, options, console)
    # The plan of a network that costs nothing tells what is wrong with the tasks before hours of pretraining.
    trial = chain.plan(f"{rows[0].name}=random:{request.arch}")
    if trial.blocked:
        chain.failures.extend(blocked_failures(trial.blocked))
    write_order(request.out, Order(tuple(row.name for row in rows), trial.tasks))
    say(console, f"ablation {request.name} in {request.out}: {len(rows)} rows, {describe(options)}")
    code = conclude(request.out, chain.run([chain.job(row) for row in rows]), console)
    if set(request.tasks) & set(TASKS):
        say(console, f"beside the published numbers: mae-bench table {request.out} --layout {ablation.LAYOUT}")
    return code


def pretrainings(ablation: Ablation, request: Request) -> list[Pretraining]:
    """The rows of an ablation.

    Raises:
        ConfigError: a setting that is what a row is about.
    """
    for name in request.settings:
        if name.partition(".")[0] not in (OBJECTIVE, *request.tasks):
            raise ConfigError(
                f"{name} is no setting here; write {OBJECTIVE}.KEY=VALUE, or KEY of {' or '.join(request.tasks)} so"
            )
    own = settings_of((OBJECTIVE,), request.settings)
    about = {key for settings in ablation.ROWS.values() for key in settings}
    for key in own:
        if key in about:
            raise ConfigError(f"{OBJECTIVE}.{key} is what the ablation {request.name} varies; leave it out")
    base = {**(PUBLISHED if request.recipe == "paper" else {}), **own}
    return [
        Pretraining(name, OBJECTIVE, request.arch, request.recipe, {**base, **settings})
        for name, settings in ablation.ROWS.items()
    ]
