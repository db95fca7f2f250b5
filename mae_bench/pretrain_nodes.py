"""One machine's part of a pretraining on several machines: `python -m mae_bench.pretrain_nodes PROCESSES pretrain ...`.

submitit runs it once on each machine of the job; the machines find each other through the first one.
"""

import os
import sys

PORT = 29400
"""At which the first machine is asked for the others (torchrun's own default)."""


def command(processes: int, words: list[str], *, nodes: int, first: str, job: str) -> list[str]:
    """The command of one machine.

    Args:
        processes: on this machine.
        words: of `mae-bench`.
        nodes: machines.
        first: name of the first of them.
        job: number of the cluster's job, by which the machines know each other.
    """
    where = ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{first}:{PORT}", "--rdzv-id", job]
    how = [*where, "--nproc-per-node", str(processes)]
    return [sys.executable, "-m", "mae_bench.ranks", *how, "-m", "mae_bench.cli", *words]


def main() -> None:
    """Become this machine's part."""
    processes, *words = sys.argv[1:]
    from submitit import JobEnvironment

    here = JobEnvironment()
    found = command(int(processes), words, nodes=here.num_nodes, first=here.hostnames[0], job=here.job_id)
    os.execv(found[0], found)


if __name__ == "__main__":
    main()
