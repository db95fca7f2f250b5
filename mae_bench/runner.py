"""Running cells: what is finished is skipped by its key, the rest runs as jobs, and what failed is told at the end."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from mae_bench.choose import Blocked
from mae_bench.core.files import write_json, write_text
from mae_bench.display import make_display
from mae_bench.job import LOCK, Busy, locked
from mae_bench.jobs import Job, Outcome, Ready
from mae_bench.launch import check_stopped, python, run_jobs
from mae_bench.options import Options, slots
from mae_bench.plan import Cell, Plan, with_options
from results import record as records
from results.formats import show_table, to_markdown
from results.record import Record, read_record
from results.request import Request, read_request, write_request
from results.store import STATUS, Order, read_object, stored_cells, write_order
from results.table import build_table

STALE = "record.stale.json"
"""The record of other settings, data or weights that a cell had before."""

Standing = Literal["done", "stale", "open"]


@dataclass(frozen=True)
class Failure:
    """Something of a run that gave no number."""

    name: str
    message: str
    log: Path | None = None


def retry(out: Path, options: Options, console: Console) -> int:
    """Run again what was asked for below an output folder and is not finished: failed, stopped or never started."""
    found = stored_cells(out, lambda line: say(console, f"warning: {line}"))
    cells = [Cell(cell.folder, cell.request) for cell in found if cell.record is None and cell.request is not None]
    if not cells:
        say(console, f"nothing to do: all {len(found)} cells in {out} are finished")
    return run_plan(Plan(tuple(with_options(cell, options) for cell in cells)), out, options, console)


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
    say(console, f"{len(jobs)} cells to run, {describe(options)}")
    with make_display(console) as display:
        outcomes = run_jobs(jobs, slots(options), display)
    check_stopped(outcomes)
    finish(out, console)
    return tell_failures([*failures, *more, *failed_jobs(outcomes)], console)


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
        The jobs, and the cells that cannot run on this machine.
    """
    standing = {cell.folder: _standing(cell, console) for cell in cells}
    todo = [cell for cell in cells if standing[cell.folder] != "done" or options.overwrite == "always"]
    done, stale = len(cells) - len(todo), [cell for cell in todo if standing[cell.folder] == "stale"]
    if done:
        say(console, f"{done} of {len(cells)} cells are finished and skipped")
    for cell in stale:
        say(console, f"again: {cell.request.title}: its record is of other settings, data or weights (kept as {STALE})")
    for cell in todo:
        _announce(cell, options)
    failures = [Failure(cell.request.title, cell.fault) for cell in todo if cell.fault]
    jobs = [cell_job(cell, (weights or {}).get(cell.request.task, 1.0)) for cell in todo if not cell.fault]
    return jobs, failures


def cell_job(cell: Cell, weight: float = 1.0) -> Job:
    """The job that measures one cell."""
    return Job(
        name=cell.request.title,
        command=python("mae_bench.cell", str(cell.folder), "--key", cell.request.key),
        folder=cell.folder,
        weight=weight,
        prepare=lambda: _prepare(cell),
        summary=lambda: summary(cell.folder),
    )


def finish(out: Path, console: Console) -> None:
    """Show the table of an output folder and leave it as `table.md`."""
    table = build_table([out], lambda line: say(console, f"warning: {line}"))
    show_table(table, console)
    write_text(out / "table.md", to_markdown(table))
    say(console, f"table: {out / 'table.md'}")


def tell_failures(failures: Sequence[Failure], console: Console) -> int:
    """One line for each failure, and the exit code."""
    if failures:
        say(console, f"{len(failures)} failed:")
    for failure in failures:
        place = f" (log: {failure.log})" if failure.log else ""
        say(console, f"  {failure.name}: {failure.message}{place}")
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
    return "  ".join(f"{name} {score.value:.2f}" for name, score in record.metrics.items())


def describe(options: Options) -> str:
    """How jobs are run, in a few words."""
    return f"{options.jobs} at a time, {options.threads} threads each, on {options.device} in {options.precision}"


def say(console: Console, line: str) -> None:
    """Print a line as it is, with nothing in it taken for a style."""
    console.print(Text(line), soft_wrap=True)


def _standing(cell: Cell, console: Console) -> Standing:
    record = _record(cell.folder, console)
    if record is None:
        return "open"
    return "done" if record.key == cell.request.key else "stale"


def _record(folder: Path, console: Console) -> Record | None:
    return read_record(folder / records.FILE, lambda line: say(console, f"warning: {line}"))


def _announce(cell: Cell, options: Options) -> None:
    """Leave the request of a planned cell, so that `status` knows of it; one that another process works on is left alone."""
    try:
        with locked(cell.folder):
            failed = read_object(cell.folder / STATUS).get("state") == "failed"
            _settle(cell, anew=options.overwrite == "always" or (failed and options.overwrite == "failed"))
            if cell.fault:
                write_json(cell.folder / STATUS, {"state": "failed", "message": cell.fault, "exit_code": 4})
    except Busy:
        return


def _prepare(cell: Cell) -> Ready:
    """Just before the start: see whether another process has the cell, or has finished it since the plan was made."""
    try:
        with locked(cell.folder):
            return "run" if _settle(cell) else "done"
    except Busy:
        return "busy"


def _settle(cell: Cell, *, anew: bool = False) -> bool:
    """Bring a cell's folder, which is locked, to where the cell can start or go on.

    Args:
        cell: what is to be measured there.
        anew: whether what is there is to be forgotten even if it is of the same cell.

    Returns:
        False when the cell is finished.
    """
    folder = cell.folder
    record, before = read_record(folder / records.FILE, lambda line: None), read_request(folder, lambda line: None)
    if record is not None and record.key == cell.request.key and not anew:
        return False
    if (folder / records.FILE).exists():
        (folder / records.FILE).replace(folder / STALE)
        anew = True
    if anew or (before is not None and _unlike(before, cell.request)):
        _clear(folder)
    write_request(folder, cell.request)
    return True


def _unlike(before: Request, now: Request) -> bool:
    """Whether a saved training cannot be gone on with; one in another precision would be neither."""
    return (before.key, before.precision) != (now.key, now.precision)


def _clear(folder: Path) -> None:
    """Remove what an earlier, different measurement left, but for its record."""
    for path in folder.iterdir():
        if path.name in (STALE, LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
