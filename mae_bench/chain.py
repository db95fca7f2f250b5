"""Pretrainings, each followed by the cells of its checkpoint: what the demo and the ablations run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from mae_bench.core.errors import ConfigError, MaeBenchError
from mae_bench.display import make_display
from mae_bench.forking import forking
from mae_bench.jobs import Job, Ready
from mae_bench.launch import check_stopped, python, run_jobs
from mae_bench.options import Options, slots
from mae_bench.plan import Plan, make_plan
from mae_bench.runner import Failure, cell_jobs, failed_jobs

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Pretraining:
    """One pretraining to run."""

    name: str
    """Of the model in tables, and of its folder."""
    objective: str
    arch: str
    recipe: str
    settings: Mapping[str, str]
    """Changes to the recipe, by key."""
    weight: float = 1.0
    """Expected length, in the unit of the tasks' weights; longer ones are started first."""

    def check(self) -> None:
        """Refuse wrong settings before anything runs.

        Raises:
            ConfigError: an unknown objective, recipe or setting.
        """
        from mae_bench.core import find
        from mae_bench.pretrain import settings

        settings(find.load("mae_bench.objectives", self.objective, what="objective"), self.objective, self.recipe, self.settings)


@dataclass(frozen=True)
class Chain:
    """Where pretrainings and cells are, and what they run with."""

    out: Path
    data: Mapping[str, Path]
    """Folder of each data set by its name with options (`folder+links`); pretraining reads `folder`."""
    tasks: Sequence[str]
    """Of every checkpoint, `TASK:RECIPE`."""
    task_settings: Mapping[str, str]
    """Changes to their recipes, `TASK.KEY`."""
    weights: Mapping[str, float]
    """Expected length of a task's cell."""
    seeds: Sequence[int]
    options: Options
    console: Console
    failures: list[Failure] = field(default_factory=list)

    @property
    def images(self) -> str:
        """What pretraining reads, `folder=PATH` with its options."""
        return next(f"{name}={path.absolute()}" for name, path in self.data.items() if name.partition("+")[0] == "folder")

    def plan(self, model: str) -> Plan:
        """The cells of one model."""
        places = [f"{name}={path}" for name, path in self.data.items()]
        return make_plan(
            [model], list(self.tasks), places, self.out, overrides=self.task_settings, seeds=self.seeds, options=self.options
        )

    def cells(self, plan: Plan) -> list[Job]:
        """The jobs of a plan, longest first."""
        jobs, failures = cell_jobs(plan.cells, self.options, self.console, self.weights)
        self.failures.extend(failures)
        return jobs

    def job(self, pretraining: Pretraining) -> Job:
        """The job of one pretraining, after which the cells of its checkpoint can run."""
        folder = self.folder(pretraining)
        return Job(
            name=f"pretrain {pretraining.name}",
            command=self._command(pretraining, folder),
            folder=folder,
            weight=pretraining.weight,
            prepare=partial(self._ready, pretraining, folder),
            then=partial(self._cells_after, pretraining, folder),
            later_count=len(self.tasks),
            later_weight=sum(self.weights.values()),
        )

    def run(self, jobs: Sequence[Job]) -> list[Failure]:
        """Run jobs and those that follow from them; everything that went wrong.

        Raises:
            Stopped: a signal came.
        """
        with make_display(self.console, "jobs") as display, forking(self.options.device) as start:
            outcomes = run_jobs(jobs, slots(self.options), display, start)
        check_stopped(outcomes)
        return [*self.failures, *failed_jobs(outcomes)]

    def folder(self, pretraining: Pretraining) -> Path:
        """Where a pretraining writes."""
        return self.out / "pretrain" / pretraining.name

    def _command(self, pretraining: Pretraining, folder: Path) -> tuple[str, ...]:
        options = self.options
        return python(
            "mae_bench.cli",
            "pretrain",
            pretraining.objective,
            *("--arch", pretraining.arch, "--recipe", pretraining.recipe),
            *("-d", self.images, "-o", str(folder)),
            *("--device", options.device, "--precision", options.precision, "--threads", str(options.threads)),
            *("--workers", str(options.workers)),
            *(("--debug",) if options.debug else ()),
            *(f"{key}={value}" for key, value in pretraining.settings.items()),
        )

    def _ready(self, pretraining: Pretraining, folder: Path) -> Ready:
        """Whether the very same pretraining is finished there, by the key of all that shapes its weights and by the weights."""
        from mae_bench import pretrain
        from mae_bench.core.run import Run
        from tasks.handle import open_data

        options, data = self.options, open_data(self.images)
        run = Run(out=folder, device=options.device, precision=options.precision, threads=options.threads)
        one = pretraining
        finished = pretrain.is_finished(one.objective, one.arch, data, dict(one.settings), run, recipe=one.recipe)
        return "done" if finished else "run"

    def _cells_after(self, pretraining: Pretraining, folder: Path) -> list[Job]:
        """The cells of a checkpoint that has just been made."""
        try:
            return self.cells(self.plan(f"{pretraining.name}={folder / WEIGHTS}"))
        except MaeBenchError as error:
            self.failures.append(Failure(f"cells of {pretraining.name}", str(error)))
            return []


def settings_of(prefixes: Sequence[str], settings: Mapping[str, str]) -> dict[str, str]:
    """Settings by key of those given as `PREFIX.KEY`; later prefixes win over earlier ones.

    Raises:
        ConfigError: a prefix without a key.
    """
    found: dict[str, str] = {}
    for prefix in prefixes:
        for name, value in settings.items():
            head, _, key = name.partition(".")
            if head == prefix and not key:
                raise ConfigError(f"{name}={value} names no setting; write for example {prefix}.epochs={value}")
            if head == prefix:
                found[key] = value
    return found
