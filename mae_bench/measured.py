"""From what a task gives to the record of a cell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mae_bench.core.errors import Diverged, MaeBenchError
from mae_bench.job import one_line
from results import record as records
from results.names import FEATURES
from results.record import ClassScores, Cost, Dataset, Model, Protocol, Record, Score
from results.request import Request
from results.store import read_object

if TYPE_CHECKING:
    from backbones.ledger import Ledger
    from mae_bench.watched import Watched
    from tasks.contract import Metric
    from tasks.handle import DataHandle

ACCURACIES = ("top1", "top5")


@dataclass(frozen=True)
class Spent:
    """What a cell took."""

    seconds: float
    """Of all sessions."""
    sessions: int
    session: float
    """Seconds of the last one."""
    joules: float | None = None
    gpus: int = 0
    shared: float = 0.0
    """Seconds that others spent on features it used."""


def make_record(
    request: Request,
    task: ModuleType,
    source: "Watched",
    data: "DataHandle",
    found: Mapping[str, float],
    spent: Spent,
    deviations: Sequence[str] = (),
) -> Record:
    """The record of a cell that has been measured.

    Args:
        request: what was asked for.
        task: the task's file.
        source: the checkpoint, which knows how it was built and used.
        data: what it was measured on.
        found: value by metric name.
        spent: what it took.
        deviations: what the task says of this very cell.

    Raises:
        Diverged: a number that is none.
    """
    from mae_bench import environment

    ledger = source.ledger_built()
    return Record(
        key=request.key,
        seed=request.seed,
        date=records.now(),
        metrics=_scores(found, task, data),
        model=_model(request, source, ledger),
        protocol=Protocol(
            task=request.task,
            recipe=request.recipe,
            config=request.config,
            changes=request.changes,
            config_digest=request.config_digest,
            version=request.version,
            selection=task.SELECTION,
        ),
        dataset=Dataset(
            name=request.dataset,
            given=request.data,
            kind=data.kind,
            fingerprint=data.fingerprint,
            counts={"train": len(data.split("train")), "val": len(data.split("val"))},
            classes=len(data.classes),
        ),
        cost=_cost(request, source, spent),
        machine=environment.machine(request.device, threads=request.threads, precision=request.precision),
        deviations=_deviations(request, task, ledger, deviations),
    )


def with_classes(record: Record, task: ModuleType, folder: Path) -> Record:
    """The record with the numbers of single classes that the task has left in the cell's folder, if it does so."""
    if not hasattr(task, "by_class"):
        return record
    return record.model_copy(
        update={"classes": tuple(ClassScores(name=name, values=values) for name, values in task.by_class(folder))}
    )


def shared_seconds(folder: Path) -> float:
    """What others spent on features that the cell of a folder found ready, less what it waited for them, in seconds."""
    told = [one for one in read_object(folder / FEATURES).values() if isinstance(one, dict) and one.get("found") is True]
    return max(0.0, sum(float(one.get("seconds") or 0.0) - float(one.get("waited") or 0.0) for one in told))


def _cost(request: Request, source: "Watched", spent: Spent) -> Cost:
    from mae_bench import environment

    memory, gpu_memory = environment.peak_memory_mb(), environment.peak_gpu_memory_mb(request.device)
    return Cost(
        seconds=round(spent.seconds, 3),
        shared_seconds=round(spent.shared, 3),
        sessions=spent.sessions,
        gpus=spent.gpus,
        energy_joules=_rounded(spent.joules),
        images_per_second=float(f"{source.images / spent.session:.4g}") if source.images and spent.session > 0 else None,
        gflops=source.gflops(),
        input_size=source.input_size,
        peak_memory_mb=_rounded(memory),
        peak_gpu_memory_mb=_rounded(gpu_memory),
    )


def _scores(found: Mapping[str, float], task: ModuleType, data: "DataHandle") -> dict[str, Score]:
    """The numbers in the task's order, with their sampling error where it is known; never one that is no number."""
    known = {metric.name: metric for metric in task.METRICS}
    if not found:
        raise MaeBenchError("the task gave no number")
    for name, value in found.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} is {value}, which is no result: the training has diverged; try a smaller learning rate")
    ordered = [*(name for name in known if name in found), *(name for name in found if name not in known)]
    return {name: _score(float(found[name]), name, known.get(name), data) for name in ordered}


def _score(value: float, name: str, metric: "Metric | None", data: "DataHandle") -> Score:
    """One number; of one that the task's METRICS do not name, nothing is known but its value."""
    if metric is None:
        return Score(value=value, unit="")
    if data.kind == "classification" and name in ACCURACIES:
        return records.accuracy_score(value, len(data.split("val")))
    return Score(value=value, unit=metric.unit, higher_is_better=metric.higher_is_better)


def _model(request: Request, source: "Watched", ledger: "Ledger") -> Model:
    return Model(
        name=request.model,
        source=source.text,
        sha256=source.sha256,
        ledger=ledger.summary(),
        arch=source.spec.name,
        method=source.spec.method,
        pretrain_data=source.spec.pretrain_data,
        notes=tuple(one_line(note) for note in ledger.notes),
    )


def _deviations(request: Request, task: ModuleType, ledger: "Ledger", of_cell: Sequence[str]) -> tuple[str, ...]:
    """What keeps the number from being that of the protocol's own words."""
    unlike = {
        "resized on loading": ledger.resized,
        "not in the checkpoint and initialised anew": ledger.missing,
        "in the checkpoint, unknown and left out": ledger.unexpected,
    }
    loading = [one_line(f"{text}: {', '.join(names)}") for text, names in unlike.items() if names]
    settings = [f"{key}={value}" for key, value in request.changes.items()]
    changed = [one_line(f"settings other than {request.recipe}: {', '.join(settings)}")] if settings else []
    own = getattr(task, "DEVIATIONS", ()) if request.recipe.startswith("paper") else ()
    of_recipe = getattr(task, "DEVIATIONS_OF", {}).get(request.recipe, ())
    return (*loading, *changed, *own, *of_recipe, *of_cell)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
