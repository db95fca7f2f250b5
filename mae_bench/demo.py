"""The main job on a laptop: pretrain on embedded images, transfer to every task, show the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from mae_bench.core.errors import ConfigError, MaeBenchError, Stopped
from mae_bench.display import make_display
from mae_bench.job import reporter
from mae_bench.jobs import Job, Ready
from mae_bench.launch import check_stopped, python, run_jobs
from mae_bench.options import Options, slots
from mae_bench.plan import Plan, make_plan
from mae_bench.runner import Failure, blocked_failures, cell_jobs, conclude, describe, failed_jobs, say
from results.report import write_report
from results.store import Order, write_order

ARCH = "vit_demo_patch8"
BASELINE = "random"
RECIPE = "demo"

OBJECTIVES = {"mae": 300.0, "simclr": 200.0, "supervised": 150.0}
"""Pretrainings with their rough length in seconds of one core; the longest is started first."""
TASKS = {"knn": 6.0, "linear": 8.0, "finetune": 40.0, "detection": 90.0, "segmentation": 60.0}
"""Tasks with the same, a cell."""

TINY = {
    "pretrain.epochs": "1",
    "pretrain.warmup_epochs": "0",
    "linear.epochs": "5",
    "linear.warmup_epochs": "1",
    "finetune.epochs": "1",
    "finetune.warmup_epochs": "0",
    "detection.steps": "3",
    "segmentation.steps": "3",
}
"""Settings for `--scale tiny`: everything runs, and no number means anything."""


@dataclass(frozen=True)
class Demo:
    """One demo: where it is, and what it runs with."""

    out: Path
    data: Mapping[str, Path]
    """Folder of each data set."""
    pretraining: Mapping[str, str]
    """Settings of the objectives: `pretrain.KEY` for all, `OBJECTIVE.KEY` for one."""
    tasks: Mapping[str, str]
    """Settings of the tasks, `TASK.KEY`."""
    options: Options
    console: Console
    failures: list[Failure] = field(default_factory=list)

    def plan(self, model: str) -> Plan:
        """The cells of one model."""
        return make_plan(
            [model],
            [f"{task}:{RECIPE}" for task in TASKS],
            [f"{name}={path}" for name, path in self.data.items()],
            self.out,
            overrides=self.tasks,
            seeds=[0],
            options=self.options,
        )

    def cells(self, plan: Plan) -> list[Job]:
        """The jobs of a plan, longest first."""
        jobs, failures = cell_jobs(plan.cells, self.options, self.console, TASKS)
        self.failures.extend(failures)
        return jobs


def run_demo(out: Path, *, scale: str, overrides: Mapping[str, str], options: Options, console: Console) -> int:
    """Make the data, pretrain, measure, and show what came out; a second call goes on where the first one was.

    Args:
        out: folder for everything.
        scale: `demo`, or `tiny` for a trial run in which no number means anything.
        overrides: settings of objectives (`mae.epochs`, `pretrain.epochs` for all) and tasks (`linear.epochs`).
        options: how jobs are run.
        console: where everything is shown.

    Returns:
        Exit code: 0, or 1 when something failed.
    """
    from tasks.scenes.demo import write_demo

    settings = {**(TINY if scale == "tiny" else {}), **overrides}
    pretraining = {key: value for key, value in settings.items() if key.partition(".")[0] in ("pretrain", *OBJECTIVES)}
    progress = reporter(out)
    with progress.live():
        data = write_demo(out / "data", scale=scale, progress=progress)
    tasks = {key: value for key, value in settings.items() if key not in pretraining}
    demo = Demo(out, data, pretraining, tasks, options, console)
    baseline = demo.plan(f"{BASELINE}=random:{ARCH}")
    _check_objectives(pretraining)
    write_order(out, Order((BASELINE, *reversed(OBJECTIVES)), baseline.tasks))
    demo.failures.extend(blocked_failures(baseline.blocked))
    jobs = [*(_pretraining(demo, name) for name in OBJECTIVES), *demo.cells(baseline)]
    say(console, f"demo in {out}: {describe(options)}")
    with make_display(console, "jobs") as display:
        outcomes = run_jobs(jobs, slots(options), display)
    check_stopped(outcomes)
    return _conclude(demo, failed_jobs(outcomes))


def _conclude(demo: Demo, failed: Sequence[Failure]) -> int:
    """Table, report, failures: what goes wrong with one of them is told with the rest."""
    failures = [*demo.failures, *failed]
    try:
        report = write_report([demo.out], demo.out / "report.html", lambda line: say(demo.console, f"warning: {line}"))
        say(demo.console, f"report: {report}")
    except Stopped:
        raise
    except MaeBenchError as error:
        failures.append(Failure("report", str(error)))
    return conclude(demo.out, failures, demo.console)


def _pretraining(demo: Demo, objective: str) -> Job:
    """The job of one pretraining, after which the cells of its checkpoint can run."""
    folder = demo.out / "pretrain" / objective
    options = demo.options
    own = settings_of(objective, demo.pretraining)
    command = python(
        "mae_bench.cli",
        "pretrain",
        objective,
        *("--arch", ARCH, "--recipe", RECIPE, "-d", f"folder={demo.data['folder'].absolute()}", "-o", str(folder)),
        *("--device", options.device, "--precision", options.precision, "--threads", str(options.threads)),
        *("--workers", str(options.workers)),
        *(("--debug",) if options.debug else ()),
        *(f"{key}={value}" for key, value in own.items()),
    )
    return Job(
        name=f"pretrain {objective}",
        command=command,
        folder=folder,
        weight=OBJECTIVES[objective],
        prepare=partial(_prepare, demo, objective, folder),
        then=partial(_cells_after, demo, objective, folder),
        later_count=len(TASKS),
        later_weight=sum(TASKS.values()),
    )


def settings_of(objective: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The settings meant for one objective; its own ones win over those for all."""
    for_all = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith("pretrain.")}
    own = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(f"{objective}.")}
    return {**for_all, **own}


def _check_objectives(settings: Mapping[str, str]) -> None:
    """Refuse wrong settings of an objective before anything runs."""
    from mae_bench.core import find

    for objective in OBJECTIVES:
        module = find.load("mae_bench.objectives", objective, what="objective")
        if RECIPE not in module.RECIPES:
            raise ConfigError(f"objective {objective} has no recipe {RECIPE!r}")
        module.RECIPES[RECIPE].override(settings_of(objective, settings), where=objective)


def _prepare(demo: Demo, objective: str, folder: Path) -> Ready:
    """Whether the very same pretraining is finished there, by the key of all that shapes its weights and by the weights."""
    from mae_bench import pretrain
    from mae_bench.core.run import Run
    from tasks.handle import open_data

    run = Run(out=folder, device=demo.options.device, precision=demo.options.precision, threads=demo.options.threads)
    data, own = open_data(f"folder={demo.data['folder']}"), settings_of(objective, demo.pretraining)
    return "done" if pretrain.is_finished(objective, ARCH, data, own, run, recipe=RECIPE) else "run"


def _cells_after(demo: Demo, objective: str, folder: Path) -> list[Job]:
    """The cells of a checkpoint that has just been made."""
    try:
        return demo.cells(demo.plan(f"{objective}={folder / 'model.safetensors'}"))
    except MaeBenchError as error:
        demo.failures.append(Failure(f"cells of {objective}", str(error)))
        return []
