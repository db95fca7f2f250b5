"""Tables and sheets in the format asked for."""

from collections.abc import Callable, Sequence

from rich.console import Console

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError, InputError
from results import sheet_formats
from results.formats import show_table, to_csv, to_json, to_markdown
from results.layout import load, make_sheets
from results.sheet import Sheet
from results.table import Table

FORMATS = ("rich", "md", "latex", "csv", "html", "json")
PLAIN = "matrix"
"""The layout that stands for the plain table in formats that only sheets have."""


def render(table: Table, name: str, console: Console) -> str | None:
    """A table in one format; None where it was drawn on the console.

    Raises:
        ConfigError: there is no such format.
    """
    texts: dict[str, Callable[[Table], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}
    check_format(name)
    if name == "rich":
        show_table(table, console)
        return None
    return texts[name](table) if name in texts else render_sheets(make_sheets(PLAIN, table), name, console)


def asked_sheets(name: str, table: Table) -> list[Sheet]:
    """The sheets of a layout that a person asks for, of which there is at least one.

    Raises:
        ConfigError: there is no such layout.
        InputError: it shows measured numbers alone, and the cells have none that it shows.
    """
    sheets = make_sheets(name, table)
    if not sheets or (not table.cells and hasattr(load(name), "sheets")):
        what = "the cells have none that it shows" if table.cells else "give the output folder of a run"
        raise InputError(f"--layout {name} shows measured numbers alone: {what}")
    return sheets


def render_sheets(sheets: Sequence[Sheet], name: str, console: Console) -> str | None:
    """Sheets in one format; None where they were drawn on the console.

    Raises:
        ConfigError: there is no such format.
    """
    texts: dict[str, Callable[[Sequence[Sheet]], str]] = {
        "md": sheet_formats.markdown,
        "latex": sheet_formats.latex,
        "csv": sheet_formats.csv_text,
        "html": sheet_formats.html_page,
        "json": sheet_formats.json_text,
    }
    check_format(name)
    if name == "rich":
        sheet_formats.draw(sheets, console)
        return None
    return texts[name](sheets)


def check_format(name: str) -> None:
    """Refuse an unknown format."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; {nearest(name, list(FORMATS))}")
