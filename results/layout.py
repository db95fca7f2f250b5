"""Layouts: published tables, filled with what was measured. One file each in `results/layouts`, the listing is the registry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from mae_bench.core import find
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError
from results.labels import GroupKey, RowKey, record_group, record_row
from results.names import plain
from results.published import Reference, arch_of, normal, references, task_of
from results.record import Record
from results.sheet import DAGGER, Place, Sheet
from results.significance import RULE, with_best
from results.table import Table

ROOM = "results.layouts"

DATASETS = {
    "ImageNet-1K val": ("classification", 50_000, 1000),
    "COCO val2017": ("detection", 5000, 80),
    "ADE20K val": ("segmentation", 2000, 150),
}
"""Published evaluation sets: kind of data, images, classes. Of COCO's 5000 pictures 48 have no objects."""

TOLERANCE = {"top1": 0.3, "AP_box": 0.5, "AP_mask": 0.5, "mIoU": 0.7}
"""What a repeated training may differ by, in points.

top1: four published fine-tunings of one checkpoint span 0.20 (ViT-B) and 0.19 (ViT-L; mae FINETUNE.md). The others are wider by
judgement: 5,000 and 2,000 images are fewer than 50,000.
"""


@dataclass(frozen=True)
class Published:
    """A published table: which numbers, and what stands in its rows and columns."""

    title: str
    places: tuple[str, ...]
    """`table_id` of its numbers."""
    rows: tuple[str, ...]
    """Facets whose texts make the name of a row."""
    columns: tuple[str, ...]
    """Facets whose texts make the name of a column."""
    metrics: tuple[str, ...] = ("top1", "AP_box", "AP_mask", "mIoU")
    file: str = ""
    """CSV file of the numbers; empty for all files."""
    setting_of: Callable[[Record], str] | None = None
    """The published setting of a record, where its protocol tells it; else a model is named like its row."""
    note: str = ""


def names() -> list[str]:
    """Layouts as the command line calls them."""
    return [name.replace("_", "-") for name in find.names(ROOM)]


def load(name: str) -> ModuleType:
    """A layout's file by its name on the command line."""
    if name.replace("_", "-") not in names():
        raise ConfigError(f"unknown layout {name!r}; {nearest(name, names())}")
    return find.load(ROOM, name.replace("-", "_"), what="layout")


def make_sheets(name: str, table: Table) -> list[Sheet]:
    """Fill a layout with what was measured; a published table is whole even where nothing was.

    Args:
        name: of the layout.
        table: every metric of the cells (`build_table(..., everything=True)`).

    Raises:
        ConfigError: there is no such layout.
    """
    module = load(name)
    if hasattr(module, "sheets"):
        return module.sheets(table)
    return [fill(layout, table) for layout in module.LAYOUTS]


def fill(layout: Published, table: Table) -> Sheet:
    """One published table with the measured numbers in it."""
    wanted = [one for one in references() if one.place in layout.places and one.metric in layout.metrics]
    wanted = [one for one in wanted if not layout.file or one.file == layout.file]
    known = _Known(layout, wanted)
    places: dict[tuple[str, str], Place] = {}
    better: dict[str, bool] = {}
    for one in wanted:
        facets = _facets(one)
        at = known.name(layout.rows, facets), known.name(layout.columns, facets)
        places.setdefault(at, Place(published=one))
        better.setdefault(at[1], one.higher_is_better is not False)
    more = 0
    for _, _, metric, record, place in measured(table):
        facets = known.of_record(record, metric)
        if facets is None:
            continue
        at = known.name(layout.rows, facets), known.name(layout.columns, facets)
        there = places.get(at, Place())
        place = replace(place, published=there.published, tolerance=TOLERANCE.get(metric, 0.0))
        place = replace(place, unlike=(*unlike(record, facets["dataset"]), *known.others(facets, record)))
        if there.mean is not None:
            more += 1
            if len(there.unlike) <= len(place.unlike):
                continue
        places[at] = place
        better.setdefault(at[1], record.metrics[metric].higher_is_better)
    rows, columns = (tuple(dict.fromkeys(at[side] for at in places)) for side in (0, 1))
    sheet = Sheet(layout.title, " ".join(layout.rows), columns, tuple(better[name] for name in columns), rows, places)
    sheet = with_best(sheet)
    return replace(sheet, notes=_notes(layout, sheet, wanted, more))


def unlike(record: Record, dataset: str) -> tuple[str, ...]:
    """Why a record is not a measurement under a published protocol; empty where it is one."""
    found = []
    if not record.protocol.recipe.startswith("paper"):
        found.append(f"recipe {record.protocol.recipe}")
    if record.protocol.changes:
        found.append("changed settings " + ", ".join(f"{name}={value}" for name, value in record.protocol.changes.items()))
    what = record.dataset
    if not (_is(record, dataset) if dataset in DATASETS else normal(dataset) in normal(what.name)):
        found.append(f"other data ({what.name}, {what.counts.get('val', '?')} val images)")
    if record.model.ledger.get("missing"):
        found.append("weights loaded in part")
    return tuple(plain(text) for text in found)


