"""From words of the command line to calls: a pretraining, a recipe's text."""

from collections.abc import Callable
from pathlib import Path

import yaml

from mae_bench.core import find
from mae_bench.core.config import Config, nearest, parse_assignments
from mae_bench.core.errors import ConfigError
from mae_bench.listing import OBJECTIVES, TASKS


def pretrain_in(
    objective: str,
    arch: str,
    data: str,
    out: Path,
    words: list[str],
    *,
    recipe: str,
    seed: int,
    device: str | None,
    precision: str | None,
    threads: int | None,
    workers: int | None,
) -> Callable[[], None]:
    """The work of the `pretrain` command; words such as `epochs=3` and `mae.epochs=3` mean the same.

    All that can be refused is refused here, before anything is written.

    Raises:
        MaeBenchError: a word that is no setting, or anything else that `pretrain` refuses.
    """
    overrides = {}
    for key, value in parse_assignments(words).items():
        head, dot, rest = key.partition(".")
        name = rest if dot and head == objective else key
        if name in overrides:
            raise ConfigError(f"{name} is given twice ({overrides[name]!r} and {value!r}); keep one")
        overrides[name] = value
    if objective not in find.names(OBJECTIVES):
        raise ConfigError(f"unknown objective {objective!r}; {nearest(objective, find.names(OBJECTIVES))}")
    import torch

    from mae_bench import pretrain
    from mae_bench.core.run import Run
    from mae_bench.job import reporter
    from mae_bench.options import make_options
    from tasks.handle import open_data

    options = make_options(device=device, precision=precision, threads=threads, workers=workers, jobs=1)
    handle = open_data(data)
    run = Run(
        out=out,
        seed=seed,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        workers=options.workers,
        reporter=reporter(out),
    )
    pretrain.is_finished(objective, arch, handle, overrides, run, recipe=recipe)

    def work() -> None:
        torch.set_num_threads(options.threads)
        with run.reporter.live():
            pretrain.pretrain(objective, arch, handle, overrides, run, recipe=recipe)

    return work


def recipe_text(name: str) -> str:
    """Every setting of `TASK:RECIPE` or `OBJECTIVE:RECIPE`, as YAML.

    Raises:
        ConfigError: there is no such file or recipe.
    """
    owner, _, recipe = name.partition(":")
    room = TASKS if owner in find.names(TASKS) else OBJECTIVES
    known = [*find.names(TASKS), *find.names(OBJECTIVES)]
    if owner not in known:
        raise ConfigError(f"{owner!r} is neither a task nor an objective; {nearest(owner, known)}")
    recipes: dict[str, Config] = find.load(room, owner, what="task").RECIPES
    if recipe not in recipes:
        raise ConfigError(f"unknown recipe {name!r}; {nearest(recipe, list(recipes))}")
    settings = yaml.safe_dump(recipes[recipe].model_dump(mode="json"), sort_keys=False)
    return f"# {name}, digest {recipes[recipe].digest()}\n{settings}"
