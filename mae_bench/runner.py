"""Running cells: what is finished is skipped by its key, the rest runs as jobs, and what failed is told at the end."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mae_bench.choose import Blocked
from mae_bench.core.errors import MaeBenchError, Stopped
from mae_bench.core.files import write_text
from mae_bench.core.plural import are, counted
from mae_bench.display import make_display
from mae_bench.ends import last_lines
from mae_bench.forking import forking
from mae_bench.jobs import Job, Outcome
from mae_bench.launch import check_stopped, python, run_jobs
from mae_bench.options import Options, slots
from mae_bench.plan import Cell, Plan, with_options
from mae_bench.processes import Start, slurm, start_here, torchrun
from mae_bench.settle import Standing, announce, prepare, standing
from results import record as records
from results.formats import show_table, to_markdown
from results.index import write_index
from results.names import plain
from results.record import Record, read_record
from results.store import Order, stored_cells, write_order
from results.table import HEADLINE, build_table


@dataclass(frozen=True)
class Failure:
    """Something of a run that gave no number."""

    name: str
    message: str
    log: Path | None = None


def retry(out: Path, options: Options, console: Console) -> int:
    """Run again what was asked for below an output folder and is not finished: failed, stopped or never started.

    Cells are run as they were asked for, but for the options that are given now.
    """
    found = stored_cells(out, lambda line: say(console, f"warning: {line}"))
    asked = [Cell(cell.folder, cell.request) for cell in found if cell.record is None and cell.request is not None]
    if not asked:
        say(console, f"nothing to do: {counted(len(found), 'cell')} in {out}, all finished")
    cells = [with_options(cell, options) for cell in asked]
    for name, old, new in _other_ways(asked, cells):
        say(console, f"{name} {old} -> {new}, as asked for now")
    places = {cell.request.device for cell in cells}
    return run_plan(Plan(tuple(cells)), out, replace(options, device="cuda" if "cuda" in places else "cpu"), console)


def run_plan(plan: Plan, out: Path, options: Options, console: Console) -> int:
    """Run the cells of a plan that are not finished, and leave `table.md`.

    Returns:
        Exit code: 0, or 1 when something failed.

    Raises:
        Stopped: a signal came; what ran has been saved.
    """
    write_order(out, Order(plan.models, plan.tasks))
    failures = blocked_failures(plan.blocked)
    jobs, more = cell_jobs(plan.cells, options, console)
    say(console, f"{counted(len(jobs), 'cell')} to run, {describe(options, plan.cells)}")
    with make_display(console) as display, _starting(options, out, len(jobs)) as start:
        outcomes = run_jobs(jobs, slots(options), display, start)
    check_stopped(outcomes)
    return conclude(out, [*failures, *more, *failed_jobs(outcomes)], console)


def cell_jobs(
    cells: Sequence[Cell], options: Options, console: Console, weights: Mapping[str, float] | None = None
) -> tuple[list[Job], list[Failure]]:
    """The jobs of the cells that are to run.

    Args:
        cells: planned cells; a finished one gets no job.
        options: how they are run.
        console: takes a line about what is skipped or done anew.
        weights: expected length by task, for the order; without, cells run in the order given.

    Returns:
        The jobs, and the cells that cannot run: on this machine, or without losing what is in their folders.
    """
    found = [(cell, standing(cell, options.overwrite)) for cell in cells]
    done = [cell for cell, stands in found if stands.state == "done"]
    if done:
        say(console, f"{len(done)} of {counted(len(cells), 'cell')} {are(len(done))} finished and skipped")
    for cell, stands in found:
        if stands.state == "stale":
            say(console, f"again: {cell.request.title}: {stands.reason}; its record stays until the new one is there")
        announce(cell, stands)
    failures = [fault for cell, stands in found if (fault := _fault(cell, stands)) is not None]
    jobs = [
        cell_job(cell, stands, options, console, (weights or {}).get(cell.request.task, 1.0))
        for cell, stands in found
        if stands.to_run and not cell.fault
    ]
    return jobs, failures


def cell_job(cell: Cell, stands: Standing, options: Options, console: Console, weight: float = 1.0) -> Job:
    """The job that measures one cell."""
    words = (str(cell.folder.absolute()), "--key", cell.request.key, *(("--anew",) if stands.anew else ()))
    return Job(
        name=cell.request.title,
        command=torchrun(python("mae_bench.cell", *words), options.gpus_per_cell),
        folder=cell.folder,
        weight=weight,
        prepare=partial(prepare, cell, stands),
        again=partial(prepare, cell, stands, again=True),
        then=partial(_compare, cell, stands.before, console),
        summary=partial(summary, cell.folder),
        time_limit=options.time_limit,
    )


def conclude(out: Path, failures: Sequence[Failure], console: Console) -> int:
    """Show the table and tell what failed, the table itself included; gives the exit code."""
    told = list(failures)
    try:
        finish(out, console)
    except Stopped:
        raise
    except MaeBenchError as error:
        told.append(Failure("table", str(error)))
    return tell_failures(told, console)


def finish(out: Path, console: Console) -> None:
    """Show the table of an output folder and leave it as `table.md`, with every number in `index.csv`."""
    table = build_table([out], lambda line: say(console, f"warning: {line}"))
    show_table(table, console)
    write_text(out / "table.md", to_markdown(table))
    write_index(out, table)
    say(console, f"table: {out / 'table.md'}")


def tell_failures(failures: Sequence[Failure], console: Console) -> int:
    """One line for each failure, with the last lines of its log that say something more, and the exit code."""
    if failures:
        say(console, f"{len(failures)} failed:")
    for failure in failures:
        place = f" (log: {failure.log})" if failure.log else ""
        say(console, f"  {failure.name}: {failure.message}{place}")
        for line in last_lines(failure.log) if failure.log else ():
            if failure.message not in line:
                say(console, f"    | {plain(line)}")
    return 1 if failures else 0


def blocked_failures(blocked: Iterable[Blocked]) -> list[Failure]:
    """Tasks whose packages are missing altogether, as failures."""
    return [Failure(one.task, one.fault) for one in blocked]


def failed_jobs(outcomes: Iterable[Outcome]) -> list[Failure]:
    """Jobs that ended badly, as failures."""
    return [Failure(one.job.name, one.message, one.log) for one in outcomes if one.state == "failed"]


def summary(folder: Path) -> str:
    """The numbers of a finished cell in a few words."""
    record = read_record(folder / records.FILE, lambda line: None)
    if record is None:
        return ""
    shown = [name for name in record.metrics if name in HEADLINE] or list(record.metrics)
    return "  ".join(f"{name} {record.metrics[name].value:.2f}" for name in shown)


def describe(options: Options, cells: Sequence[Cell] = ()) -> str:
    """How jobs are run, in a few words."""
    devices = sorted({cell.request.device for cell in cells}) or [options.device]
    precisions = sorted({cell.request.precision for cell in cells}) or [options.precision]
    how = f"on {' and '.join(devices)} in {' and '.join(precisions)}"
    return f"{options.jobs} at a time, {counted(options.threads, 'thread')} each, {how}"


def say(console: Console, line: str) -> None:
    """Print a line as it is, with nothing in it taken for a style."""
    console.print(Text(line), soft_wrap=True)


def _fault(cell: Cell, stands: Standing) -> Failure | None:
    """Why a planned cell gets no job, where that is a failure."""
    if stands.state in ("refused", "diverged"):
        hint = "; it is not run again without --overwrite failed" if stands.state == "diverged" else ""
        return Failure(cell.request.title, f"{stands.reason}{hint}")
    return Failure(cell.request.title, cell.fault) if cell.fault and stands.to_run else None


def _starting(options: Options, out: Path, jobs: int) -> AbstractContextManager[Start]:
    """Where and how cells are started; a single one gains nothing by being forked."""
    if options.launcher == "slurm":
        return nullcontext(slurm(out.absolute() / "slurm", dict(options.slurm)))
    return forking(options.device) if jobs > 1 else nullcontext(start_here)


def _compare(cell: Cell, before: Record | None, console: Console) -> tuple[Job, ...]:
    """Say when the same cell, measured twice, has given two different numbers."""
    now = read_record(cell.folder / records.FILE, lambda line: None)
    if before is not None and now is not None and before.key == now.key:
        old, new = ({name: score.value for name, score in record.metrics.items()} for record in (before, now))
        if old != new:
            words = ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in dict.fromkeys((*old, *new)))
            say(console, f"warning: {cell.request.title}: measured twice with different numbers: {words}")
    return ()


def _other_ways(asked: Sequence[Cell], cells: Sequence[Cell]) -> list[tuple[str, str, str]]:
    """Device and precision that cells are run with now and were not asked for with."""
    found = [
        (name, getattr(old.request, name), getattr(new.request, name))
        for old, new in zip(asked, cells, strict=True)
        for name in ("device", "precision")
    ]
    return [change for change in dict.fromkeys(found) if change[1] != change[2]]
