"""Cells without torch, and a program that runs them, as a script: `light_runner.py OUT`."""

import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mae_bench import runner
from mae_bench.options import Options
from mae_bench.plan import Cell, Plan
from mae_bench.runner import run_plan
from results.record import read_record
from results.request import Request, cell_key
from tests.results.sample import Screen, make_record, make_request, place

CELL = str(Path(__file__).with_name("light_cell.py"))


def command(module: str, *words: str) -> tuple[str, ...]:
    """In place of `mae_bench.launch.python`."""
    return (sys.executable, CELL, *words)


def make_cell(out: Path, name: str = "mae", seed: int = 0, fault: str = "", precision: str = "fp32", **config: Any) -> Cell:
    """One planned cell of a light task."""
    settings = {"k": 20, **config}
    record = make_record(name, seed=seed, digest=str(sorted(settings.items())))
    key = cell_key(
        sha256=record.model.sha256,
        task="knn",
        digest=record.protocol.config_digest,
        fingerprint=record.dataset.fingerprint,
        seed=seed,
        version=1,
        precision=precision,
    )
    request: Request = make_request(record, key=key, config=settings, precision=precision)
    return Cell(place(out, record), request, fault)


def make_plan(*cells: Cell) -> Plan:
    return Plan(cells, tuple(dict.fromkeys(cell.request.model for cell in cells)), ("knn:demo",))


def run(out, *cells, **options):
    """Exit code and what was said."""
    console = Screen()
    code = run_plan(make_plan(*cells), out, Options(jobs=2, **options), console)
    return code, console.text


def visits(cell):
    path = cell.folder / "visits"
    return len(path.read_text()) if path.exists() else 0


def key_of(cell, name="record.json"):
    record = read_record(cell.folder / name, pytest.fail)
    return None if record is None else record.key


if __name__ == "__main__":
    runner.python = command  # type: ignore[assignment]
    folder = Path(sys.argv[1])
    planned = make_plan(*(make_cell(folder, name, seed) for name in "abc" for seed in (0, 1)))
    sys.exit(runner.run_plan(planned, folder, Options(jobs=2), Console()))
