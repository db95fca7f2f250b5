"""What a job is, how it ends, and what shows it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

State = Literal["done", "failed", "stopped", "elsewhere"]
"""`elsewhere`: another process finished it in the meantime."""
Ready = Literal["run", "busy", "done"]

LOG = "log.txt"


@dataclass(frozen=True)
class Job:
    """One process to run."""

    name: str
    """Name in displays."""
    command: tuple[str, ...]
    folder: Path
    """Where the process leaves `progress.json` and `status.json`; its output goes to `log.txt` there."""
    weight: float = 1.0
    """Expected length in any unit: longer jobs are started first."""
    prepare: Callable[[], Ready] = lambda: "run"
    """Called just before the start: another process may be at it (`busy`) or have finished it (`done`)."""
    again: Callable[[], Ready] | None = None
    """The same for the second start of a job that the system has killed, where that must leave what the first one saved."""
    then: Callable[[], Sequence["Job"]] = tuple
    """Gives the jobs that can be run once this one has ended well."""
    later_count: int = 0
    """How many jobs `then` is expected to give."""
    later_weight: float = 0.0
    """Their weight."""
    summary: Callable[[], str] = str
    """A few words about the result of a job that ended well."""
    time_limit: float | None = None
    """Seconds after which it is asked to save and stop."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    state: State
    seconds: float = 0.0
    message: str = ""
    """One line about what went wrong."""

    @property
    def log(self) -> Path:
        """The file with the output of the job."""
        return self.job.folder / LOG


class Display(Protocol):
    """Shows jobs."""

    def begin(self, job: Job) -> None:
        """A job was started."""

    def end(self, outcome: Outcome) -> None:
        """A job has ended."""

    def again(self, outcome: Outcome) -> None:
        """A job has ended badly and is to be run once more."""

    def stopping(self) -> None:
        """A signal has asked for an end; the jobs have been told."""

    def watch(self, running: Mapping[str, "Seen"], waiting: Sequence[Job]) -> None:
        """Called many times a second with the state of all that runs and waits."""


@dataclass(frozen=True)
class Seen:
    """A running job as its files tell."""

    job: Job
    started: float
    progress: Mapping[str, Any] = field(default_factory=dict)
