"""Models by tasks: everything measured, with the number published for the same method, architecture and task beside it."""

from dataclasses import replace

from results.layout import TOLERANCE, measured, state_places, unlike
from results.names import plain
from results.published import Reference, arch_of, normal, references, task_of
from results.record import Record
from results.sheet import DAGGER, Place, Sheet
from results.significance import RULE, with_best
from results.table import Table

FIRST = ("mae_table3", "mae_table4", "mae_table5", "linear_probe", "knn")
"""Files that a published number is taken from first; the same number is in several."""


def sheets(table: Table) -> list[Sheet]:
    """One sheet: rows are models, columns metrics of one protocol on one data set."""
    rows = dict(zip(table.rows, table.row_labels, strict=True))
    heads = {(group.key, metric): f"{group.label} {metric}".strip() for group in table.groups for metric in group.metrics}
    places: dict[tuple[str, str], Place] = {}
    better = dict.fromkeys(heads.values(), True)
    for row, group, metric, record, place in measured(table):
        if (group, metric) not in heads:
            continue
        better[heads[group, metric]] = record.metrics[metric].higher_is_better
        known = _published(record, metric)
        reasons = unlike(record, known.dataset) if known is not None else ()
        filled = replace(place, published=known, unlike=reasons, tolerance=TOLERANCE.get(metric, 0.0))
        places[rows[row], heads[group, metric]] = filled
    for row, group, place in state_places(table):
        for (key, _), head in heads.items():
            if key == group:
                places.setdefault((rows[row], head), place)
    columns = tuple(dict.fromkeys(heads.values()))
    title = "Models by tasks"
    sheet = with_best(Sheet(title, "model", columns, tuple(better[name] for name in columns), tuple(rows.values()), places))
    daggers = [
        f"{DAGGER} {row}, {column}: not the published protocol: {'; '.join(place.unlike)}"
        for (row, column), place in sheet.places.items()
        if place.unlike
    ]
    return [replace(sheet, notes=(*(f"{group.label}: {group.note}" for group in table.groups), RULE, *daggers))]


def _published(record: Record, metric: str) -> Reference | None:
    """The number published for the same method, architecture and task."""
    methods = {normal(plain(record.model.name)), normal(record.model.method)}
    fitting = [
        one
        for one in references()
        if one.metric == metric
        and task_of(one) == record.protocol.task
        and normal(one.method) in methods
        and one.arch == arch_of(record.model.arch)
        and not one.setting
    ]
    order = {name: number for number, name in enumerate(FIRST)}
    places = [(next((order[name] for name in FIRST if one.file.startswith(name)), len(FIRST)), one) for one in fitting]
    return min(places, key=lambda pair: pair[0])[1] if places else None
