"""The transfer table of output folders: one row a model, one column a metric of one protocol on one data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import fsum, sqrt
from pathlib import Path

from results.labels import GroupKey, RowKey, Told, group_label, group_note, mixtures, record_group, record_row, row_labels
from results.record import Record
from results.store import Order, StoredCell, pretrainings, read_order, stored_cells, uncollected

HEADLINE = ("top1", "AP_box", "AP_mask", "mIoU")
"""Metrics shown of a task that has any of them; `everything` shows the others too."""


STATES = {"failed": "failed", "diverged": "div.", "stopped": "stopped"}
"""What a table says in place of a number."""


@dataclass(frozen=True)
class Group:
    """One protocol on one data set."""

    key: GroupKey
    label: str
    """Unlike protocols never have the same one."""
    metrics: tuple[str, ...]
    units: tuple[str, ...]
    note: str
    """What the label stands for, on one line."""


@dataclass(frozen=True)
class Entry:
    """What one row has in one column."""

    mean: float
    std: float | None
    """Over seeds; None for a single one."""
    seeds: int

    def text(self) -> str:
        """As tables show it."""
        spread = f" ± {self.std:.2f} ({self.seeds})" if self.std is not None else ""
        return f"{self.mean:.2f}{spread}"


@dataclass(frozen=True)
class Table:
    """Everything the output formats are made of."""

    rows: tuple[RowKey, ...]
    row_labels: tuple[str, ...]
    groups: tuple[Group, ...]
    scores: dict[tuple[RowKey, GroupKey, str], Entry]
    seconds: dict[tuple[RowKey, GroupKey], float]
    """Time over all seeds, as it went by."""
    pretraining: dict[str, float]
    """Time of the pretraining by checkpoint digest, where it lies in the same folders."""
    states: dict[tuple[RowKey, GroupKey], str]
    """`failed`, `div.` or `stopped` of places where a cell has no number."""
    notes: tuple[str, ...] = ()
    shared: dict[tuple[RowKey, GroupKey], float] = field(default_factory=dict)
    """Time of others over all seeds, for features that the cells found ready; see `Cost.shared_seconds`."""
    records: tuple[Record, ...] = field(default=(), repr=False)
    cells: tuple[StoredCell, ...] = field(default=(), repr=False)

    def score(self, row: RowKey, group: GroupKey, metric: str) -> str:
        """The text of one place of the table."""
        entry = self.scores.get((row, group, metric))
        if entry is not None:
            return entry.text()
        return "-" if (row, group) in self._measured else self.states.get((row, group), "-")

    def total(self, row: RowKey) -> float:
        """Time of all cells of a model, and of its pretraining where that is known."""
        return self.pretraining.get(row[1], 0.0) + self._totals.get(row, 0.0)

    def alone(self, row: RowKey, group: GroupKey) -> float:
        """Time of the cells of one place over all seeds, each as if it were alone: with the features that others computed."""
        return self.seconds[row, group] + self.shared.get((row, group), 0.0)

    @cached_property
    def _measured(self) -> frozenset[tuple[RowKey, GroupKey]]:
        """Places that have a number."""
        return frozenset((row, group) for row, group, _ in self.scores)

    @cached_property
    def _totals(self) -> dict[RowKey, float]:
        """Time of all cells of each row."""
        found: dict[RowKey, float] = {}
        for (row, _), value in self.seconds.items():
            found[row] = found.get(row, 0.0) + value
        return found


def build_table(outs: Sequence[Path], warn: Callable[[str], None], *, everything: bool = False) -> Table:
    """Read the cells below output folders and arrange them.

    Args:
        outs: output folders of runs.
        warn: takes one line for each file that had to be left out.
        everything: whether metrics beside the headline ones get columns.
    """
    with uncollected():
        cells = [cell for out in outs for cell in stored_cells(out, warn)]
        order = Order()
        for out in outs:
            order = order.merged(read_order(out))
        spent = {one.sha256: one.seconds for out in outs for one in pretrainings(out) if one.seconds is not None}
        return arrange(cells, order, spent, everything=everything)


def arrange(cells: Sequence[StoredCell], order: Order, pretraining: dict[str, float], *, everything: bool = False) -> Table:
    """Make the table of cells; its scores are a function of the numbers, the names and the order alone."""
    records, conflicts = _latest([cell.record for cell in cells if cell.record is not None])
    rows = _rows(cells, order)
    groups = _groups(cells, records, order, everything)
    return Table(
        rows=rows,
        row_labels=row_labels(rows),
        groups=groups,
        scores=_entries(records),
        seconds=_seconds(records, lambda record: record.cost.seconds),
        shared=_seconds(records, lambda record: record.cost.shared_seconds),
        pretraining={sha256: pretraining[sha256] for _, sha256 in rows if sha256 in pretraining},
        states=_states(cells),
        notes=(*conflicts, *mixtures(records, {group.key: group.label for group in groups})),
        records=tuple(records),
        cells=tuple(cells),
    )


def row_key(cell: StoredCell) -> RowKey | None:
    """The row a cell belongs to."""
    if cell.record is not None:
        return record_row(cell.record)
    return None if cell.request is None else (cell.request.model, cell.request.sha256)


def group_key(cell: StoredCell) -> GroupKey | None:
    """The columns a cell belongs to."""
    if cell.record is not None:
        return record_group(cell.record)
    asked = cell.request
    if asked is None:
        return None
    return asked.task, asked.recipe, asked.config_digest, asked.version, asked.dataset, asked.fingerprint


def _latest(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """One record for each cell, the newest, and a line where an older one has other numbers."""
    kept: dict[tuple[RowKey, GroupKey, int], Record] = {}
    conflicts = []
    for record in sorted(records, key=lambda record: record.date):
        place = record_row(record), record_group(record), record.seed
        older = kept.get(place)
        if older is not None and _values(older) != _values(record):
            title = f"{record.model.name} {record.protocol.task}:{record.protocol.recipe} seed {record.seed}"
            conflicts.append(f"{title} was measured more than once with different numbers; the newest is shown")
        kept[place] = record
    return list(kept.values()), sorted(set(conflicts))


def _values(record: Record) -> dict[str, float]:
    return {name: score.value for name, score in record.metrics.items()}


def _entries(records: Sequence[Record]) -> dict[tuple[RowKey, GroupKey, str], Entry]:
    """Mean and sample standard deviation over seeds; sums are exact, so that the order of reading does not matter."""
    places: dict[tuple[RowKey, GroupKey, str], list[float]] = {}
    for record in records:
        row, group = record_row(record), record_group(record)
        for name, score in record.metrics.items():
            places.setdefault((row, group, name), []).append(score.value)
    return {place: _entry(values) for place, values in places.items()}


def _entry(values: Sequence[float]) -> Entry:
    mean = fsum(values) / len(values)
    if len(values) == 1:
        return Entry(mean, None, 1)
    return Entry(mean, sqrt(fsum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values))


def _seconds(records: Sequence[Record], of: Callable[[Record], float]) -> dict[tuple[RowKey, GroupKey], float]:
    found: dict[tuple[RowKey, GroupKey], float] = {}
    for record in records:
        place = record_row(record), record_group(record)
        found[place] = found.get(place, 0.0) + of(record)
    return found


def _states(cells: Sequence[StoredCell]) -> dict[tuple[RowKey, GroupKey], str]:
    found = {}
    for cell in cells:
        row, group = row_key(cell), group_key(cell)
        if row is not None and group is not None and cell.record is None and cell.state in STATES:
            found[row, group] = STATES[cell.state]
    return found


def _rows(cells: Sequence[StoredCell], order: Order) -> tuple[RowKey, ...]:
    found = {key for cell in cells if (key := row_key(cell)) is not None}
    places = {name: number for number, name in enumerate(order.models)}
    return tuple(sorted(found, key=lambda key: (places.get(key[0], len(places)), key)))


def _groups(cells: Sequence[StoredCell], records: Sequence[Record], order: Order, everything: bool) -> tuple[Group, ...]:
    told = _told(cells, records)
    places = {name: number for number, name in enumerate(order.tasks)}
    units: dict[GroupKey, dict[str, str]] = {}
    for record in records:
        units.setdefault(record_group(record), {}).update({name: score.unit for name, score in record.metrics.items()})
    groups = []
    for key in sorted(told, key=lambda key: (places.get(f"{key[0]}:{key[1]}", len(places)), key)):
        columns = _shown(units.get(key, {}), everything)
        groups.append(Group(key, group_label(key, told), tuple(columns), tuple(columns.values()), group_note(key, told[key])))
    return tuple(groups)


def _told(cells: Sequence[StoredCell], records: Sequence[Record]) -> dict[GroupKey, Told]:
    """What is known of each protocol on each data set."""
    found: dict[GroupKey, Told] = {}
    for record in records:
        found.setdefault(record_group(record), Told(record.protocol.changes, record))
    for cell in cells:
        key = group_key(cell)
        if cell.record is not None or cell.request is None or key is None:
            continue
        there = found.setdefault(key, Told(cell.request.changes))
        if cell.state in STATES:
            found[key] = replace(there, states=(*there.states, STATES[cell.state]))
    return found


def _shown(units: dict[str, str], everything: bool) -> dict[str, str]:
    """Unit of each metric that gets a column; a nameless one where there is no number yet."""
    headline = {name: unit for name, unit in units.items() if name in HEADLINE}
    return (units if everything or not headline else headline) or {"": ""}
