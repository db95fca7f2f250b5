"""The index of an output folder: every number of every cell on a line of its own, for spreadsheets, pandas and scripts.

`index.csv`, and `index.parquet` where pyarrow is installed (it comes with `mae-bench[report]`). Both are made anew from the
records after each run and never read by the suite, so they can be deleted or spoilt without any harm.
"""

import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from mae_bench.core.files import write_text, write_with
from results.formats import inert
from results.record import Record
from results.table import Table

FILE = "index.csv"
PARQUET = "index.parquet"


def write_index(out: Path, table: Table) -> tuple[Path, ...]:
    """Write the index of an output folder in every format there is a writer for; gives the files.

    Raises:
        EnvironmentFault: one cannot be written.
    """
    lines = [line for record in table.records for line in _lines(record)]
    write_text(out / FILE, _csv(lines))
    if find_spec("pyarrow") is None:
        (out / PARQUET).unlink(missing_ok=True)  # of an earlier run, and no longer true
        return (out / FILE,)
    write_with(out / PARQUET, lambda file: _parquet(lines, file))
    return out / FILE, out / PARQUET


Line = dict[str, str | int | float | None]


def _csv(lines: list[Line]) -> str:
    file = io.StringIO()
    if lines:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: inert(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


def _parquet(lines: list[Line], file: IO[bytes]) -> None:
    import pandas as pd

    pd.DataFrame(lines).to_parquet(file, engine="pyarrow", index=False)


def _lines(record: Record) -> list[Line]:
    how, cost = record.protocol, record.cost
    return [
        {
            "model": record.model.name,
            "arch": record.model.arch,
            "method": record.model.method,
            "sha256": record.model.sha256,
            "task": how.task,
            "recipe": how.recipe,
            "changes": json.dumps(how.changes) if how.changes else "",
            "dataset": record.dataset.name,
            "seed": record.seed,
            "metric": metric,
            "value": score.value,
            "unit": score.unit,
            "stderr": score.stderr,
            "seconds": cost.seconds,
            "shared_seconds": cost.shared_seconds,
            "gpu_hours": cost.gpu_hours,
            "energy_joules": cost.energy_joules,
            "images_per_second": cost.images_per_second,
            "gflops": cost.gflops,
            "peak_memory_mb": cost.peak_memory_mb,
            "device": record.machine.device,
            "precision": record.machine.precision,
            "deviations": "; ".join(record.deviations),
            "date": record.date,
            "key": record.key,
        }
        for metric, score in record.metrics.items()
    ]
