"""The ablations of arXiv 2111.06377: each row a pretraining with its probes, shown in the paper's own table.

A file of `mae_bench/ablations` is one of them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from rich.console import Console

from mae_bench.chain import Chain, Pretraining, settings_of
from mae_bench.choose import DEFAULT_RECIPE, load_task
from mae_bench.core import find
from mae_bench.core.errors import ConfigError
from mae_bench.listing import OBJECTIVES
from mae_bench.options import Options
from mae_bench.runner import blocked_failures, conclude, describe, say
from results.store import Order, write_order
from tasks.common.deviations import recipe_of

if TYPE_CHECKING:
    from backbones.contract import BackboneSpec

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
    data: Mapping[str, Path]
    """The image folder, by `folder` with its options (`folder+links`)."""
    out: Path
    recipe: str
    """Of the pretraining, and of the tasks that name none."""
    tasks: Sequence[str]
    """`TASK[:RECIPE]` each."""
    seeds: Sequence[int]
    settings: Mapping[str, str]
    """`mae.KEY` or `TASK.KEY`; they change every row, but for what it is about and what it has no use for."""

    @property
    def task_names(self) -> list[str]:
        """The tasks without their recipes, each once."""
        return list(dict.fromkeys(word.partition(":")[0] for word in self.tasks))


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
    from backbones.source import open_source

    of_tasks = {key: value for key, value in request.settings.items() if not key.startswith(f"{OBJECTIVE}.")}
    tasks = with_recipes(request, open_source(f"random:{request.arch}").spec)
    weights = dict.fromkeys(request.task_names, 0.5)
    chain = Chain(request.out, request.data, tasks, of_tasks, weights, request.seeds, options, console)
    # The plan of a network that costs nothing tells what is wrong with the tasks before hours of pretraining.
    trial = chain.plan(f"{rows[0].name}=random:{request.arch}")
    if trial.blocked:
        chain.failures.extend(blocked_failures(trial.blocked))
    write_order(request.out, Order(tuple(row.name for row in rows), trial.tasks))
    say(console, f"ablation {request.name} in {request.out}: {len(rows)} rows, each by {', '.join(tasks)}; {describe(options)}")
    code = conclude(request.out, chain.run([chain.job(row) for row in rows]), console)
    if set(request.task_names) & set(TASKS):
        say(console, f"beside the published numbers: mae-bench table {request.out} --layout {ablation.LAYOUT}")
    return code


def with_recipes(request: Request, spec: "BackboneSpec") -> list[str]:
    """`TASK:RECIPE` of each task; where none is named, that of the request, for `paper` the one of the network's size.

    Raises:
        ConfigError: an unknown task.
    """
    of_size = recipe_of(spec) or DEFAULT_RECIPE
    found = []
    for word in request.tasks:
        task, _, recipe = word.partition(":")
        fits = request.recipe == DEFAULT_RECIPE and of_size in load_task(task).RECIPES
        found.append(f"{task}:{recipe or (of_size if fits else request.recipe)}")
    return list(dict.fromkeys(found))


def pretrainings(ablation: Ablation, request: Request) -> list[Pretraining]:
    """The rows of an ablation.

    Raises:
        ConfigError: a setting that is what a row is about.
    """
    for name in request.settings:
        if name.partition(".")[0] not in (OBJECTIVE, *request.task_names):
            names = " or ".join(request.task_names)
            raise ConfigError(f"{name} is no setting here; write {OBJECTIVE}.KEY=VALUE, or KEY of {names} so")
    own = settings_of((OBJECTIVE,), request.settings)
    about = {key for settings in ablation.ROWS.values() for key in settings}
    for key in own:
        if key in about:
            raise ConfigError(f"{OBJECTIVE}.{key} is what the ablation {request.name} varies; leave it out")
    base = PUBLISHED if request.recipe == DEFAULT_RECIPE else {}
    rows = []
    for name, settings in ablation.ROWS.items():
        idle = _idle(request.recipe, settings)
        taken = {key: value for key, value in own.items() if key not in idle}
        rows.append(Pretraining(name, OBJECTIVE, request.arch, request.recipe, {**base, **taken, **settings}))
    return rows


def _idle(recipe: str, row: Mapping[str, str]) -> Collection[str]:
    """Settings that the recipe reads and a row does not, such as those of a crop where it has none; of an unknown recipe none."""
    known = find.load(OBJECTIVES, OBJECTIVE, what="objective").RECIPES.get(recipe)
    return () if known is None else known.override(row).idle().keys() - known.idle().keys()
