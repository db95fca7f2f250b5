"""The cells below an output folder, as their files tell; nothing here needs torch."""

import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mae_bench.core.errors import InputError
from mae_bench.core.files import write_json
from results import record as records
from results.record import Record, read_record
from results.request import FILE as REQUEST
from results.request import Request, changed, read_key, read_request

ORDER = "order.json"
STATUS = "status.json"
"""How the last process of a cell ended."""
LEVELS = 4
"""Folders from an output folder to a cell: model, task-recipe, data set, seed."""

State = Literal["done", "failed", "diverged", "stopped", "started", "planned"]


@dataclass(frozen=True)
class StoredCell:
    """One cell folder."""

    folder: Path
    record: Record | None
    request: Request | None = None
    """Of a cell that is not done; a record says the same."""
    status: dict[str, Any] = field(default_factory=dict)
    """The same holds for it."""

    @property
    def title(self) -> str:
        """The cell in displays."""
        if self.record is not None:
            how = self.record.protocol
            words = f"{how.task}:{how.recipe}{changed(how.changes, how.config_digest)}"
            return f"{self.record.model.name} {words} {self.record.dataset.name} seed {self.record.seed}"
        return self.request.title if self.request is not None else str(self.folder)

    @property
    def state(self) -> State:
        """How far the cell is; `started` is running at this moment, or was killed."""
        if self.record is not None:
            return "done"
        known: dict[object, State] = {"failed": "failed", "diverged": "diverged", "stopped": "stopped", "running": "started"}
        return known.get(self.status.get("state"), "planned")

    @property
    def message(self) -> str:
        """What went wrong, on one line."""
        return str(self.status.get("message", "")) if self.state in ("failed", "diverged") else ""


@dataclass(frozen=True)
class Pretraining:
    """The folder of a pretraining below an output folder."""

    name: str
    folder: Path
    sha256: str = ""
    """Of the checkpoint it left."""
    seconds: float | None = None
    """Time of all its sessions; None where it is not finished."""


@dataclass(frozen=True)
class Order:
    """The order in which models and tasks were given."""

    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def merged(self, other: "Order") -> "Order":
        """This order, then what only the other one has."""
        return Order(_union(self.models, other.models), _union(self.tasks, other.tasks))


def stored_cells(out: Path, warn: Callable[[str], None]) -> list[StoredCell]:
    """Every cell below an output folder, by path.

    Raises:
        InputError: there is no such folder.
    """
    check_out(out)
    with uncollected():
        return [cell for folder in _folders(out) for cell in cells_in(folder, warn)]


def check_out(out: Path) -> None:
    """See that there is an output folder.

    Raises:
        InputError: there is none.
    """
    if not out.is_dir():
        what = "is a file" if out.exists() else "does not exist"
        raise InputError(f"{out} {what}; give the folder that was the -o of an earlier run")


def _folders(out: Path) -> list[Path]:
    """Folders that may be those of cells, by path; a folder that cannot be listed has none."""
    found = [str(out)]
    for level in range(1, LEVELS + 1):
        found = [path for folder in found for path in _below(folder) if level < LEVELS or Path(path).name.startswith("seed")]
    return sorted(map(Path, found))


def _below(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir()]
    except OSError:
        return []


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage inside the block, which makes next to none: looking for it among ten thousand records takes long."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def cells_in(folder: Path, warn: Callable[[str], None]) -> list[StoredCell]:
    """What the files of one folder tell: the cell measured, the one asked for since with other settings or data, or neither."""
    record = read_record(folder / records.FILE, warn)
    if record is None and not (folder / records.FILE).is_file() and not (folder / REQUEST).is_file():
        return []
    measured = [] if record is None else [StoredCell(folder, record)]
    if record is not None and read_key(folder) in (record.key, None):
        return measured
    request = read_request(folder, warn)
    if record is not None and (request is None or request.key == record.key):
        return measured
    return [*measured, StoredCell(folder, None, request, read_object(folder / STATUS))]


def pretrainings(out: Path) -> list[Pretraining]:
    """The pretrainings in an output folder or just below it: they have weights and logged numbers."""
    patterns = ("metrics.jsonl", "*/metrics.jsonl", "*/*/metrics.jsonl")
    folders = [path.parent for pattern in patterns for path in sorted(out.glob(pattern))]
    return [_pretraining(folder) for folder in folders if (folder / "model.safetensors").is_file()]


def _pretraining(folder: Path) -> Pretraining:
    told = read_object(folder / "pretrain.json")
    seconds = told.get("seconds")
    return Pretraining(
        folder.resolve().name, folder, str(told.get("sha256", "")), float(seconds) if isinstance(seconds, int | float) else None
    )


def read_order(out: Path) -> Order:
    """The order kept in an output folder; empty where there is none."""
    data = read_object(out / ORDER)
    return Order(_texts(data.get("models")), _texts(data.get("tasks")))


def write_order(out: Path, order: Order) -> Order:
    """Add models and tasks to the order kept in an output folder."""
    merged = read_order(out).merged(order)
    write_json(out / ORDER, {"models": list(merged.models), "tasks": list(merged.tasks)})
    return merged


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a file, or an empty one where it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
