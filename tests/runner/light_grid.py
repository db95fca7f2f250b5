"""Sixty light cells, some of them faulty, and a program that runs them, as a script: `light_grid.py OUT CLOCK [forked]`."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mae_bench import claim, forking, launch, runner
from mae_bench.claim_file import NAME
from mae_bench.options import Options
from mae_bench.plan import Cell
from tests.runner.light_runner import command, make_cell, make_plan

FAULTY = ("crash", "kill", "full", "hang", "corrupt", "error", "diverge")
FORKED = "tests.runner.light_cell"
ODD = ("kill once", "clock", "dead machine")
"""What happens to cells that give their number all the same."""
CELLS = 60
STALE = 2.0


def cells(out: Path) -> list[tuple[str, Cell]]:
    """Every cell with what is to happen to it; faults of a kind are far apart, so that they do not look like a broken machine."""
    kinds = iter([*FAULTY, *ODD, *FAULTY[:2], *ODD])
    modes = ["" if number % 4 else next(kinds) for number in range(CELLS)]
    return [(mode, make_cell(out, f"m{number:02}", mode=mode or "ok")) for number, mode in enumerate(modes)]


def prepare(out: Path) -> None:
    """Leave the folders that are spoilt before anything runs."""
    for mode, cell in cells(out):
        if mode == "corrupt":
            cell.folder.mkdir(parents=True)
            (cell.folder / "record.json").write_text('{"schema": 3, "key": ')
        if mode == "dead machine":
            cell.folder.mkdir(parents=True)
            owner = {"host": "gone", "boot": "another", "space": "", "pid": 1, "started": "1", "token": "t", "beats": "7"}
            (cell.folder / f"{NAME}1").write_text(json.dumps(owner))


def forked(module: str, *words: str) -> tuple[str, ...]:
    """In place of `mae_bench.launch.python`: a command that is forked."""
    return (sys.executable, "-m", FORKED, *words)


def main(out: Path, clock: float, *, fork: bool) -> int:
    forking.FORKED, forking.PRELOADED = (FORKED,), (FORKED,)
    claim.STALE_SECONDS, launch.GRACE_SECONDS, launch.BUSY_SECONDS = STALE, 0.5, 0.5
    real, whole = time.time, runner.cell_job
    time.time = lambda: real() + clock

    def limited(cell: Cell, *words: Any) -> Any:
        job = whole(cell, *words)
        return replace(job, time_limit=3.0) if cell.request.config["mode"] == "hang" else job

    runner.python, runner.cell_job = forked if fork else command, limited  # type: ignore[assignment]
    return runner.run_plan(make_plan(*(cell for _, cell in cells(out))), out, Options(jobs=3), Console(width=300))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), fork="forked" in sys.argv))
