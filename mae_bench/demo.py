"""The main job on a laptop: pretrain on embedded images, transfer to every task, show the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from mae_bench.chain import Chain, Pretraining, settings_of
from mae_bench.core.errors import MaeBenchError, Stopped
from mae_bench.job import reporter
from mae_bench.options import Options
from mae_bench.runner import Failure, blocked_failures, conclude, describe, say
from results.report import write_report
from results.store import Order, write_order

ARCH = "vit_demo_patch8"
BASELINE = "random"
RECIPE = "demo"

OBJECTIVES = {"mae": 260.0, "simclr": 200.0, "supervised": 170.0}
"""Pretrainings with their rough length in seconds of one core; the longest is started first."""
TASKS = {"knn": 6.0, "linear": 8.0, "finetune": 40.0, "detection": 130.0, "segmentation": 95.0}
"""Tasks with the same, a cell."""

TINY = {
    "pretrain.epochs": "1",
    "pretrain.warmup_epochs": "0",
    "linear.epochs": "5",
    "linear.warmup_epochs": "1",
    "finetune.epochs": "1",
    "finetune.warmup_epochs": "0",
    "detection.steps": "3",
    "detection.schedule.warmup_steps": "0",
    "segmentation.steps": "3",
    "segmentation.warmup_steps": "0",
}
"""Settings for `--scale tiny`: everything runs, and no number means anything."""


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
    pretrainings = [pretraining(name, settings) for name in OBJECTIVES]
    for one in pretrainings:
        one.check()
    progress = reporter(out)
    with progress.live():
        data = write_demo(out / "data", scale=scale, progress=progress)
    chain = make_chain(out, data, settings, options, console)
    baseline = chain.plan(f"{BASELINE}=random:{ARCH}")
    write_order(out, Order((BASELINE, *reversed(OBJECTIVES)), baseline.tasks))
    chain.failures.extend(blocked_failures(baseline.blocked))
    say(console, f"demo in {out}: {describe(options)}")
    failures = chain.run([*(chain.job(one) for one in pretrainings), *chain.cells(baseline)])
    return _conclude(chain, failures)


def make_chain(out: Path, data: Mapping[str, Path], settings: Mapping[str, str], options: Options, console: Console) -> Chain:
    """The chain of the demo: every task of its recipe, one seed."""
    of_tasks = {key: value for key, value in settings.items() if key.partition(".")[0] not in ("pretrain", *OBJECTIVES)}
    tasks = [f"{task}:{RECIPE}" for task in TASKS]
    return Chain(out, data, tasks, of_tasks, TASKS, [0], options, console)


def pretraining(objective: str, settings: Mapping[str, str]) -> Pretraining:
    """One pretraining of the demo; `OBJECTIVE.KEY` wins over `pretrain.KEY`, which is for all."""
    own = settings_of(("pretrain", objective), settings)
    return Pretraining(objective, objective, ARCH, RECIPE, own, OBJECTIVES[objective])


def _conclude(chain: Chain, failed: Sequence[Failure]) -> int:
    """Table, report, failures: what goes wrong with one of them is told with the rest."""
    failures, out, console = list(failed), chain.out, chain.console
    try:
        report = write_report([out], out / "report.html", lambda line: say(console, f"warning: {line}"))
        say(console, f"report: {report}")
    except Stopped:
        raise
    except MaeBenchError as error:
        failures.append(Failure("report", str(error)))
    return conclude(out, failures, console)
