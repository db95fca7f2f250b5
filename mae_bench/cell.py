"""One cell in a process of its own: `python -m mae_bench.cell FOLDER` measures what `config.yaml` there asks for."""

import argparse
import math
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Self

from mae_bench.core.errors import InputError, MaeBenchError
from mae_bench.core.files import write_json
from mae_bench.job import Busy, log_to_stderr, one_line, reporter, work_in
from results import record as records
from results.record import Cost, Dataset, Model, Protocol, Record, Score
from results.request import Request, cell_key, read_request
from results.store import read_object

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.contract import Metric
    from tasks.handle import DataHandle

ELAPSED = "elapsed.json"
SECONDS_BETWEEN_NOTES = 5.0
"""A kill loses at most this much of the time counted."""
ACCURACIES = ("top1", "top5")


def main(words: list[str] | None = None) -> int:
    """Measure one cell and give the exit code."""
    parser = argparse.ArgumentParser(prog="mae_bench.cell", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", default="", help="refuse a request of another key")
    given = parser.parse_args(words)
    log_to_stderr()
    request = read_request(given.folder, _to_stderr)
    debug = request is not None and request.debug
    return work_in(given.folder, lambda: measure(given.folder, given.key), debug=debug)


def measure(folder: Path, key: str = "") -> None:
    """Do what the request in the folder asks for and leave the record.

    Raises:
        Busy: the request is not the expected one any more, since another program has replaced it.
        MaeBenchError: the cell cannot be measured.
    """
    request = read_request(folder, _to_stderr)
    if request is None:
        raise InputError(f"{folder} has no readable config.yaml; start the run again")
    if key and request.key != key:
        raise Busy(str(folder))
    _limit_threads(request.threads)
    task, source, data = _open(request)
    from mae_bench.core import config as configs
    from mae_bench.core.run import Run

    config = configs.build(task.Config, request.config, where=request.task)
    run = Run(
        out=folder,
        seed=request.seed,
        device=request.device,
        precision=request.precision,
        threads=request.threads,
        workers=request.workers,
        save_seconds=request.save_seconds,
        reporter=reporter(folder),
    )
    with Clock(folder) as clock, run.reporter.live():
        found = task.evaluate(source, data, config, run)
    scores = _scores(found, task, data)
    records.write_record(folder, _record(request, task, source, data, scores, clock))


class Clock(AbstractContextManager["Clock"]):
    """Counts the time of a cell over all its sessions, also of those that a kill ended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ELAPSED
        before = read_object(self._path)
        self._before, self.sessions = float(before.get("seconds", 0.0)), int(before.get("sessions", 0)) + 1
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    @property
    def seconds(self) -> float:
        """Time spent until now."""
        return self._before + time.monotonic() - self._started

    def __enter__(self) -> Self:
        """Begin to count."""
        self._note()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End counting."""
        self._ended.set()
        self._thread.join()
        self._note()

    def _count(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_NOTES):
            self._note()

    def _note(self) -> None:
        write_json(self._path, {"seconds": round(self.seconds, 3), "sessions": self.sessions})


def _open(request: Request) -> tuple[ModuleType, "Source", "DataHandle"]:
    """The task, the checkpoint and the data, which have to be those the key was made of."""
    from backbones.source import open_source
    from mae_bench.choose import load_task
    from tasks.handle import open_data

    task, source, data = load_task(request.task, request.room), open_source(request.source), open_data(request.data)
    key = cell_key(
        sha256=source.sha256,
        task=request.task,
        digest=request.config_digest,
        fingerprint=data.fingerprint,
        seed=request.seed,
        version=request.version,
    )
    if key != request.key:
        what = "checkpoint" if source.sha256 != request.sha256 else "data set"
        raise InputError(f"the {what} of {request.title} has changed since the run was started; start the same command again")
    return task, source, data


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _scores(found: Mapping[str, float], task: ModuleType, data: "DataHandle") -> dict[str, Score]:
    """The numbers in the task's order, with their sampling error where it is known; never one that is no number."""
    known = {metric.name: metric for metric in task.METRICS}
    if not found:
        raise MaeBenchError("the task gave no number")
    for name, value in found.items():
        if not math.isfinite(value):
            raise MaeBenchError(f"{name} is {value}, which is no result: the training has diverged; try a smaller learning rate")
    ordered = [*(name for name in known if name in found), *(name for name in found if name not in known)]
    return {name: _score(float(found[name]), name, known.get(name), data) for name in ordered}


def _score(value: float, name: str, metric: "Metric | None", data: "DataHandle") -> Score:
    """One number; of one that the task's METRICS do not name, nothing is known but its value."""
    if metric is None:
        return Score(value=value, unit="")
    if data.kind == "classification" and name in ACCURACIES:
        return records.accuracy_score(value, len(data.split("val")))
    return Score(value=value, unit=metric.unit, higher_is_better=metric.higher_is_better)


def _record(
    request: Request, task: ModuleType, source: "Source", data: "DataHandle", scores: dict[str, Score], clock: Clock
) -> Record:
    from mae_bench import environment

    seconds = round(clock.seconds, 3)
    return Record(
        key=request.key,
        seed=request.seed,
        date=records.now(),
        metrics=scores,
        model=_model(request, source),
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
        cost=Cost(
            seconds=seconds,
            sessions=clock.sessions,
            peak_memory_mb=_rounded(environment.peak_memory_mb()),
            peak_gpu_memory_mb=_rounded(environment.peak_gpu_memory_mb(request.device)),
        ),
        machine=environment.machine(request.device, threads=request.threads, precision=request.precision),
        deviations=_deviations(request, task, source),
    )


def _model(request: Request, source: "Source") -> Model:
    return Model(
        name=request.model,
        source=source.text,
        sha256=source.sha256,
        ledger=dict(source.ledger.summary()),
        arch=source.spec.name,
        method=source.spec.method,
        pretrain_data=source.spec.pretrain_data,
    )


def _deviations(request: Request, task: ModuleType, source: "Source") -> tuple[str, ...]:
    """What keeps the number from being that of the protocol's own words."""
    ledger = source.ledger.summary()
    loading = [
        f"{ledger[word]} tensors of the checkpoint {text}"
        for word, text in (("resized", "were resized on loading"), ("missing", "are missing and were initialised anew"))
        if ledger.get(word)
    ]
    settings = [f"{key}={value}" for key, value in request.changes.items()]
    changed = [one_line(f"settings other than {request.recipe}: {', '.join(settings)}")] if settings else []
    own = getattr(task, "DEVIATIONS", ()) if request.recipe.startswith("paper") else ()
    return (*loading, *changed, *own)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
