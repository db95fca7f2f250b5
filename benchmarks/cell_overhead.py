"""What a cell costs beyond its own work: planning, starting its process, opening checkpoint and data, the record, the table.

    python benchmarks/cell_overhead.py [--cells 8] [--jobs 1]

Runs `mae-bench run` on the embedded data: one small random network, kNN, as many seeds as cells; first two cells, then all the
others in the same folder. What the second command takes beyond one that finds everything done, less what its cells say they
worked (`cost.seconds` of their records), divided by their number, is the overhead of a cell. It holds the start of the process
that cells are forked from, once for all of them. CPU time is told beside wall time, since other programs do not change it.
Nothing fails here: the numbers are read.
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


def worked(out: Path) -> float:
    """Seconds that the cells of a folder say they worked."""
    return sum(json.loads(path.read_text())["cost"]["seconds"] for path in out.glob("*/*/*/*/record.json"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data, out = write_demo(Path(place) / "data", scale="tiny")["folder"], Path(place) / "out"
        run(data, out, 2, given.jobs)
        before = worked(out)
        whole, used = run(data, out, 2 + given.cells, given.jobs)
        work = worked(out) - before
        again, used_again = run(data, out, 2 + given.cells, given.jobs)
    each = (whole - again - work / given.jobs) / given.cells
    print(f"{given.cells} cells, {given.jobs} at a time: {whole:.1f} s, of which the cells' own work {work:.1f} s")
    print(f"a command that finds all done: {again:.1f} s ({used_again:.1f} s of CPU)")
    print(f"a cell beyond its own work: {each:.2f} s; a cell with its work: {(used - used_again) / given.cells:.2f} s of CPU")


if __name__ == "__main__":
    main()
