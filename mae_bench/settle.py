"""A cell's folder before the cell runs: what is there, what of it counts, and what the cell can go on from.

Nothing that was measured is ever lost: a record stays where it is until the new one is written, and is then kept under its key.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mae_bench.claim import Busy
from mae_bench.claim_file import NAME as CLAIM
from mae_bench.core.errors import ConfigError, MaeBenchError
from mae_bench.core.files import write_json
from mae_bench.jobs import Ready
from mae_bench.locks import LOCK, locked
from mae_bench.plan import Cell
from results import record as records
from results.keeping import check_readable, kept, restore
from results.record import Record, read_record
from results.request import Request, read_request, write_request
from results.store import STATUS, read_object

LEFT = "left.json"
"""Says of which cell the saved training in a folder is, when that is not the one now asked for."""
SAVED = "ckpt"

State = Literal["done", "stale", "open", "diverged", "refused"]


@dataclass(frozen=True)
class Standing:
    """How a planned cell stands before anything runs."""

    state: State
    reason: str = ""
    """On one line: why it is stale or refused, how it diverged."""
    before: Record | None = None
    """The record that is there."""
    anew: bool = False
    """Whether what is there is to be forgotten even if it is of the same cell."""

    @property
    def to_run(self) -> bool:
        """Whether the cell gets a job."""
        return self.state in ("stale", "open")


def standing(cell: Cell, overwrite: str = "") -> Standing:
    """Look at a cell's folder; nothing is changed.

    Args:
        cell: planned.
        overwrite: `failed`, `always` or nothing, as on the command line.
    """
    folder, request = cell.folder, cell.request
    try:
        check_readable(folder)
    except MaeBenchError as error:
        return Standing("refused", str(error))
    before = read_record(folder / records.FILE, _ignore)
    told = read_object(folder / STATUS)
    ended_badly = told.get("state") in ("failed", "diverged") and _asked(folder, request)
    if overwrite == "always" or (overwrite == "failed" and ended_badly):
        return Standing("open", before=before, anew=True)
    found = before if before is not None and before.key == request.key else _kept(folder, request.key)
    if found is not None:
        return Standing("done", before=found)
    if told.get("state") == "diverged" and ended_badly:
        return Standing("diverged", str(told.get("message", "")))
    try:
        _check_saved(folder, request)
    except ConfigError as error:
        return Standing("refused", str(error))
    return Standing("open") if before is None else Standing("stale", ", ".join(changes(before, request)), before)


def announce(cell: Cell, stands: Standing) -> None:
    """Leave the request of a cell that is to run, so that `status` knows of it; one in work by another process is left alone."""
    try:
        with locked(cell.folder):
            if cell.fault:
                _note_fault(cell)
            elif stands.state == "done":
                _restore(cell)
            elif stands.to_run:
                _ask(cell.folder, cell.request)
    except Busy:
        return


def prepare(cell: Cell, stands: Standing, *, again: bool = False) -> Ready:
    """Just before the start: see whether another process has the cell or has finished it, else bring the folder to the start.

    Args:
        cell: planned.
        stands: how it stood then.
        again: whether this run has started it before; what it saved since then is what it goes on from.

    Raises:
        MaeBenchError: what is there must not be touched.
    """
    folder, request = cell.folder, cell.request
    try:
        with locked(folder):
            check_readable(folder)
            now = read_record(folder / records.FILE, _ignore)
            if now is not None and now.key == request.key and not (stands.anew and now == stands.before):
                return "done"
            if not stands.anew:
                _check_saved(folder, request)
            owner = _owner(folder)
            if (stands.anew and not again) or (owner is not None and owner["key"] != request.key):
                _clear(folder)
            (folder / LEFT).unlink(missing_ok=True)
            write_request(folder, request)
            return "run"
    except Busy:
        return "busy"


def changes(record: Record, request: Request) -> list[str]:
    """What makes a record one of another cell than the one asked for, in a few words each."""
    found = []
    if record.model.sha256 != request.sha256:
        found.append(f"checkpoint {record.model.sha256[:8]} -> {request.sha256[:8]}")
    if record.dataset.fingerprint != request.fingerprint:
        found.append(f"data set {record.dataset.fingerprint[:8]} -> {request.fingerprint[:8]}")
    settings = _settings(record.protocol.config, request.config)
    if not settings and record.protocol.config_digest != request.config_digest:
        settings = ["a file that its settings name, or what they mean"]
    found += settings
    if record.protocol.version != request.version:
        found.append(f"code of the task, version {record.protocol.version} -> {request.version}")
    if record.machine.precision != request.precision:
        found.append(f"precision {record.machine.precision} -> {request.precision}")
    return found or ["its settings"]


def _settings(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name in dict.fromkeys((*new, *old)):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _settings(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} {before} -> {after}")
    return found


def _asked(folder: Path, request: Request) -> bool:
    """Whether the folder's last status is of this very cell."""
    there = read_request(folder, _ignore)
    return there is not None and there.key == request.key


def _kept(folder: Path, key: str) -> Record | None:
    record = read_record(kept(folder, key), _ignore)
    return record if record is not None and record.key == key else None


def _restore(cell: Cell) -> None:
    """Bring back the record kept under the cell's key, with the request it answers."""
    if restore(cell.folder, cell.request.key) or not _asked(cell.folder, cell.request):
        _ask(cell.folder, cell.request)
        write_json(cell.folder / STATUS, {"state": "done", "message": "", "exit_code": 0})


def _ask(folder: Path, request: Request) -> None:
    """Write the request; where a training of another cell is saved, note first of which one."""
    owner = _owner(folder)
    if owner is not None and owner["key"] != request.key:
        write_json(folder / LEFT, owner)
    write_request(folder, request)


def _note_fault(cell: Cell) -> None:
    """Say why the cell cannot run here, unless that would hide what the folder holds of another cell or a saved training."""
    folder = cell.folder
    there = read_request(folder, _ignore)
    if (folder / records.FILE).exists() or (folder / SAVED).exists() or (there is not None and there.key != cell.request.key):
        return
    write_request(folder, cell.request)
    write_json(folder / STATUS, {"state": "failed", "message": cell.fault, "exit_code": 4})


def _owner(folder: Path) -> dict[str, str] | None:
    """Key and precision of the cell that the files in a folder are of."""
    noted = read_object(folder / LEFT)
    if isinstance(noted.get("key"), str):
        return {"key": noted["key"], "precision": str(noted.get("precision", ""))}
    there = read_request(folder, _ignore)
    return None if there is None else {"key": there.key, "precision": there.precision}


def _check_saved(folder: Path, request: Request) -> None:
    """Keep a saved training that differs in the precision alone from being thrown away.

    Raises:
        ConfigError: there is one.
    """
    owner = _owner(folder)
    if owner is None or owner["key"] == request.key or not (folder / SAVED).exists():
        return
    if (folder / records.FILE).exists():  # the training has given its number
        return
    if owner["precision"] and owner["key"] == request.key_in(owner["precision"]):
        raise ConfigError(
            f"{folder} holds a training in {owner['precision']} that is not finished, and {request.precision} is asked for; "
            f"go on with --precision {owner['precision']}, or begin anew with --overwrite always"
        )


def _clear(folder: Path) -> None:
    """Remove what an earlier, different measurement left, but for its records."""
    for path in folder.iterdir():
        if path.name == LOCK or path.name.startswith(CLAIM) or path.match("record*.json"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _ignore(line: str) -> None:
    """Take a warning that has been told already."""
