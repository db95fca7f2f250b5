"""Settings by models: one sheet for each task, recipe and data set that was measured with more than one value of a setting."""

from dataclasses import replace

from results.labels import GroupKey
from results.layout import measured
from results.names import plain
from results.record import Record
from results.sheet import Place, Sheet
from results.significance import RULE, with_best
from results.table import Table


def sheets(table: Table) -> list[Sheet]:
    """Rows are the settings that differ, columns the models with their metrics."""
    found: dict[tuple[str, ...], dict[tuple[str, str], Place]] = {}
    better: dict[tuple[str, ...], dict[str, bool]] = {}
    rows = dict(zip(table.rows, table.row_labels, strict=True))
    shown = {(group.key, metric) for group in table.groups for metric in group.metrics}
    for row, group, metric, record, place in sorted(measured(table), key=_settings_first):
        if (group, metric) not in shown:
            continue
        title, column = _sheet(group), f"{rows[row]} {metric}"
        found.setdefault(title, {})[_setting(record), column] = place
        better.setdefault(title, {})[column] = record.metrics[metric].higher_is_better
    return [_make(title, places, better[title]) for title, places in found.items()]


def _sheet(group: GroupKey) -> tuple[str, ...]:
    return group[0], group[1], group[4], group[5]


def _settings_first(one: tuple[object, GroupKey, str, Record, Place]) -> tuple[str, ...]:
    return (*_sheet(one[1]), _setting(one[3]))


def _setting(record: Record) -> str:
    changes = ", ".join(f"{name}={value}" for name, value in record.protocol.changes.items())
    return plain(changes or record.protocol.recipe)


def _make(title: tuple[str, ...], places: dict[tuple[str, str], Place], better: dict[str, bool]) -> Sheet:
    """Columns are compared downwards: which setting is best for a model."""
    rows = tuple(dict.fromkeys(row for row, _ in places))
    text = plain(f"{title[0]}:{title[1]} on {title[2]}")
    sheet = with_best(Sheet(text, "setting", tuple(better), tuple(better.values()), rows, places))
    return replace(sheet, notes=(f"rows without '=' are the recipe as it is named; {RULE}",))
