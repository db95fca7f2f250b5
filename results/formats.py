"""A table as text: for a terminal, for Markdown, and as data. Names are shown as they are and never taken for markup."""

import csv
import io
import json
import re

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from results.labels import RowKey
from results.names import plain
from results.table import Group, Table

COST = "Cost (m:ss or h:mm:ss, over all seeds)"
SHARED = (
    "features that several cells use are counted in the cell that computed them; a score by time counts them in every cell that "
    "used them (shared_seconds of its record)"
)
COMPARABLE = "A column holds numbers of one protocol only; the settings of each are in its cells' record.json."


def clock(seconds: float) -> str:
    """A time as `m:ss`, or `h:mm:ss` from an hour on."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_table(table: Table, console: Console) -> None:
    """Draw scores and cost on a terminal."""
    if not table.rows:
        console.print(Text("no cells yet"))
        return
    scores = _rich("scores", table)
    for group, metric, unit in columns(table):
        scores.add_column(_stacked(heading(group, metric, unit, "\n")), justify="right", overflow="fold")
    for row, label in zip(table.rows, table.row_labels, strict=True):
        scores.add_row(Text(label), *(Text(table.score(row, group.key, metric)) for group, metric, _ in columns(table)))
    console.print(scores)
    console.print(_rich_cost(table))
    for line in (*cost_notes(table), *notes(table)):
        console.print(Text(line, style="dim"), soft_wrap=True)


def to_markdown(table: Table) -> str:
    """Scores, notes and cost as GitHub tables."""
    return f"{scores_markdown(table)}\n{cost_markdown(table)}"


def scores_markdown(table: Table) -> str:
    """The scores and what their columns stand for: a function of the numbers alone."""
    if not table.rows:
        return "# Scores\n\nno cells yet\n"
    head = ["model", *(heading(group, metric, unit, " ") for group, metric, unit in columns(table))]
    body = [
        [label, *(table.score(row, group.key, metric) for group, metric, _ in columns(table))]
        for row, label in zip(table.rows, table.row_labels, strict=True)
    ]
    lines = "".join(f"- {escape_markdown(line)}\n" for line in notes(table))
    return f"# Scores\n\n{_markdown(head, body)}\n{lines}"


def cost_markdown(table: Table) -> str:
    """The time each model's cells took."""
    if not table.rows:
        return ""
    head = ["model", *cost_heads(table)]
    body = [[label, *cost_row(table, row)] for row, label in zip(table.rows, table.row_labels, strict=True)]
    lines = "".join(f"\n- {line}\n" for line in cost_notes(table))
    return f"# {COST}\n\n{_markdown(head, body)}{lines}"


def to_csv(table: Table) -> str:
    """One line for each number, with what it was measured under."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(_FIELDS), lineterminator="\n")
    writer.writeheader()
    for line in flat(table):
        writer.writerow({name: inert(value) for name, value in line.items()})
    return file.getvalue()


def to_json(table: Table) -> str:
    """The same as data, with the notes."""
    return json.dumps({"scores": flat(table), "notes": list(notes(table))}, indent=2) + "\n"


def flat(table: Table) -> list[dict[str, str | int | float | None]]:
    """One dict for each number."""
    lines = []
    for row, label in zip(table.rows, table.row_labels, strict=True):
        for group, metric, unit in columns(table):
            entry = table.scores.get((row, group.key, metric))
            if entry is None:
                continue
            task, recipe, digest, version, dataset, fingerprint = group.key
            numbers = (metric, unit, entry.mean, entry.std, entry.seeds, round(table.seconds[row, group.key], 3))
            values = (label, row[1], task, recipe, digest, version, dataset, fingerprint, *numbers)
            lines.append(dict(zip(_FIELDS, values, strict=True)))
    return lines


_FIELDS: tuple[str, ...] = (
    "model",
    "sha256",
    "task",
    "recipe",
    "config_digest",
    "protocol_version",
    "dataset",
    "fingerprint",
    "metric",
    "unit",
    "mean",
    "std",
    "seeds",
    "seconds",
)


def columns(table: Table) -> list[tuple[Group, str, str]]:
    """Group, metric and unit of every column."""
    return [(group, metric, unit) for group in table.groups for metric, unit in zip(group.metrics, group.units, strict=True)]


def cost_heads(table: Table) -> list[str]:
    """Columns of the cost table."""
    return [*(["pretrain"] if table.pretraining else []), *(group.label for group in table.groups), "total"]


def cost_row(table: Table, row: RowKey) -> list[str]:
    """Times of one model in these columns."""
    before = [table.pretraining.get(row[1])] if table.pretraining else []
    times = [*before, *(table.seconds.get((row, group.key)) for group in table.groups)]
    return [*("-" if spent is None else clock(spent) for spent in times), clock(table.total(row))]


def cost_notes(table: Table) -> tuple[str, ...]:
    """What a reader of the cost table has to know."""
    return (SHARED,) if any(table.shared.values()) else ()


def heading(group: Group, metric: str, unit: str, gap: str) -> str:
    """The text above a column; percent is not said, since headline metrics are all in it."""
    return gap.join(word for word in (group.label, plain(metric), plain(unit) if unit not in ("%", "") else "") if word)


def notes(table: Table) -> tuple[str, ...]:
    """What the columns stand for, and what a reader has to know beside."""
    return (*(f"{group.label}: {group.note}" for group in table.groups), *table.notes, COMPARABLE)


def escape_markdown(text: str) -> str:
    """A text that Markdown shows as it is, on one line and in one table cell."""
    inert = re.sub(r"([\\`*_{}\[\]<>|#~$!])", r"\\\1", plain(text))
    return inert.replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


def _markdown(head: list[str], body: list[list[str]]) -> str:
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *body]
    texts = [[cell if number == 1 else escape_markdown(cell) for cell in line] for number, line in enumerate(lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)


def _rich_cost(table: Table) -> RichTable:
    cost = _rich(COST[0].lower() + COST[1:], table)
    for label in cost_heads(table):
        cost.add_column(_stacked(label), justify="right", overflow="fold")
    for row, label in zip(table.rows, table.row_labels, strict=True):
        cost.add_row(Text(label), *(Text(time) for time in cost_row(table, row)))
    return cost


def _rich(title: str, table: Table) -> RichTable:
    """An empty table whose first column keeps names whole as long as they are not long."""
    drawn = RichTable(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True
    )
    drawn.add_column(Text("model"), overflow="fold", min_width=min(20, max(map(len, table.row_labels))))
    return drawn


def _stacked(label: str) -> Text:
    """A heading that is narrow: task and recipe on a line each."""
    return Text(label.replace(":", ":\n", 1))


def inert(value: str | int | float | None) -> str | int | float | None:
    """A text that no spreadsheet takes for a formula."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
