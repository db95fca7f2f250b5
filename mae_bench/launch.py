"""Jobs, each its own process: started longest first, watched through files, stopped together."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from mae_bench.claim import BUSY
from mae_bench.core import progress
from mae_bench.core.errors import MaeBenchError, Stopped
from mae_bench.core.plural import are
from mae_bench.core.signals import ASKING
from mae_bench.ends import STOPS, ended, kind_of, reason, told, with_status
from mae_bench.jobs import Display, Job, Outcome, Seen
from mae_bench.lines import duration
from mae_bench.processes import Process, Start, start_here
from results.store import STATUS, read_object

POLL_SECONDS = 0.1
ALIKE = 5
"""Failures of one kind in a row after which nothing more is started."""
GRACE_SECONDS = 60.0
"""Time to save for a job that is over its time limit."""
LAST = 0.0
"""Weight of a job that is run once more, when nothing else waits."""
BUSY_SECONDS = 3.0
"""Wait before another look at a folder that another process works in."""


@dataclass
class _Running:
    job: Job
    process: Process
    slot: int
    started: float
    late: bool = False
    """Whether it was asked to stop because its time was over."""

    def seen(self) -> Seen:
        """The job as its files tell."""
        return Seen(self.job, self.started, read_object(self.job.folder / progress.FILE))


class _StopAsked:
    """Counts the signals that ask this program to stop."""

    def __init__(self) -> None:
        self.count = 0
        self.name = ""

    def take(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        self.count += 1
        self.name = signal.Signals(number).name


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], display: Display, start: Start = start_here
) -> list[Outcome]:
    """Run jobs until none is left.

    Args:
        jobs: what to run; ended jobs may add to it.
        slots: environment variables of each place a job can run in; as many jobs run at a time.
        display: shows what goes on.
        start: where they run.

    Returns:
        How each job ended, in the order of ending; those never started after a signal are `stopped`.
    """
    with _collect_signals() as asked:
        return _Pool(jobs, slots, display, asked, start).run()


def _end_late(run: _Running) -> None:
    """Ask a job whose time is over to save and stop; kill it when it does not."""
    spent = time.monotonic() - run.started
    if run.job.time_limit is None or spent < run.job.time_limit:
        return
    if not run.late:
        run.late = True
        run.process.terminate()
    elif spent > run.job.time_limit + GRACE_SECONDS:
        run.process.kill()


def check_stopped(outcomes: Sequence[Outcome]) -> None:
    """Raise `Stopped` with one line when a signal ended the jobs."""
    left = [outcome for outcome in outcomes if outcome.state == "stopped"]
    if left:
        unfinished = f"{len(left)} of {len(outcomes)} {are(len(left))} not finished"
        raise Stopped(f"stopped; {unfinished}; the same command goes on from there")


class _Pool:
    """The jobs of one call: which wait, which run, which have ended."""

    def __init__(
        self, jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], display: Display, asked: _StopAsked, start: Start
    ) -> None:
        self.waiting = list(jobs)
        self.slots, self.display, self.asked, self.start = list(slots), display, asked, start
        self.free = list(range(len(self.slots)))
        self.running: list[_Running] = []
        self.outcomes: list[Outcome] = []
        self.not_before: dict[str, float] = {}
        self.forwarded = 0
        self.killed: set[str] = set()
        self.alike: list[Outcome] = []

    def run(self) -> list[Outcome]:
        try:
            while self.running or (self.waiting and not self.asked.count):
                self._forward()
                self._start_what_fits()
                self._collect()
                self.display.watch({run.job.name: run.seen() for run in self.running}, self.waiting)
                time.sleep(POLL_SECONDS)
        finally:
            self._kill()
        for job in self.waiting:
            self.outcomes.append(Outcome(job, "stopped", message="not started"))
        return self.outcomes

    def _start_what_fits(self) -> None:
        now = time.monotonic()
        for job in sorted(self.waiting, key=lambda job: -job.weight):
            if not self.free or self.asked.count:
                return
            if self.not_before.get(job.name, 0.0) > now:
                continue
            try:
                ready = job.prepare()
                if ready == "busy":
                    self.not_before[job.name] = now + BUSY_SECONDS
                    continue
                if ready == "run":
                    self._start(job)
            except (MaeBenchError, OSError) as error:  # it is this job that cannot start; those that run go on
                ready = "failed"
                self._end(Outcome(job, "failed", message=reason(error)))
            self.waiting.remove(job)
            if ready == "done":
                self._end(Outcome(job, "elsewhere"))

    def _start(self, job: Job) -> None:
        slot = self.free[0]
        job.folder.mkdir(parents=True, exist_ok=True)
        for name in (STATUS, progress.FILE):
            (job.folder / name).unlink(missing_ok=True)
        process = self.start(job, self.slots[slot])
        self.free.remove(slot)
        self.running.append(_Running(job, process, slot, time.monotonic()))
        self.display.begin(job)

    def _collect(self) -> None:
        for run in list(self.running):
            code = run.process.poll()
            if code is None:
                _end_late(run)
                continue
            self.running.remove(run)
            self.free.append(run.slot)
            if code == BUSY and not self.asked.count:
                self.not_before[run.job.name] = time.monotonic() + BUSY_SECONDS
                self.waiting.append(run.job)
                continue
            seconds = time.monotonic() - run.started
            killed = code < 0 and self.asked.count > 1
            outcome = Outcome(run.job, "stopped", seconds, "killed") if killed else self._outcome(run, code, seconds)
            if code == -signal.SIGKILL and outcome.state == "failed" and not run.late and run.job.name not in self.killed:
                self._again(outcome)
            else:
                self._end(outcome)

    def _again(self, outcome: Outcome) -> None:
        """Run a job once more that the system has killed: with fewer beside it, its memory may be enough."""
        self.killed.add(outcome.job.name)
        job = outcome.job
        self.waiting.append(replace(job, weight=LAST, prepare=job.again or job.prepare))
        self.display.again(outcome)

    def _outcome(self, run: _Running, code: int, seconds: float) -> Outcome:
        """How a job ended; one that something else than this program stopped has failed, and the others go on."""
        job = run.job
        if code in STOPS and self.asked.count:
            return Outcome(job, "stopped", seconds, "stopped")
        if run.late and code:
            return Outcome(
                job, "failed", seconds, f"its time limit of {duration(job.time_limit or 0)} is over; run it again to go on"
            )
        if code in STOPS:
            return Outcome(job, "failed", seconds, f"{told(job) or 'stopped'} (asked by something else than this program)")
        return with_status(ended(job, code, seconds), code)

    def _end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.display.end(outcome)
        self.alike = [*self.alike, outcome][-ALIKE:] if outcome.state == "failed" else []
        if len(self.alike) == ALIKE and len({kind_of(one) for one in self.alike}) == 1:
            self._give_up(outcome)
        if outcome.state in ("done", "elsewhere"):
            try:
                self.waiting.extend(outcome.job.then())
            except (MaeBenchError, OSError) as error:
                self._end(Outcome(outcome.job, "failed", message=f"what follows it cannot be run: {reason(error)}"))

    def _give_up(self, outcome: Outcome) -> None:
        """Start nothing more: so many failures of one kind in a row are the environment's, not the cells'."""
        reason = f"not started: {ALIKE} in a row failed alike, the last with: {outcome.message}"
        self.waiting, left = [], self.waiting
        for job in left:
            self.outcomes.append(Outcome(job, "failed", message=reason))

    def _forward(self) -> None:
        """The first signal asks the jobs to save and stop; the second kills them."""
        if self.asked.count > 1:
            self._kill()
        elif self.asked.count > self.forwarded:
            self.display.stopping()
            for run in self.running:
                run.process.terminate()
        self.forwarded = self.asked.count

    def _kill(self) -> None:
        for run in self.running:
            run.process.kill()


def python(*words: str) -> tuple[str, ...]:
    """The command that runs a module of the suite with this interpreter."""
    return (sys.executable, "-m", *words)


@contextmanager
def _collect_signals() -> Iterator[_StopAsked]:
    asked = _StopAsked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    previous = {number: signal.signal(number, asked.take) for number in ASKING}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
