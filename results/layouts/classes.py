"""Classes by models: one sheet for each protocol and data set whose records have numbers of single classes."""

from collections import Counter
from statistics import mean, stdev

from results.labels import GroupKey, record_group, record_row
from results.names import plain
from results.record import Record
from results.sheet import Place, Sheet
from results.table import Table

Values = dict[tuple[str, str], list[float]]
"""By class and column, over seeds."""


def sheets(table: Table) -> list[Sheet]:
    """Rows are classes in the order of the data set, columns the models with their metrics."""
    found = [_sheet(table, group.key, group.label) for group in table.groups]
    return [sheet for sheet in found if sheet is not None]


def _sheet(table: Table, key: GroupKey, label: str) -> Sheet | None:
    names = dict(zip(table.rows, table.row_labels, strict=True))
    own = [record for record in table.records if record_group(record) == key and record.classes]
    own.sort(key=lambda record: (table.rows.index(record_row(record)), record.seed))
    values: Values = {}
    classes: dict[str, None] = {}
    columns: dict[str, None] = {}
    for record in own:
        model = names[record_row(record)]
        for name, numbers in _named(record):
            classes[name] = None
            for metric, value in numbers.items():
                columns[f"{model} {metric}"] = None
                if value is not None:
                    values.setdefault((name, f"{model} {metric}"), []).append(value)
    if not own:
        return None
    places = {at: Place(mean(some), stdev(some) if len(some) > 1 else None, len(some)) for at, some in values.items()}
    note = "-: the data have nothing of the class to find"
    return Sheet(f"Classes: {label}", "class", tuple(columns), (True,) * len(columns), tuple(classes), places, (note,))


def _named(record: Record) -> list[tuple[str, dict[str, float | None]]]:
    """Names that are told apart where a data set has one twice."""
    seen: Counter[str] = Counter()
    found = []
    for one in record.classes:
        name = plain(one.name)
        seen[name] += 1
        found.append((name if seen[name] == 1 else f"{name} ({seen[name]})", one.values))
    return found
