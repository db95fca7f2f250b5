"""The plots of the report as plotly figures in plain data; texts in them are shown as they are."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mae_bench.core import metrics
from results.formats import columns, heading
from results.labels import GroupKey, RowKey
from results.names import plain
from results.store import Pretraining
from results.table import Table, group_key, row_key

MOST_POINTS = 300
"""Points of one curve; longer ones are averaged down to this."""
LONGEST_NAME = 40
PROBED = {"log/knn_top1": "kNN", "log/linear_top1": "linear probe"}
"""What `probe_every` logs during a pretraining, in percent; see `mae_bench.probe`."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Told apart by colour-blind people too (Okabe and Ito, 2008, with two more)."""

Figure = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """One figure with the text above it."""

    title: str
    figure: Figure


def score_plots(table: Table) -> list[Plot]:
    """A bar chart of each column, with the spread over seeds."""
    plots = []
    for group, metric, unit in columns(table):
        found = [
            (label, entry, colour(number))
            for number, (row, label) in enumerate(zip(table.rows, table.row_labels, strict=True))
            if (entry := table.scores.get((row, group.key, metric))) is not None
        ]
        if not found:
            continue
        spreads = [entry.std or 0.0 for _, entry, _ in found]
        bars = {
            "type": "bar",
            "x": [entry.mean for _, entry, _ in found],
            "y": [shown(label) for label, _, _ in found],
            "orientation": "h",
            "marker": {"color": [paint for _, _, paint in found]},
            "error_x": {"type": "data", "array": spreads, "visible": any(spreads)},
            "text": [entry.text() for _, entry, _ in found],
            "textposition": "auto",
            "textangle": 0,
            "hoverinfo": "skip",
        }
        axes = {
            "xaxis": {"title": {"text": shown(unit)}, "rangemode": "tozero"},
            "yaxis": {"autorange": "reversed", "automargin": True},
        }
        plots.append(Plot(heading(group, metric, unit, " "), make_figure([bars], axes, height=90 + 34 * len(found))))
    return plots


def curve_plots(table: Table) -> list[Plot]:
    """The loss of every training, one plot for each protocol and data set."""
    lines: dict[GroupKey, list[tuple[RowKey, str, list[float]]]] = {}
    for cell in table.cells:
        row, group = row_key(cell), group_key(cell)
        losses = metrics.read(cell.folder, "loss")
        if row is not None and group is not None and losses:
            lines.setdefault(group, []).append((row, cell.folder.name, losses))
    names = dict(zip(table.rows, table.row_labels, strict=True))
    plots = []
    for group in table.groups:
        found = lines.get(group.key, [])
        many = len({seed for _, seed, _ in found}) > 1
        traces = [
            _curve(f"{names[row]} {seed}" if many else names[row], losses, colour(table.rows.index(row)))
            for row, seed, losses in sorted(found, key=lambda line: (table.rows.index(line[0]), line[1]))
        ]
        if traces:
            plots.append(Plot(group.label, _losses(traces)))
    return plots


def pretraining_plots(found: Sequence[Pretraining], table: Table) -> list[Plot]:
    """The loss of each pretraining in a plot of its own, since unlike losses have no common scale; coloured as its model."""
    plots = []
    for number, one in enumerate(found):
        losses, name = metrics.read(one.folder, "loss"), plain(one.name)
        place = table.row_labels.index(name) if name in table.row_labels else number
        if losses:
            plots.append(Plot(name, _losses([_curve(name, losses, colour(place))])))
    return plots


def probe_plots(found: Sequence[Pretraining]) -> list[Plot]:
    """What the online probe of each pretraining measured on its way."""
    plots = []
    for one in found:
        lines = [line for line in metrics.lines(one.folder) if any(name in line for name in PROBED)]
        traces = [
            _points(title, [(int(line["step"]) + 1, line[name]) for line in lines if name in line], colour(number))
            for number, (name, title) in enumerate(PROBED.items())
            if any(name in line for line in lines)
        ]
        if traces:
            axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "top-1 in %"}, "automargin": True}}
            plots.append(Plot(plain(one.name), make_figure(traces, axes)))
    return plots


def colour(number: int) -> str:
    """The colour of a model in every plot."""
    return COLOURS[number % len(COLOURS)]


def shown(text: str) -> str:
    """A text as plotly shows it literally: it would take tags for formatting, and long names for room."""
    line = plain(text)
    return html.escape(line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…", quote=False)


def thinned(values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Step numbers and values, averaged over equal spans when there are many."""
    span = -(-len(values) // MOST_POINTS)
    starts = range(0, len(values), span)
    parts = [values[start : start + span] for start in starts]
    return [start + len(part) for start, part in zip(starts, parts, strict=True)], [sum(part) / len(part) for part in parts]


def _curve(name: str, losses: Sequence[float], paint: str) -> Figure:
    steps, values = thinned(losses)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": steps,
        "y": [float(f"{value:.5g}") if math.isfinite(value) else None for value in values],
        "name": shown(name),
        "line": {"color": paint, "width": 1.5},
    }


def _points(name: str, points: Sequence[tuple[int, float]], paint: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [step for step, _ in points],
        "y": [round(value, 3) if math.isfinite(value) else None for _, value in points],
        "name": name,
        "line": {"color": paint, "width": 1.5},
    }


def _losses(traces: Sequence[Figure]) -> Figure:
    return make_figure(traces, {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "loss"}, "automargin": True}})


def make_figure(traces: Sequence[Figure], layout: Mapping[str, Any], height: int = 300) -> Figure:
    """A figure of traces, with what all figures have in common."""
    common = {
        "height": height,
        "margin": {"l": 50, "r": 12, "t": 10, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "y": -0.28},
    }
    return {"data": list(traces), "layout": {**common, **layout}}
