"""Published numbers: the CSV files of `results/reference`, each row with its source and its place there."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError

COLUMNS = (
    "table_id",
    "method",
    "pretrain_data",
    "pretrain_epochs",
    "arch",
    "task",
    "dataset",
    "protocol",
    "setting",
    "metric",
    "value",
    "unit",
    "higher_is_better",
    "source",
    "verified",
    "notes",
)


@dataclass(frozen=True)
class Reference:
    """One published number; a text is empty where the source does not say."""

    place: str
    """Table, figure or file of the source (`table_id`)."""
    method: str
    pretrain_data: str
    pretrain_epochs: str
    arch: str
    task: str
    dataset: str
    protocol: str
    setting: str
    metric: str
    value: float
    text: str
    """The value as it is printed."""
    unit: str
    higher_is_better: bool | None
    source: str
    verified: bool
    """Whether the number was read in the source itself."""
    notes: str
    file: str
    """CSV file it is kept in, without its ending."""


@cache
def references() -> tuple[Reference, ...]:
    """Every published number, by file and line."""
    room = files("results") / "reference"
    names = sorted(path.name for path in room.iterdir() if path.name.endswith(".csv"))
    found = []
    for name in names:
        with (room / name).open(encoding="utf-8", newline="") as file:  # type: ignore[call-overload]
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ConfigError(f"results/reference/{name}: the columns are not those of results/reference/README.md")
            found += [_reference(row, name.removesuffix(".csv")) for row in reader]
    return tuple(found)


def task_of(reference: Reference) -> str:
    """The task of the suite that measures the same kind of number, or an empty text."""
    words, task = reference.protocol.lower(), reference.task
    if task in ("detection", "instance segmentation", "detection and instance segmentation"):
        return "detection"
    if task == "semantic segmentation":
        return "segmentation"
    if task == "robustness":
        return "robustness"
    if task != "classification":
        return ""
    parts = {"k-nn": "knn", "logistic": "logistic", "linear": "linear", "partial": "partial", "fine-tune": "finetune"}
    return next((name for part, name in parts.items() if part in words), "")


def normal(text: str) -> str:
    """A name as it is compared: without case, spaces and signs."""
    return re.sub(r"[^a-z0-9.]", "", text.lower())


def has_words(text: str, asked: str) -> bool:
    """Whether whole words of a text that follow each other are what was asked for, as `k-NN` is `knn`."""
    words = re.findall(r"[a-z0-9.]+", text.lower())
    pieces = ("".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1))
    return normal(asked) in pieces


def arch_of(name: str) -> str:
    """The published spelling of an architecture of the suite: `ViT-B/16` for `vit_base_patch16`, `ViT-B` for `vit_base`."""
    sizes = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H", "giant": "g"}
    found = re.fullmatch(r"vit_([a-z]+)(?:_patch(\d+)(?:_.*)?)?", name)
    if found is None or found[1] not in sizes:
        return name
    return f"ViT-{sizes[found[1]]}" + (f"/{found[2]}" if found[2] else "")


def select(
    found: Iterable[Reference], *, task: str = "", arch: str = "", method: str = "", metric: str = "", dataset: str = ""
) -> list[Reference]:
    """The published numbers that fit; texts are compared without case and signs, and whole words of one are enough.

    Args:
        found: to choose from.
        task: a task of the suite, or words of the published task or protocol.
        arch: in either spelling.
        method: words of its name.
        metric: its name.
        dataset: words of its name.

    Raises:
        ConfigError: nothing fits, with the nearest that would.
    """
    chosen = list(found)
    tests = {
        "task": (task, lambda one: (task_of(one), one.task, one.protocol)),
        "arch": (arch_of(arch), lambda one: (one.arch,)),
        "method": (method, lambda one: (one.method,)),
        "metric": (metric, lambda one: (one.metric,)),
        "dataset": (dataset, lambda one: (one.dataset,)),
    }
    for name, (asked, texts) in tests.items():
        if not asked:
            continue
        exact = [one for one in chosen if normal(asked) in [normal(text) for text in texts(one)]]
        fitting = exact or [one for one in chosen if any(has_words(text, asked) for text in texts(one))]
        if not fitting:  # a part of a word is near, and not what was asked for
            known = sorted({text for one in chosen for text in texts(one)[:2] if text})
            raise ConfigError(f"no published number with --{name} {asked!r}; {nearest(asked, known)[:500]}")
        chosen = fitting
    return chosen


def lines(found: Sequence[Reference]) -> list[dict[str, str | float | bool | None]]:
    """One plain dict for each number, for data formats."""
    return [
        {
            "method": one.method,
            "arch": one.arch,
            "task": one.task,
            "protocol": one.protocol,
            "dataset": one.dataset,
            "setting": one.setting,
            "pretrain_data": one.pretrain_data,
            "pretrain_epochs": one.pretrain_epochs,
            "metric": one.metric,
            "value": one.value,
            "unit": one.unit,
            "higher_is_better": one.higher_is_better,
            "source": one.source,
            "place": one.place,
            "verified": one.verified,
            "notes": one.notes,
        }
        for one in found
    ]


def _reference(row: dict[str, str], file: str) -> Reference:
    texts = {name: row[name] for name in COLUMNS if name not in ("table_id", "value", "higher_is_better", "verified")}
    return Reference(
        place=row["table_id"],
        value=float(row["value"]),
        text=row["value"],
        higher_is_better={"yes": True, "no": False}.get(row["higher_is_better"]),
        verified=row["verified"] == "yes",
        file=file,
        **texts,
    )
