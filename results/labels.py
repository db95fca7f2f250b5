"""Texts of a table's rows and columns: no two unlike ones have the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.names import plain
from results.record import Record
from results.request import MOST_SHOWN

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


@dataclass(frozen=True)
class Told:
    """What is known of a protocol on a data set from its cells, measured or only asked for."""

    changes: Mapping[str, Any]
    """Settings that differ from the named recipe."""
    record: Record | None = None
    """One of those measured."""
    states: tuple[str, ...] = ()
    """Of its cells that gave no number, such as `failed`."""


def group_label(key: GroupKey, told: Mapping[GroupKey, Told]) -> str:
    """The shortest text that no other group has; `*` marks settings other than the recipe's, and those that vary are named."""
    task, recipe, _, version, dataset, fingerprint = key
    text = f"{task}:{recipe}" + ("*" if told[key].changes else "")
    like = [other for other in told if other[:2] == key[:2]]
    if len({other[4:] for other in like}) > 1:
        text += f" on {dataset}"
    if len({other[5] for other in like if other[4] == dataset}) > 1:
        text += f" [{fingerprint[:8]}]"
    settings = {other: told[other].changes for other in like}
    words = varying(key, settings)
    if any(other[2:4] != key[2:4] and varying(other, settings) == words for other in like):
        words = key[2][:6]
    if len({other[3] for other in like}) > 1 and version != 1:
        words = f"{words} v{version}".strip()
    return plain(f"{text} [{words}]" if words and len({other[2:4] for other in like}) > 1 else text)


def varying(key: GroupKey, settings: Mapping[GroupKey, Mapping[str, Any]]) -> str:
    """The changed settings of a group that not all of some groups have; long ones by their digest."""
    own, missing = settings[key], object()
    unlike = [name for name in own if any(other.get(name, missing) != own[name] for other in settings.values())]
    text = ", ".join(f"{name}={own[name]}" for name in unlike)
    return text if len(text) <= MOST_SHOWN else key[2][:6]


def group_note(key: GroupKey, told: Told) -> str:
    """What a label stands for, on one line."""
    record = told.record
    if record is None:
        counted = [f"{told.states.count(state)} {state}" for state in dict.fromkeys(told.states)]
        text = f"on {key[4]}, no number yet{': ' if counted else ''}{', '.join(counted)}"
    else:
        counts = record.dataset.counts
        text = f"on {key[4]} ({counts.get('train', '?')} train, {counts.get('val', '?')} val images), {record.protocol.selection}"
    if told.changes:
        text += f"; other settings than {key[1]}: {', '.join(f'{name}={value}' for name, value in told.changes.items())}"
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
