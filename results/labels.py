"""Texts of a table's rows and columns: no two unlike ones have the same."""

from collections.abc import Mapping, Sequence

from results.names import plain
from results.record import Record

RowKey = tuple[str, str]
"""Model name and checkpoint digest."""
GroupKey = tuple[str, str, str, int, str, str]
"""Task, recipe, digest of the settings, version, data set, its fingerprint: numbers of other groups are not comparable."""


def record_row(record: Record) -> RowKey:
    """The row a record belongs to."""
    return record.model.name, record.model.sha256


def record_group(record: Record) -> GroupKey:
    """The columns a record belongs to."""
    how, what = record.protocol, record.dataset
    return how.task, how.recipe, how.config_digest, how.version, what.name, what.fingerprint


def row_labels(rows: Sequence[RowKey]) -> tuple[str, ...]:
    """Names; models of the same name are told apart by their checkpoint."""
    names = [name for name, _ in rows]
    return tuple(plain(name if names.count(name) == 1 else f"{name} [{sha256[:8]}]") for name, sha256 in rows)


def group_label(key: GroupKey, others: Sequence[GroupKey], first: dict[GroupKey, Record]) -> str:
    """The shortest text that no other group has; `*` marks settings other than the recipe's."""
    task, recipe, digest, version, dataset, fingerprint = key
    record = first.get(key)
    text = f"{task}:{recipe}" + ("*" if record is not None and record.protocol.changes else "")
    like = [other for other in others if other[:2] == key[:2]]
    if len({other[4:] for other in like}) > 1:
        text += f" on {dataset}"
    if len({other[5] for other in like if other[4] == dataset}) > 1:
        text += f" [{fingerprint[:8]}]"
    if len({other[2:4] for other in like}) > 1:
        text += f" [{digest[:6]}]" if version == 1 else f" [{digest[:6]} v{version}]"
    return plain(text)


def group_note(key: GroupKey, record: Record | None) -> str:
    """What a label stands for, on one line."""
    if record is None:
        return plain(f"on {key[4]}: no number yet")
    counts = record.dataset.counts
    text = f"on {key[4]} ({counts.get('train', '?')} train, {counts.get('val', '?')} val images), {record.protocol.selection}"
    if record.protocol.changes:
        settings = ", ".join(f"{name}={value}" for name, value in record.protocol.changes.items())
        text += f"; other settings than {record.protocol.recipe}: {settings}"
    return plain(text)


def mixtures(records: Sequence[Record], labels: Mapping[GroupKey, str]) -> list[str]:
    """A line for each column whose numbers come from different precisions, and for each model that was loaded in part."""
    precisions: dict[GroupKey, set[str]] = {}
    for record in records:
        precisions.setdefault(record_group(record), set()).add(record.machine.precision)
    mixed = [(label, sorted(precisions.get(key, ()))) for key, label in labels.items()]
    lines = [f"{label} mixes precisions {' and '.join(kinds)}" for label, kinds in mixed if len(kinds) > 1]
    partial = sorted({record.model.name for record in records if record.model.ledger.get("missing")})
    return lines + [f"{plain(name)} was loaded in part: some of its tensors were initialised anew" for name in partial]
