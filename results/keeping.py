"""Where records lie in a cell's folder: one that is measured is never lost, whatever the folder is asked for next."""

from pathlib import Path

from mae_bench.core import faults
from mae_bench.core.errors import InputError
from mae_bench.core.files import write_bytes, write_json
from mae_bench.core.patience import patiently
from results.record import FILE, Record, read_record


def write_record(folder: Path, record: Record) -> None:
    """Write a cell's record: the last thing of a cell, whole or not at all; one that is there is kept by `keep`."""
    faults.visit("record.write")
    patiently(lambda: keep(folder))
    patiently(lambda: write_json(folder / FILE, record.model_dump(mode="json", by_alias=True)))


def kept(folder: Path, key: str) -> Path:
    """Where the record of a key is kept while the folder is of another one."""
    return folder / f"record.{key}.json"


def keep(folder: Path) -> None:
    """Copy the record that is there to where it is kept under its key.

    Raises:
        InputError: there is one that cannot be read, perhaps of a newer version; it is left as it is.
    """
    check_readable(folder)
    record = read_record(folder / FILE, lambda line: None)
    if record is not None:
        write_bytes(kept(folder, record.key), (folder / FILE).read_bytes())


def restore(folder: Path, key: str) -> bool:
    """Make the record that is kept under a key the folder's own again; the one in its place is kept in turn.

    Returns:
        Whether there was one.
    """
    path = kept(folder, key)
    record = read_record(path, lambda line: None)
    if record is None or record.key != key:
        return False
    keep(folder)
    write_bytes(folder / FILE, path.read_bytes())
    return True


def has_record(folder: Path, key: str) -> bool:
    """Whether the folder's record is of this key."""
    record = read_record(folder / FILE, lambda line: None)
    return record is not None and record.key == key


def check_readable(folder: Path) -> None:
    """Refuse a folder whose record cannot be read.

    Raises:
        InputError: with the reason.
    """
    reasons: list[str] = []
    if read_record(folder / FILE, reasons.append) is None and reasons:
        reason = reasons[0].removesuffix("; left out").replace("left out, ", "")
        raise InputError(f"{reason}; it stays as it is: move it away to measure the cell anew")
