"""Published numbers as text."""

import csv
import io
import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError
from mae_bench.core.plural import counted
from results.drawing import draw
from results.formats import escape_markdown, inert
from results.published import Reference, lines

FORMATS = ("rich", "md", "csv", "json")
_HEAD = ("method", "arch", "protocol", "dataset", "setting", "metric", "value", "source")


def render(found: Sequence[Reference], name: str, console: Console) -> str | None:
    """Published numbers in one format; None where they were drawn on the console.

    Raises:
        ConfigError: there is no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; {nearest(name, list(FORMATS))}")
    if name == "rich":
        _draw(found, console)
        return None
    if name == "json":
        return json.dumps(lines(found), indent=2) + "\n"
    return _csv(found) if name == "csv" else _markdown(found)


def _source(one: Reference) -> str:
    return f"{one.source}, {one.place}{'' if one.verified else ' (not read in the source itself)'}"


def _row(one: Reference) -> tuple[str, ...]:
    return one.method, one.arch, one.protocol or one.task, one.dataset, one.setting, one.metric, one.text, _source(one)


def _draw(found: Sequence[Reference], console: Console) -> None:
    """A table for each protocol and data set, its sources numbered below, so that it fits into 80 columns."""
    sources = list(dict.fromkeys(_source(one) for one in found))
    groups: dict[str, list[Reference]] = {}
    for one in found:
        groups.setdefault(", ".join(filter(None, (one.protocol or one.task, one.dataset))), []).append(one)
    for title, members in groups.items():
        console.print(Text(title, "bold"), soft_wrap=True)
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name in ("method", "arch", "setting"):
            drawn.add_column(name, overflow="fold", min_width=8 if name == "arch" else 14 if name == "method" else None)
        for name in ("metric", "value", "source"):
            drawn.add_column(name, no_wrap=True, justify="left" if name == "metric" else "right")
        for one in members:
            place = f"[{sources.index(_source(one)) + 1}]"
            drawn.add_row(*(Text(text) for text in (one.method, one.arch, one.setting, one.metric, one.text, place)))
        draw(drawn, console)
        console.print()
    for number, source in enumerate(sources, 1):
        console.print(Text(f"[{number}] {source}"), soft_wrap=True)
    console.print(Text(counted(len(found), "published number")), soft_wrap=True)


def _markdown(found: Sequence[Reference]) -> str:
    rows = [_HEAD, tuple(":--" for _ in _HEAD), *(tuple(escape_markdown(text) for text in _row(one)) for one in found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _csv(found: Sequence[Reference]) -> str:
    file = io.StringIO()
    data = lines(found)
    writer = csv.DictWriter(file, fieldnames=list(data[0]), lineterminator="\n")
    writer.writeheader()
    for line in data:
        writer.writerow({name: inert(value) if isinstance(value, str) else value for name, value in line.items()})
    return file.getvalue()
