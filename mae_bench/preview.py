"""What a plan would do, shown before anything runs: done, stale with what changed, missing, with the estimated cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mae_bench.core.errors import ConfigError
from mae_bench.core.plural import counted
from mae_bench.estimate import MEASURED, Estimate, Estimator
from mae_bench.estimate_memory import device_memory, less
from mae_bench.grid import Limits
from mae_bench.lines import duration
from mae_bench.plan import Cell, Plan
from mae_bench.settle import Standing, standing
from results.names import plain
from results.table import Table as Results

GIB = 2**30
WORDS = {"open": "missing"}
"""States as people read them, where that is another word."""


@dataclass(frozen=True)
class Preview:
    """One cell of a plan with what it would do and cost."""

    cell: Cell
    stands: Standing
    cost: Estimate | None
    """None for a cell that would not run."""


def previews(plan: Plan, overwrite: str, estimator: Estimator) -> list[Preview]:
    """Look at every cell of a plan; nothing is changed."""
    found = []
    for cell in plan.cells:
        stands = standing(cell, overwrite)
        cost = None
        if stands.to_run and not cell.fault:
            try:
                cost = estimator.estimate(cell)
            except ConfigError as error:
                cell = replace(cell, fault=str(error))
        found.append(Preview(cell, stands, cost))
    return found


def make_estimator(results: Results | None, device: str, processes: int = 1) -> Estimator:
    """An estimator that knows the cells of an output folder."""
    return Estimator(results.records if results is not None else (), device, processes=processes)


def show(found: Sequence[Preview], plan: Plan, jobs: int, console: Console) -> None:
    """Draw the preview: a line for each cell that is not done, and the sums."""
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("state", "cell", "details", "estimate", "TFLOPs", "GiB"):
        drawn.add_column(name, overflow="fold")
    for one in found:
        if one.stands.state != "done":
            drawn.add_row(*(Text(plain(text)) for text in _row(one)))
    if drawn.rows:
        console.print(drawn)
    for one in plan.blocked:
        console.print(Text(plain(f"cannot run: {one.task}: {one.fault}")), soft_wrap=True)
    counts = Counter(_state(one) for one in found)
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items()) or "no cells"), soft_wrap=True)
    costs = [one.cost for one in found if one.cost is not None]
    if costs:
        seconds = sum(cost.seconds for cost in costs) / max(1, jobs)
        text = f"{counted(len(costs), 'cell')} to run: about {duration(seconds)} at {jobs} at a time"
        for how in dict.fromkeys(cost.how for cost in costs):
            text += f"; {how}"
        if any(cost.how == MEASURED for cost in costs):
            text += ". This is rough: expect half to three times as much"
            text += "; memory: at least, of the backbone with its training, without heads and libraries"
        console.print(Text(text), soft_wrap=True)


def too_large(found: Sequence[Preview], jobs: int, device: str) -> str:
    """The line about cells that this machine cannot hold, where there are any; empty otherwise.

    Of earlier cells nothing is said: they have been held, here or elsewhere.

    Args:
        found: the previews of a plan that runs on this machine.
        jobs: cells at a time; on a CPU they share its memory, and a GPU has one.
        device: `cpu` or `cuda`.
    """
    room = device_memory(device)
    counted_ones = [(one.cost.memory, one.cell.request) for one in found if one.cost is not None and one.cost.how == MEASURED]
    sized = sorted(counted_ones, key=lambda pair: -pair[0])
    if not sized:
        return ""
    most, request = sized[0]
    has = f"and {'a GPU' if device == 'cuda' else 'this machine'} has {room / GIB:.1f}"
    if most > room:
        ways = " or ".join(f"{request.task}.{name}" for name in less(request.config))
        return f"{request.title} takes at least {most / GIB:.1f} GiB, {has}" + (f"; less by {ways}" if ways else "")
    together = list(accumulate(memory for memory, _ in sized[:jobs]))
    if device == "cpu" and together[-1] > room:
        fit = sum(memory <= room for memory in together)
        return f"{len(together)} cells at a time take at least {together[-1] / GIB:.1f} GiB, {has}; use --jobs {fit}"
    return ""


def check_limits(found: Sequence[Preview], limits: Limits) -> None:
    """Refuse a plan that costs more than it may.

    Raises:
        ConfigError: it does.
    """
    costs = [one.cost for one in found if one.cost is not None]
    if limits.cells is not None and len(costs) > limits.cells:
        raise ConfigError(f"{counted(len(costs), 'cell')} to run, and limits.cells is {limits.cells}; raise it or ask for fewer")
    hours = sum(cost.seconds for cost in costs) / 3600
    if limits.hours is not None and hours > limits.hours:
        raise ConfigError(f"about {hours:.1f} hours are to run, and limits.hours is {limits.hours:g}; raise it or ask for less")


def _state(one: Preview) -> str:
    return "cannot run" if one.cell.fault and one.stands.to_run else WORDS.get(one.stands.state, one.stands.state)


def _row(one: Preview) -> tuple[str, ...]:
    details = one.cell.fault if one.cell.fault else one.stands.reason
    cost = one.cost
    if cost is None:
        return _state(one), one.cell.request.title, details, "", "", ""
    seconds = duration(cost.seconds)
    return _state(one), one.cell.request.title, details, seconds, f"{cost.tflops:.3g}", f"{cost.memory / GIB:.2f}"
