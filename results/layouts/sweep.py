"""Settings by models: one sheet for each task, recipe and data set that was measured with more than one value of a setting."""

from collections.abc import Mapping
from dataclasses import replace

from results.labels import GroupKey
from results.layout import measured
from results.names import plain
from results.record import Record
from results.sheet import Place, Sheet
from results.significance import RULE, with_best
from results.store import State
from results.table import STATES, Table, group_key, row_key


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
        how = record.protocol
        found.setdefault(title, {})[_setting(how.changes, how.recipe), column] = place
        better.setdefault(title, {})[column] = record.metrics[metric].higher_is_better
    for cell in table.cells:
        row, group, asked = row_key(cell), group_key(cell), cell.request
        if cell.record is None and row is not None and group is not None and asked is not None and cell.state in STATES:
            _mark(
                cell.state,
                _setting(asked.changes, asked.recipe),
                rows[row],
                found.setdefault(_sheet(group), {}),
                better.setdefault(_sheet(group), {}),
            )
    return [_make(title, places, better[title]) for title, places in found.items()]


def _sheet(group: GroupKey) -> tuple[str, ...]:
    return group[0], group[1], group[4], group[5]


def _mark(state: State, setting: str, model: str, places: dict[tuple[str, str], Place], better: dict[str, bool]) -> None:
    """Say why a cell has no number, in every column of its model; one without any gets one."""
    own = [column for column in better if column.startswith(f"{model} ")] or [model]
    for column in own:
        better.setdefault(column, True)
        places.setdefault((setting, column), Place(state=STATES[state]))


def _settings_first(one: tuple[object, GroupKey, str, Record, Place]) -> tuple[str, ...]:
    how = one[3].protocol
    return (*_sheet(one[1]), _setting(how.changes, how.recipe))


def _setting(changes: Mapping[str, object], recipe: str) -> str:
    return plain(", ".join(f"{name}={value}" for name, value in changes.items()) or recipe)


def _make(title: tuple[str, ...], places: dict[tuple[str, str], Place], better: dict[str, bool]) -> Sheet:
    """Columns are compared downwards: which setting is best for a model."""
    rows = tuple(dict.fromkeys(row for row, _ in places))
    text = plain(f"{title[0]}:{title[1]} on {title[2]}")
    sheet = with_best(Sheet(text, "setting", tuple(better), tuple(better.values()), rows, places))
    return replace(sheet, notes=(f"rows without '=' are the recipe as it is named; {RULE}",))
