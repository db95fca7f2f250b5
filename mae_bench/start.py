"""From words of the command line to calls: a run, a recipe's text."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mae_bench.choose import split_task
from mae_bench.core import find
from mae_bench.core.config import Config, nearest, parse_assignments
from mae_bench.core.errors import ConfigError
from mae_bench.listing import OBJECTIVES, TASKS, about_recipe

if TYPE_CHECKING:
    from rich.console import Console

    from mae_bench.grid import Grid, Limits
    from mae_bench.options import Options
    from mae_bench.plan import Plan


@dataclass(frozen=True)
class Asked:
    """What a `run` command asks for."""

    models: list[str]
    tasks: list[str]
    data: list[str]
    words: list[str]
    """A grid file, settings."""
    seeds: str | None


def run_asked(asked: Asked, out: Path, options: "Options", console: "Console", *, dry_run: bool) -> int:
    """The work of the `run` command; a dry run shows what would be done and gives 0.

    Raises:
        MaeBenchError: anything that is wrong with what is asked for, before anything runs.
    """
    from mae_bench import preview
    from mae_bench.grid import Limits
    from mae_bench.runner import run_plan, say
    from results.table import build_table

    plan, limits = _plan(asked, out, options)
    if dry_run or limits != Limits():
        earlier = build_table([out], lambda line: None) if out.is_dir() else None
        found = preview.previews(plan, options.overwrite, preview.make_estimator(earlier, options.device, options.gpus_per_cell))
        if dry_run:
            preview.show(found, plan, options.jobs, console)
            if options.launcher == "local" and (line := preview.too_large(found, options.jobs, options.device)):
                say(console, line)
        preview.check_limits(found, limits)
    _tell_what_is_not_exported(plan, options, console)
    return 0 if dry_run else run_plan(plan, out, options, console)


def _tell_what_is_not_exported(plan: "Plan", options: "Options", console: "Console") -> None:
    """Name the tasks of which `--export-native` leaves nothing, beside those of which it does."""
    without = dict.fromkeys(cell.request.task for cell in plan.cells if not cell.request.export_native)
    if options.export_native and without:
        line = f"--export-native: no native config of {', '.join(without)}, which no other framework runs; the others get theirs"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def read_words(asked: Asked) -> "tuple[dict[str, str], Grid | None]":
    """The settings among the words of a command line, and the grid file where one is named.

    Raises:
        ConfigError: something is missing, or stands beside a grid file, which says all.
    """
    from mae_bench.grid import read_grid

    files = [word for word in asked.words if word.endswith((".yaml", ".yml")) and "=" not in word]
    overrides = parse_assignments([word for word in asked.words if word not in files])
    flags = {"-m": asked.models, "-t": asked.tasks, "-d": asked.data, "--seeds": asked.seeds is not None}
    if not files:
        missing = [flag for flag, given in flags.items() if not given and flag != "--seeds"]
        if missing:
            first, last = ", ".join(missing[:-1]), missing[-1]
            what = f"{first} and {last} are missing" if first else f"{last} is missing"
            raise ConfigError(f"{what}; give -m, -t and -d, or a grid file: mae-bench run -h")
        return overrides, None
    given = [flag for flag, value in flags.items() if value]
    if len(files) > 1 or given or overrides:
        what = "a second grid file" if len(files) > 1 else ", ".join(given) or "KEY=VALUE"
        raise ConfigError(f"{what} beside {files[0]}: a grid file says all of it; leave one of them out")
    return overrides, read_grid(Path(files[0]))


def _plan(asked: Asked, out: Path, options: "Options") -> "tuple[Plan, Limits]":
    from mae_bench.choose import parse_seeds
    from mae_bench.grid import Limits
    from mae_bench.plan import make_plan, plan_of

    overrides, grid = read_words(asked)
    if grid is not None:
        return plan_of(grid.models, grid.wanted(), grid.data, out, options=options), grid.limits
    seeds = parse_seeds(asked.seeds)
    return make_plan(asked.models, asked.tasks, asked.data, out, overrides=overrides, seeds=seeds, options=options), Limits()


def recipe_text(name: str) -> str:
    """Every setting of `TASK:RECIPE` or `OBJECTIVE:RECIPE`, as YAML; without a recipe that of `paper`.

    Raises:
        ConfigError: there is no such file or recipe.
    """
    owner, recipe = split_task(name)
    room = TASKS if owner in find.names(TASKS) else OBJECTIVES
    known = [*find.names(TASKS), *find.names(OBJECTIVES)]
    if owner not in known:
        raise ConfigError(f"{owner!r} is neither a task nor an objective; {nearest(owner, known)}")
    file = find.load(room, owner, what="task")
    recipes: dict[str, Config] = file.RECIPES
    if recipe not in recipes:
        raise ConfigError(f"unknown recipe {owner}:{recipe}; {nearest(recipe, list(recipes))}")
    settings = yaml.safe_dump(recipes[recipe].model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return f"# {owner}:{recipe}, digest {recipes[recipe].digest()}\n# {about_recipe(file, recipe)}\n{settings}"