def _is(record: Record, dataset: str) -> bool:
    kind, images, classes = DATASETS[dataset]
    what = record.dataset
    few = 48 if kind == "detection" else 0
    return what.kind == kind and images - few <= what.counts.get("val", 0) <= images and what.classes in (classes, None)


def _size(record: Record) -> str:
    """`@448` where images of a published architecture are larger than the 224 pixels that are not said."""
    size = record.protocol.config.get("image_size")
    return f"@{size}" if record.dataset.kind == "classification" and isinstance(size, int) and size != 224 else ""


def _facets(one: Reference) -> dict[str, str]:
    return {
        "method": one.method,
        "arch": one.arch,
        "protocol": one.protocol,
        "dataset": one.dataset,
        "setting": one.setting,
        "epochs": one.pretrain_epochs,
        "metric": one.metric,
    }


class _Known:
    """The texts of a published table, by which records find their places in it."""

    def __init__(self, layout: Published, wanted: Sequence[Reference]) -> None:
        self.layout = layout
        self.tasks = {task_of(one) for one in wanted}
        self.protocols = {task_of(one): one.protocol for one in reversed(wanted)}
        self.archs = {one.arch for one in wanted if one.arch}
        self.methods = {normal(one.method): one.method for one in wanted}
        self.settings = {normal(one.setting): one.setting for one in wanted if one.setting}
        self.datasets = {task: list(dict.fromkeys(one.dataset for one in wanted if task_of(one) == task)) for task in self.tasks}
        self.metrics = {(task_of(one), one.metric) for one in wanted}

    def of_record(self, record: Record, metric: str) -> dict[str, str] | None:
        """The same of a record; None where the table has no such numbers."""
        task = record.protocol.task
        if (task, metric) not in self.metrics:
            return None
        name = plain(record.model.name)
        method = self.methods.get(normal(name)) or self.methods.get(normal(record.model.method)) or name
        setting = self.layout.setting_of(record) if self.layout.setting_of else name
        return {
            "method": method,
            "arch": arch_of(plain(record.model.arch)) + _size(record),
            "protocol": self.protocols[task],
            "dataset": self._dataset(record, task),
            "setting": self.settings.get(normal(setting), setting),
            "epochs": name,
            "metric": metric,
        }

    def others(self, facets: Mapping[str, str], record: Record) -> list[str]:
        """What of a record differs from the published one and is in neither its row nor its column."""
        shown = (*self.layout.rows, *self.layout.columns)
        found = []
        if "arch" not in shown and facets["arch"] not in self.archs:
            found.append(f"{facets['arch']} in place of {' or '.join(sorted(self.archs))}")
        if "method" not in shown and normal(record.model.method) not in self.methods:
            found.append(f"pretrained by {record.model.method}, not {' or '.join(self.methods.values())}")
        return [plain(text) for text in found]

    def _dataset(self, record: Record, task: str) -> str:
        """The published data set that a record's is, by its counts or its name; else the table's only one, or its own name."""
        known = self.datasets[task]
        by_name = [name for name in known if normal(name) in normal(record.dataset.name)]
        by_count = [name for name in known if name in DATASETS and _is(record, name)]
        return (by_count or by_name or (known if len(known) == 1 else [plain(record.dataset.name)]))[0]

    def name(self, parts: Sequence[str], facets: Mapping[str, str]) -> str:
        return " ".join(text for part in parts if (text := facets[part])) or "-"


def measured(table: Table) -> list[tuple[RowKey, GroupKey, str, Record, Place]]:
    """Row, columns, metric, a record that stands for it and the number, for each number of a table."""
    first: dict[tuple[RowKey, GroupKey], Record] = {}
    for record in table.records:
        first.setdefault((record_row(record), record_group(record)), record)
    found = []
    for (row, group, metric), entry in table.scores.items():
        record = first[row, group]
        stderr = record.metrics[metric].stderr if metric in record.metrics else None
        found.append((row, group, metric, record, Place(entry.mean, entry.std, entry.seeds, stderr)))
    return found


def state_places(table: Table) -> list[tuple[RowKey, GroupKey, Place]]:
    """The places of cells that could not be measured."""
    return [(row, group, Place(state=state)) for (row, group), state in table.states.items()]


def _notes(layout: Published, sheet: Sheet, wanted: Sequence[Reference], more: int) -> tuple[str, ...]:
    measured = [(at, place) for at, place in sheet.places.items() if place.mean is not None]
    notes = [layout.note] if layout.note else []
    notes.append(f"in brackets: published ({'; '.join(dict.fromkeys(one.source for one in wanted))})")
    if measured:
        bounds = ", ".join(f"{name} ±{value}" for name, value in TOLERANCE.items() if name in layout.metrics)
        notes.append(f"agrees: within {bounds} points of the published number, or within two standard deviations over seeds")
        notes.append(RULE)
    for (row, column), place in measured:
        if place.unlike:
            notes.append(f"{DAGGER} {row}, {column}: not the published protocol: {'; '.join(place.unlike)}")
    if more:
        fall = "number falls into a place that holds" if more == 1 else "numbers fall into places that hold"
        notes.append(f"{more} more {fall} one already; the one nearest to the protocol is shown")
    return tuple(notes)
