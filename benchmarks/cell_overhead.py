"""What a cell costs beyond its own work: planning, starting its process, opening checkpoint and data, the record, the table.

    python benchmarks/cell_overhead.py [--cells 6] [--jobs 1]

Runs `mae-bench run` on the embedded data: one small random network, kNN, as many seeds as cells. What is printed is the wall time
of the whole command less what the cells say they worked (`cost.seconds` of their records), divided by the number of cells, and
the time of the same command again, when all is done. Nothing fails here: the numbers are read.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tasks.scenes import write_demo


def run(data: Path, out: Path, cells: int, jobs: int) -> tuple[float, float]:
    """Seconds of a whole command, and its CPU time with that of all cells."""
    words = ["-m", "small=random:vit_demo_patch8", "-t", "knn:demo", "-d", f"folder={data}", "-o", str(out)]
    how = ["--seeds", ",".join(map(str, range(cells))), "--jobs", str(jobs), "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mae_bench.cli", "run", *words, *how]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data, out = write_demo(Path(place) / "data", scale="tiny")["folder"], Path(place) / "out"
        whole, used = run(data, out, given.cells, given.jobs)
        work = sum(json.loads(path.read_text())["cost"]["seconds"] for path in out.glob("*/*/*/*/record.json"))
        again, used_again = run(data, out, given.cells, given.jobs)
    each = (whole - work / given.jobs) / given.cells
    print(f"{given.cells} cells, {given.jobs} at a time: {whole:.1f} s, of which the cells' own work {work:.1f} s")
    print(f"beyond that {each:.2f} s a cell; the same command when all is done {again:.1f} s")
    cpu = (used - used_again) / given.cells
    print(f"CPU time of a cell, its own work included, beyond what the command itself takes: {cpu:.2f} s")


if __name__ == "__main__":
    main()
