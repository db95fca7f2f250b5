"""What a person sees of running jobs: live bars in a terminal, plain lines anywhere else."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from mae_bench.core.progress import columns
from mae_bench.jobs import Job, Outcome, Seen
from mae_bench.lines import SECONDS_BETWEEN_LINES, duration

MARKS = {"done": "done", "elsewhere": "done", "failed": "FAILED", "stopped": "stopped"}
STOPPING = "stopping: what runs is saved first; a second signal kills it"
STYLES = {"done": "green", "elsewhere": "green", "failed": "bold red", "stopped": "yellow"}


class Overview:
    """How much of all jobs is done, and how long the rest will take."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.ended: dict[str, float] = {}
        self.partly: dict[str, float] = {}
        self.waiting: list[Job] = []
        self.running: list[Job] = []

    def end(self, outcome: Outcome) -> None:
        """Count a job as done, unless it was stopped on its way."""
        self.partly.pop(outcome.job.name, None)
        if outcome.state != "stopped":
            self.ended[outcome.job.name] = outcome.job.weight

    def watch(self, running: Mapping[str, Seen], waiting: Sequence[Job]) -> None:
        """Take in what runs; a job of several pieces of work never goes back in this count."""
        self.waiting = list(waiting)
        for name, seen in running.items():
            total = float(seen.progress.get("total") or 0)
            share = min(0.98, float(seen.progress.get("done") or 0) / total) if total else 0.0
            self.partly[name] = max(self.partly.get(name, 0.0), share * seen.job.weight)
        self.running = [seen.job for seen in running.values()]

    def fraction(self) -> float:
        """Share of the expected work that is done."""
        known = [*self.waiting, *self.running]
        whole = sum(self.ended.values()) + sum(job.weight + job.later_weight for job in known)
        return (sum(self.ended.values()) + sum(self.partly.values())) / whole if whole else 1.0

    def eta(self) -> str:
        """Time to go at the speed so far."""
        share = self.fraction()
        spent = time.monotonic() - self.started
        return duration(spent * (1 - share) / share) if share > 0.01 and spent > 2 else "-:--"

    def count(self) -> str:
        """Jobs ended, of all known."""
        known = [*self.waiting, *self.running]
        return f"{len(self.ended)}/{len(self.ended) + sum(1 + job.later_count for job in known)}"


class PlainDisplay(AbstractContextManager["PlainDisplay"]):
    """A line when a job starts or ends, and every ten seconds one about all that runs."""

    def __init__(self, console: Console, what: str = "cells") -> None:
        self.console, self.what = console, what
        self.overview = Overview()
        self.spoken = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing to close."""

    def begin(self, job: Job) -> None:
        """A job was started."""
        self._say(f"start   {job.name}")

    def end(self, outcome: Outcome) -> None:
        """A job has ended."""
        self.overview.end(outcome)
        self._say(end_line(outcome))

    def again(self, outcome: Outcome) -> None:
        """A job is to be run once more."""
        self._say(again_line(outcome))

    def watch(self, running: Mapping[str, Seen], waiting: Sequence[Job]) -> None:
        """Speak when it is time to."""
        self.overview.watch(running, waiting)
        if running and time.monotonic() - self.spoken >= SECONDS_BETWEEN_LINES:
            states = "; ".join(f"{name}: {state(seen)}" for name, seen in running.items())
            self._say(f"{self.what} {self.overview.count()}, eta {self.overview.eta()}; {states}")

    def stopping(self) -> None:
        """A signal has come."""
        self._say(STOPPING)

    def _say(self, text: str) -> None:
        self.spoken = time.monotonic()
        self.console.print(Text(text), soft_wrap=True)
        self.console.file.flush()


class LiveDisplay(AbstractContextManager["LiveDisplay"]):
    """An overall bar with the time to go, and one bar for each running job."""

    def __init__(self, console: Console, what: str = "cells") -> None:
        self.console, self.what = console, what
        self.overview = Overview()
        self.all = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=40),
            TextColumn("{task.fields[count]}  {task.fields[time]}"),
            console=console,
        )
        self.jobs = Progress(*columns(), console=console)
        self.bars: dict[str, tuple[TaskID, str]] = {}
        self.whole = self.all.add_task(what, total=1.0, count="", time="")
        self.live = Live(Group(self.jobs, self.all), console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self.live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End drawing."""
        self.live.__exit__(kind, error, trace)

    def begin(self, job: Job) -> None:
        """Give a started job its bar."""
        self._bar(job.name, job.name, 0, None)

    def end(self, outcome: Outcome) -> None:
        """Turn the bar of an ended job into a line."""
        self.overview.end(outcome)
        self._drop(outcome.job)
        self.console.print(Text(end_line(outcome), style=STYLES[outcome.state]), soft_wrap=True)

    def again(self, outcome: Outcome) -> None:
        """A job is to be run once more."""
        self._drop(outcome.job)
        self.console.print(Text(again_line(outcome), style="yellow"), soft_wrap=True)

    def watch(self, running: Mapping[str, Seen], waiting: Sequence[Job]) -> None:
        """Move the bars."""
        self.overview.watch(running, waiting)
        for name, seen in running.items():
            now = seen.progress
            if now:
                self._bar(name, f"{name}: {now.get('title', '')}", int(now.get("done", 0)), int(now.get("total", 0)))
                self.jobs.update(self.bars[name][0], note=str(now.get("note", "")))
        spent = duration(time.monotonic() - self.overview.started)
        self.all.update(
            self.whole,
            completed=self.overview.fraction(),
            count=self.overview.count(),
            time=f"{spent}  eta {self.overview.eta()}",
        )

    def stopping(self) -> None:
        """A signal has come."""
        self.console.print(Text(STOPPING, style="yellow"), soft_wrap=True)

    def _drop(self, job: Job) -> None:
        """Remove the bar of a job that does not run any more."""
        known = self.bars.pop(job.name, None)
        if known is not None:
            self.jobs.remove_task(known[0])

    def _bar(self, name: str, title: str, done: int, total: int | None) -> None:
        """Move the bar of a job; a new piece of work gets a new bar, with a clock of its own."""
        known = self.bars.get(name)
        if known is not None and known[1] != title:
            self.jobs.remove_task(known[0])
            known = None
        if known is None:
            known = self.jobs.add_task(title, total=total, completed=done, note=""), title
            self.bars[name] = known
        self.jobs.update(known[0], completed=done)


def make_display(console: Console, what: str = "cells") -> PlainDisplay | LiveDisplay:
    """Bars where there is a terminal to draw them in, plain lines where there is none."""
    return LiveDisplay(console, what) if console.is_terminal else PlainDisplay(console, what)


def state(seen: Seen) -> str:
    """A running job in a few words."""
    now = seen.progress
    if not now:
        return f"starting, {duration(time.monotonic() - seen.started)}"
    note = f", {now['note']}" if now.get("note") else ""
    return f"{now.get('title')} {now.get('done')}/{now.get('total')}{note}"


def again_line(outcome: Outcome) -> str:
    """A job that is to be run once more on one line."""
    return f"again   {outcome.job.name}  {outcome.message}; it goes on when the others have ended"


def end_line(outcome: Outcome) -> str:
    """An ended job on one line."""
    words = [f"{MARKS[outcome.state]:<7} {outcome.job.name}"]
    if outcome.seconds:
        words.append(duration(outcome.seconds))
    if outcome.state in ("done", "elsewhere"):
        words.append(outcome.job.summary())
    if outcome.state == "failed":
        words.append(f"{outcome.message} (log: {outcome.log})")
    return "  ".join(word for word in words if word)
