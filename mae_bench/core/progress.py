"""How far a run is: shown by rich in this process, or left in a file for the process that started it."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mae_bench.core.files import write_json

FILE = "progress.json"
SECONDS_BETWEEN_WRITES = 0.5


class Reporter(Protocol):
    """Takes the progress of one piece of work after another."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work of `total` steps, of which `done` were made in an earlier run."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps were made; `note` is a short text such as `loss 0.42`."""

    def live(self) -> AbstractContextManager[object]:
        """The block within which progress is shown."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps were made."""

    def live(self) -> AbstractContextManager[object]:
        """The block within which progress is shown."""
        return nullcontext()


class FileReporter:
    """Leaves `{title, done, total, note, time}` in `progress.json` for other processes, such as the one that started this one."""

    def __init__(self, folder: Path, every: float = SECONDS_BETWEEN_WRITES) -> None:
        self._path, self._every = folder / FILE, every
        self._state: dict[str, str | int | float] = {}
        self._written = 0.0

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""
        self._state = {"title": title, "done": done, "total": total, "note": ""}
        self._write()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps were made; written now and then, and at the end."""
        self._state["done"] = int(self._state["done"]) + steps
        self._state["note"] = note
        if time.monotonic() - self._written > self._every or self._state["done"] == self._state["total"]:
            self._write()

    def live(self) -> AbstractContextManager[object]:
        """The block within which progress is shown."""
        return nullcontext()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_json(self._path, {**self._state, "time": time.time()})


class Several:
    """Tells several reporters the same."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""
        for reporter in self._reporters:
            reporter.start(title, total, done)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps were made."""
        for reporter in self._reporters:
            reporter.advance(steps, note)

    @contextmanager
    def live(self) -> Iterator[None]:
        """The block within which all of them show progress."""
        with ExitStack() as stack:
            for reporter in self._reporters:
                stack.enter_context(reporter.live())
            yield


class Bar:
    """A rich progress bar with the time to go, for work done in this process."""

    def __init__(self, console: Console | None = None) -> None:
        self._progress = Progress(*columns(), console=console)
        self._task: TaskID | None = None

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work."""
        if self._task is not None:
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(title, total=total, completed=done, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that some steps were made."""
        if self._task is not None:
            self._progress.update(self._task, advance=steps, note=note)

    def live(self) -> AbstractContextManager[object]:
        """The block within which the bar is drawn."""
        return self._progress


def columns() -> tuple[TextColumn | BarColumn | MofNCompleteColumn | TimeElapsedColumn | TimeRemainingColumn, ...]:
    """The columns of every progress bar of the suite; tasks carry a `note` field."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
