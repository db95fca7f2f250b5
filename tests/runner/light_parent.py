"""A program that runs light jobs, as a script: `light_parent.py OUT KIND[,KIND...] PARALLEL [forked]`.

Exits as the command line does.
"""

import sys
from pathlib import Path

from rich.console import Console

from mae_bench import forking
from mae_bench.core.errors import Stopped
from mae_bench.display import make_display
from mae_bench.jobs import Job
from mae_bench.launch import check_stopped, run_jobs

JOB = str(Path(__file__).with_name("light_job.py"))
FORKED = "tests.runner.light_job"
"""The same as a module, of which commands are forked where it is among `forking.FORKED`."""


def jobs(out: Path, kinds: list[str], *, forked: bool = False) -> list[Job]:
    folders = [out / f"{number}-{kind}" for number, kind in enumerate(kinds)]
    how = ("-m", FORKED) if forked else (JOB,)
    return [Job(folder.name, (sys.executable, *how, str(folder), folder.name.split("-")[1]), folder) for folder in folders]


def main(out: Path, kinds: list[str], parallel: int, *, forked: bool = False) -> int:
    forking.FORKED = (FORKED,)
    with make_display(Console(), "jobs") as display, forking.forking("cpu", ()) as start:
        outcomes = run_jobs(jobs(out, kinds, forked=forked), [{}] * parallel, display, start)
    try:
        check_stopped(outcomes)
    except Stopped as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), forked="forked" in sys.argv))
