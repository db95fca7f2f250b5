"""A job as several processes of this machine, `python -m mae_bench.ranks TORCHRUN'S WORDS`: torchrun that ends as a job does.

torchrun by itself outlives the program that started it, and gives 1 whatever code its processes end with.
"""

import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mae_bench.core.errors import Stopped
from mae_bench.job import PARENT, end_with_parent

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def main(words: list[str] | None = None) -> int:
    """Run torchrun to its end and give the exit code of the processes."""
    try:
        end_with_parent()
    except Stopped as error:
        return error.exit_code
    if PARENT in os.environ:
        os.environ[PARENT] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(words)
    except SignalException:  # it has waited until all have saved and stopped
        return Stopped.exit_code
    except ChildFailedError as error:
        return _end_as(error.failures)
    return 0


def _end_as(failures: "Mapping[int, ProcessFailure]") -> int:
    """The exit code of the process that tells most, the main one before others; where one was killed, kill this process too.

    An error that a process explains comes first, then a kill by the system, after which the others lose their connection and end
    with whatever that gives. What was asked to stop has ended as a consequence.
    """
    _, first = min(failures.items(), key=lambda item: (_order(item[1].exitcode), item[0]))
    if first.exitcode == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)
    return first.exitcode if first.exitcode > 0 else 128 - first.exitcode


def _order(code: int) -> int:
    if code in (Stopped.exit_code, -signal.SIGTERM):
        return 3
    if code == -signal.SIGKILL:
        return 1
    return 0 if code > 1 else 2


if __name__ == "__main__":
    sys.exit(main())
