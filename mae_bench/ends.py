"""How a job ended, as its exit code, its status and its log tell."""

import signal
import time
from dataclasses import replace
from pathlib import Path

from mae_bench.claim import BUSY, Busy
from mae_bench.core.errors import MaeBenchError, Stopped
from mae_bench.core.files import write_json
from mae_bench.core.signals import ASKING
from mae_bench.job import ENDED_BADLY, one_line
from mae_bench.jobs import LOG, Job, Outcome
from mae_bench.locks import locked
from results.store import STATUS, read_object

STOPS = (Stopped.exit_code, BUSY, *(-number for number in ASKING))
"""Exit codes of jobs that were asked to stop."""


def ended(job: Job, code: int, seconds: float) -> Outcome:
    """How a job ended, by its exit code and what it has left."""
    if code == 0:
        return Outcome(job, "done", seconds)
    if code == -signal.SIGKILL:  # whatever others of its processes have told, it is a consequence
        hint = "the system may have been out of memory, try a smaller --jobs"
        return Outcome(job, "failed", seconds, f"killed by SIGKILL; {hint}")
    if read_object(job.folder / STATUS).get("state") in ENDED_BADLY and told(job):
        return Outcome(job, "failed", seconds, told(job))
    if code < 0:
        return Outcome(job, "failed", seconds, f"killed by {signal.Signals(-code).name}")
    return Outcome(job, "failed", seconds, last_line(job.folder / LOG) or f"exit code {code}")


def kind_of(outcome: Outcome) -> str:
    """What kind of failure it was: its message without the numbers, names and paths that differ from cell to cell."""
    words = outcome.message.split()
    return " ".join(word for word in words if "/" not in word and not any(char.isdigit() for char in word))


def told(job: Job) -> str:
    """What the job itself has left about its end."""
    return str(read_object(job.folder / STATUS).get("message") or "")


def with_status(outcome: Outcome, code: int) -> Outcome:
    """Leave the end of a job that could not do so itself, as one killed by the system cannot."""
    folder = outcome.job.folder
    has_told = code != -signal.SIGKILL and read_object(folder / STATUS).get("state") in ENDED_BADLY
    if outcome.state != "failed" or has_told:
        return outcome
    try:
        with locked(folder):
            write_json(folder / STATUS, {"state": "failed", "message": outcome.message, "exit_code": code, "time": time.time()})
    except Busy:  # another program has begun it again already
        return outcome
    except MaeBenchError as error:
        return replace(outcome, message=f"{outcome.message}; {error}")
    return outcome


def reason(error: Exception) -> str:
    """An error on one line; one of the system's names its file."""
    if isinstance(error, OSError) and error.filename:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(error)


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    return "".join(last_lines(path)[-1:])


def last_lines(path: Path, most: int = 3) -> list[str]:
    """The last lines of the last process in a log, but for empty ones."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return []
    begin = max((number for number, line in enumerate(lines) if line.startswith("--- ")), default=-1)
    return [line[:600] for line in lines[begin + 1 :] if line][-most:]
