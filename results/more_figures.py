"""Plots of scores against something: the time they took, the published curves they belong to."""

import re

from results.figures import Figure, Plot, colour, make_figure, shown
from results.formats import columns, heading
from results.layout import make_sheets
from results.sheet import Sheet
from results.table import Table

CURVES = {"fig5": "mask ratio in percent", "fig7": "epochs of pretraining", "fig9": "fine-tuned blocks"}
"""Layouts whose rows are numbers, with what they count."""
FEWEST = 2
"""Models that a plot of scores by time needs to say something."""


def cost_plots(table: Table) -> list[Plot]:
    """Score by time, one plot for each column: the cells of a model, and its pretraining where that is known.

    Every cell pays for all features it used, whichever cell computed them, so that the order of running moves no point.
    """
    plots = []
    for group, metric, unit in columns(table):
        points = [
            (label, table.alone(row, group.key) / entry.seeds + table.pretraining.get(row[1], 0.0), entry, number)
            for number, (row, label) in enumerate(zip(table.rows, table.row_labels, strict=True))
            if (entry := table.scores.get((row, group.key, metric))) is not None
        ]
        if len(points) < FEWEST:
            continue
        traces: list[Figure] = [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(max(seconds, 1e-3), 3)],
                "y": [entry.mean],
                "name": shown(label),
                "marker": {"color": colour(number), "size": 10},
                "error_y": {"type": "data", "array": [entry.std or 0.0], "visible": bool(entry.std)},
                "hovertemplate": "%{y:.2f} after %{x:.0f} s",
            }
            for label, seconds, entry, number in points
        ]
        axes = {
            "xaxis": {"title": {"text": "seconds a seed, with shared features and known pretraining"}, "type": "log"},
            "yaxis": {"title": {"text": shown(unit)}, "automargin": True},
        }
        plots.append(Plot(heading(group, metric, unit, " "), make_figure(traces, axes)))
    return plots


def published_plots(table: Table) -> list[Plot]:
    """The published curves that something was measured of, with what was measured."""
    plots = []
    for name, what in CURVES.items():
        for sheet in make_sheets(name, table):
            if any(place.mean is not None and _number(row) is not None for (row, _), place in sheet.places.items()):
                plots.append(Plot(sheet.title, _curves(sheet, what)))
    return plots


def _curves(sheet: Sheet, what: str) -> Figure:
    traces: list[Figure] = []
    for number, column in enumerate(sheet.columns):
        rows = sorted((at, row) for row in sheet.rows if (at := _number(row)) is not None)
        found = [(at, sheet.place(row, column)) for at, row in rows]
        published = [(at, place.published.value) for at, place in found if place.published is not None]
        measured = [(at, place) for at, place in found if place.mean is not None]
        if published:
            traces.append(_trace(f"{column}, published", published, number, dashed=True))
        if measured:
            points = [(at, place.mean or 0.0) for at, place in measured]
            spread = [place.std or 0.0 for _, place in measured]
            bars = {"error_y": {"type": "data", "array": spread, "visible": any(spread)}}
            traces.append({**_trace(f"{column}, measured", points, number, dashed=False), **bars})
    return make_figure(
        traces, {"xaxis": {"title": {"text": what}}, "yaxis": {"title": {"text": "%"}, "automargin": True}}, height=380
    )


def _trace(name: str, points: list[tuple[float, float]], number: int, *, dashed: bool) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [at for at, _ in points],
        "y": [value for _, value in points],
        "name": shown(name),
        "line": {"color": colour(number), "width": 1.5, "dash": "dot" if dashed else "solid"},
        "marker": {"symbol": "circle-open" if dashed else "circle"},
    }


def _number(row: str) -> float | None:
    """The number that a row such as `mask_ratio=75` is about."""
    found = re.fullmatch(r"(?:\w+=)?(\d+(?:\.\d+)?)(?: .*)?", row)
    return float(found[1]) if found is not None else None
