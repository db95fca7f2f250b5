"""Records made up for tests of tables and reports."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from results.keeping import write_record
from results.names import slug
from results.record import Cost, Dataset, Machine, Model, Protocol, Record, Score
from results.request import Request, cell_key, write_request


class Screen(Console):
    """A console that keeps what is printed."""

    def __init__(self, width: int = 300, **more: Any) -> None:
        self.kept = io.StringIO()
        super().__init__(file=self.kept, width=width, **more)

    @property
    def text(self) -> str:
        """Everything printed."""
        return self.kept.getvalue()


def make_record(
    name: str = "mae",
    task: str = "knn",
    recipe: str = "demo",
    metrics: dict[str, float] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Record:
    """One cell; `changes` are fields of the parts of a record: sha256, changes, digest, fingerprint, dataset, ..."""
    get = changes.get
    digest, sha256, fingerprint = get("digest", "d1"), get("sha256", "ab" * 32), get("fingerprint", "f" * 64)
    precision = get("precision", "fp32")
    key = cell_key(
        sha256=sha256, task=task, digest=digest, fingerprint=fingerprint, seed=seed, version=1, precision=get("precision", "fp32")
    )
    return Record(
        key=key,
        seed=seed,
        date=get("date", "2026-01-02T03:04:05+00:00"),
        metrics={metric: Score(value=value, stderr=get("stderr")) for metric, value in (metrics or {"top1": 50.0}).items()},
        model=Model(
            name=name,
            source=get("source", "model.safetensors"),
            sha256=sha256,
            ledger=get("ledger", {"matched": 150}),
            arch=get("arch", "vit_base_patch16"),
            method=get("method", "mae"),
        ),
        protocol=Protocol(
            task=task,
            recipe=recipe,
            config=get("config", {"k": 20}),
            changes=get("changes", {}),
            config_digest=digest,
            selection="last step",
        ),
        dataset=Dataset(
            name=get("dataset", "folder"),
            given="folder=/data",
            kind=get("kind", "classification"),
            fingerprint=fingerprint,
            counts={"train": 10, "val": get("val", 5)},
            classes=get("classes"),
        ),
        cost=Cost(seconds=get("seconds", 61.0)),
        machine=Machine(device="cpu", precision=precision),
        deviations=get("deviations", ()),
    )


def make_request(record: Record, **changes: Any) -> Request:
    """The request that a record would be the answer to."""
    values = {
        "key": record.key,
        "model": record.model.name,
        "source": f"{record.model.name}={record.model.source}",
        "sha256": record.model.sha256,
        "task": record.protocol.task,
        "recipe": record.protocol.recipe,
        "config": record.protocol.config,
        "changes": record.protocol.changes,
        "config_digest": record.protocol.config_digest,
        "data": record.dataset.given,
        "dataset": record.dataset.name,
        "fingerprint": record.dataset.fingerprint,
        "seed": record.seed,
    }
    return Request(**{**values, **changes})


def place(out: Path, record: Record) -> Path:
    """Folder of a record's cell."""
    protocol = record.protocol
    return out / slug(record.model.name) / slug(f"{protocol.task}-{protocol.recipe}") / record.dataset.name / f"seed{record.seed}"


def store(out: Path, *records: Record) -> list[Path]:
    """Write cells as a run leaves them."""
    folders = []
    for record in records:
        folder = place(out, record)
        write_request(folder, make_request(record))
        write_record(folder, record)
        folders.append(folder)
    return folders


def store_failed(out: Path, record: Record, message: str, log: str = "") -> Path:
    """Write a cell as a failed run leaves it."""
    folder = place(out, record)
    write_request(folder, make_request(record))
    (folder / "status.json").write_text(json.dumps({"state": "failed", "message": message, "exit_code": 1}))
    (folder / "log.txt").write_text(log)
    return folder
