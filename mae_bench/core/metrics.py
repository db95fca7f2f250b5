"""The numbers a run logs on its way, one JSON object a line in `metrics.jsonl`."""

import json
from collections.abc import Iterator
from pathlib import Path

from mae_bench.core.files import write_text

FILE = "metrics.jsonl"


def lines(folder: Path) -> Iterator[dict[str, float]]:
    """Every whole line logged; a line cut by a kill, which can only be the last, is passed over."""
    path = folder / FILE
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def read(folder: Path, name: str) -> list[float]:
    """One logged number in the order of the steps."""
    return [line[name] for line in lines(folder) if name in line]


def cut(folder: Path, step: int) -> None:
    """Forget what was logged at a step and after it, as a run does that goes on from there."""
    if (folder / FILE).exists():
        kept = [line for line in lines(folder) if line.get("step", -1) < step]
        write_text(folder / FILE, "".join(json.dumps(line) + "\n" for line in kept))
