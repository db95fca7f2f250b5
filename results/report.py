"""The HTML report of output folders: one file that loads nothing from anywhere."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from mae_bench.core.errors import InputError
from mae_bench.core.files import write_text
from mae_bench.core.find import missing
from results.figures import Plot, curve_plots, pretraining_plots, probe_plots, score_plots
from results.formats import clock, columns, cost_heads, cost_notes, cost_row, heading, notes
from results.labels import GroupKey, RowKey, record_group, record_row
from results.more_figures import cost_plots, published_plots
from results.names import plain
from results.record import Machine, Record, now
from results.store import Pretraining, StoredCell, pretrainings
from results.table import Group, Table, build_table

PICTURES = ("predictions.png", "reconstructions.png")
MOST_PICTURES = 40
MOST_CLASSES = 5000
"""Rows of numbers by class that a page shows; those of further cells are in their records."""
LARGEST_PICTURE = 3_000_000
"""Bytes of a picture that is embedded; larger ones are named."""
LOG_LINES = 25


@dataclass(frozen=True)
class Picture:
    """A picture of a run."""

    title: str
    uri: str
    """`data:` URI; empty for one that is too large."""
    path: str


@dataclass(frozen=True)
class Failed:
    """A cell without a number."""

    title: str
    message: str
    log: str


@dataclass(frozen=True)
class Measured:
    """One cell in the list below its protocol."""

    record: Record
    machine: int
    """Number in the list of machines."""
    seconds: str


@dataclass(frozen=True)
class Section:
    """A protocol with its cells."""

    group: Group
    settings: str
    cells: tuple[Measured, ...]


def write_report(outs: Sequence[Path], path: Path, warn: Callable[[str], None]) -> Path:
    """Write the report of output folders.

    Raises:
        EnvironmentFault: jinja2 or plotly is missing, or the file cannot be written.
        InputError: there is no such output folder, or neither a cell nor a finished pretraining in any.
    """
    table, title = build_table(outs, warn), " ".join(str(out) for out in outs)
    found = [one for out in outs for one in pretrainings(out)]
    if not table.cells and not found:
        raise InputError(f"{title} holds no cells of a run and no finished pretraining; give the folder that was the -o of one")
    write_text(path, render(table, found, title=title))
    return path


def render(table: Table, pretrained: Sequence[Pretraining], *, title: str) -> str:
    """The whole page."""
    try:
        from jinja2 import Environment, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise missing(error, "the report") from error
    room = files("results") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    plots = {
        "scores": score_plots(table),
        "costs": cost_plots(table),
        "published": published_plots(table),
        "pretrainings": pretraining_plots(pretrained, table),
        "probes": probe_plots(pretrained),
        "curves": curve_plots(table),
    }
    scripts = (get_plotlyjs(), (room / "report.js").read_text(encoding="utf-8"))
    machines = {text: number + 1 for number, text in enumerate(dict.fromkeys(_machine(one.machine) for one in table.records))}
    cells = _by_group(table)
    return environment.from_string((room / "report.html.jinja").read_text(encoding="utf-8")).render(
        title=plain(title),
        date=now(),
        policy=_policy(scripts),
        style=_Raw((room / "report.css").read_text(encoding="utf-8")),
        scripts=[_Raw(script) for script in scripts],
        figures=_Raw(_json([plot.figure for kind in plots.values() for plot in kind])),
        plots=_numbered(plots),
        table=table,
        columns=columns(table),
        heading=heading,
        notes=notes(table),
        cost_heads=cost_heads,
        cost_notes=cost_notes(table),
        mean=lambda row, group, metric: entry.mean if (entry := table.scores.get((row, group, metric))) is not None else "",
        costs=lambda row: _costs(table, row),
        failed=[_failed(cell) for cell in table.cells if cell.state in ("failed", "diverged")],
        pictures=_pictures(table, pretrained),
        sections=[_section(group, cells.get(group.key, []), machines) for group in table.groups],
        machines=list(machines),
        by_class=_by_class(table.records),
    )


class _Raw(str):
    """A text of the suite's own, which goes into the page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is loaded, and only the page's own scripts run, whatever a name may smuggle in."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    rest = "base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; {rest}"


def _json(data: Any) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _numbered(plots: dict[str, list[Plot]]) -> dict[str, list[tuple[int, Plot]]]:
    """Plots with their place in the list of all figures."""
    found, first = {}, 0
    for name, kind in plots.items():
        found[name] = list(enumerate(kind, first))
        first += len(kind)
    return found


def _pictures(table: Table, pretrained: Sequence[Pretraining]) -> list[Picture]:
    places = [(f"pretraining {one.name}", one.folder) for one in pretrained]
    places += [(cell.title, cell.folder) for cell in table.cells]
    found = [(title, folder / name) for title, folder in places for name in PICTURES if (folder / name).is_file()]
    return [_picture(title, path, embed=number < MOST_PICTURES) for number, (title, path) in enumerate(found)]


def _picture(title: str, path: Path, *, embed: bool) -> Picture:
    if not embed or path.stat().st_size > LARGEST_PICTURE:
        return Picture(plain(title), "", plain(str(path)))
    return Picture(plain(title), f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", plain(str(path)))


def _failed(cell: StoredCell) -> Failed:
    try:
        lines = (cell.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        lines = []
    return Failed(plain(cell.title), plain(cell.message), "\n".join(plain(line) for line in lines))


def _by_group(table: Table) -> dict[GroupKey, list[Record]]:
    """The records of each protocol, in the order of the table's rows."""
    places = {row: number for number, row in enumerate(table.rows)}
    found: dict[GroupKey, list[Record]] = {}
    for record in sorted(table.records, key=lambda one: (places.get(record_row(one), 0), one.seed)):
        found.setdefault(record_group(record), []).append(record)
    return found


def _section(group: Group, own: Sequence[Record], machines: Mapping[str, int]) -> Section:
    settings = yaml.safe_dump(own[0].protocol.config, sort_keys=False) if own else ""
    cells = [Measured(record, machines[_machine(record.machine)], clock(record.cost.seconds)) for record in own]
    return Section(group, settings, tuple(cells))


def _by_class(records: Sequence[Record]) -> frozenset[str]:
    """Keys of the records whose numbers of single classes the page shows: of all, unless there are too many."""
    shown, rows = set(), 0
    for record in records:
        rows += len(record.classes)
        if record.classes and rows <= MOST_CLASSES:
            shown.add(record.key)
    return frozenset(shown)


def _costs(table: Table, row: RowKey) -> list[tuple[str, float | str]]:
    """Texts of the cost table with their seconds, by which they are sorted."""
    before = [table.pretraining.get(row[1])] if table.pretraining else []
    seconds = [*before, *(table.seconds.get((row, group.key)) for group in table.groups), table.total(row)]
    return [(text, "" if spent is None else spent) for text, spent in zip(cost_row(table, row), seconds, strict=True)]


def _machine(machine: Machine) -> str:
    """A machine on a few lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return plain(
        f"{machine.device}, {machine.precision}, {machine.threads} threads of {machine.cores} cores ({machine.cpu}); "
        f"{machine.platform}; Python {machine.python}; code {machine.git or 'installed copy'}; {versions}"
    )
