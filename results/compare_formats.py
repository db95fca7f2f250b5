"""Comparisons of two models as text."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError
from mae_bench.core.plural import counted
from results.compare import Comparison
from results.drawing import draw, fits
from results.formats import escape_markdown, inert
from results.names import plain

FORMATS = ("rich", "md", "csv", "json")


def render(found: Sequence[Comparison], first: str, second: str, form: str, console: Console) -> str | None:
    """Comparisons in one format; None where they were drawn on the console.

    Raises:
        ConfigError: there is no such format.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format {form!r}; {nearest(form, list(FORMATS))}")
    head = (
        "protocol",
        "metric",
        first,
        second,
        f"{second} - {first}",
        "95 % interval",
        "p",
        "p (Holm)",
        "better",
        "test",
        "seeds",
    )
    if form == "rich":
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for number, name in enumerate(head):
            drawn.add_column(Text(plain(name)), overflow="fold", no_wrap=2 <= number < 8, min_width=12 if number == 0 else None)
        for one in found:
            drawn.add_row(*(Text(plain(text)) for text in _texts(one)))
        if fits(drawn, console):
            draw(drawn, console)
        else:
            for one in found:
                console.print(Text(plain(_sentence(one, first, second))), soft_wrap=True)
        return None
    if form == "md":
        lines = [tuple(map(escape_markdown, head)), (":--",) * len(head)]
        lines += [tuple(map(escape_markdown, _texts(one))) for one in found]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)
    data = [asdict(one) for one in found]
    if form == "json":
        return json.dumps({"first": first, "second": second, "comparisons": data}, indent=2) + "\n"
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(data[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: inert(value) for name, value in line.items()} for line in data)
    return file.getvalue()


def _sentence(one: Comparison, first: str, second: str) -> str:
    """A comparison for a window that is too narrow for the table."""
    protocol, metric, left, right, difference, reach, p, corrected, better, test, seeds = _texts(one)
    verdict = f"{better} is better" if one.better else "neither is better for sure"
    return (
        f"{protocol} {metric}: {first} {left}, {second} {right}, difference {difference} (95 % interval {reach}); p {p}, "
        f"corrected {corrected}: {verdict} ({test}, {counted(int(seeds), 'seed')})"
    )


def _texts(one: Comparison) -> tuple[str, ...]:
    reach = "-" if one.low is None or one.high is None else f"{one.low:+.2f} to {one.high:+.2f}"
    ps = ("-" if p is None else f"{p:.2g}" for p in (one.p, one.p_holm))
    numbers = (f"{one.first:.2f}", f"{one.second:.2f}", f"{one.difference:+.2f}", reach, *ps)
    return one.protocol, one.metric, *numbers, one.better or "-", one.test, str(one.seeds)
