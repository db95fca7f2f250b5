"""Tables on a console of any width: nothing is cut, and what is piped is one line a row."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

WIDEST = 10_000
"""Columns of text that a pipe may have."""


def width_of(table: Table, console: Console) -> int:
    """Columns of text that a table takes when nothing of it is folded."""
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


def fits(table: Table, console: Console) -> bool:
    """Whether a table can be drawn whole: in a pipe always, in a window where it is wide enough."""
    return not console.is_terminal or width_of(table, console) <= console.width


def draw(table: Table, console: Console) -> None:
    """Draw a table; where there is no window, as wide as it is."""
    narrow = console.width
    if not console.is_terminal:
        console.width = max(narrow, width_of(table, console))
    console.print(table)
    console.width = narrow
