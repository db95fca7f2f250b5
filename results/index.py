"""`index.csv` of an output folder: every number of every cell on a line of its own, for spreadsheets and scripts.

It is made anew from the records after each run and never read by the suite, so it can be deleted or spoilt without any harm.
"""

import csv
import io
import json
from pathlib import Path

from mae_bench.core.files import write_text
from results.formats import inert
from results.record import Record
from results.table import Table

FILE = "index.csv"


def write_index(out: Path, table: Table) -> Path:
    """Write the index of an output folder.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    lines = [line for record in table.records for line in _lines(record)]
    file = io.StringIO()
    if lines:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: inert(value) for name, value in line.items()} for line in lines)
    write_text(out / FILE, file.getvalue())
    return out / FILE


def _lines(record: Record) -> list[dict[str, str | int | float | None]]:
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
