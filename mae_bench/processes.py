"""Where a job's process runs: here, or wherever submitit takes it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.find import missing
from mae_bench.job import PARENT
from mae_bench.jobs import LOG, Job

LOST = 1
"""Exit code of a job that the cluster lost without one."""
TIMEOUTS = 1000
"""How often a job may run into its time limit and be queued again; each time it goes on from where it was."""

WARNINGS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What clusters send before they take a machine away."""


class Process(Protocol):
    """A started job."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to save and stop."""

    def kill(self) -> None:
        """End it with all it has started, and wait for that."""


Start = Callable[[Job, Mapping[str, str]], Process]
"""Starts a job with some environment variables beside those there are."""


class Command:
    """A job's command with its log, run by whoever calls this: here or on another machine."""

    def __init__(self, words: tuple[str, ...], log: Path, environment: Mapping[str, str]) -> None:
        self.words, self.log, self.environment = words, log, dict(environment)
        self.process: subprocess.Popen[bytes] | None = None

    def open_log(self, note: str = "") -> IO[bytes]:
        """The log to append to, with a line of when and how the command is started, and a note where there is one."""
        log = self.log.open("ab", buffering=0)
        lines = [f"--- {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z} {' '.join(self.words)}", *([note] if note else [])]
        log.write("".join(f"{line}\n" for line in lines).encode())
        return log

    def start(self, note: str = "") -> "subprocess.Popen[bytes]":
        """Start the command in a process group of its own; it stops when this process ends."""
        environment = {**os.environ, **self.environment, PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        with self.open_log(note) as log:
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
            )
        return self.process

    def __call__(self) -> int:
        """Run the command to its end, for submitit; what asks for a stop is handed on, and what warns of one queues it again."""
        process = self.start()
        previous = {number: signal.signal(number, self._asked) for number in WARNINGS if number != _preemption()}
        try:
            _await(process)
            return process.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        """Save and be queued again where the cluster leaves time for it; where it ends the job already, only save."""
        if number == signal.SIGTERM and _is_ending():
            if self.process is not None:
                self.process.terminate()
        else:
            signal.raise_signal(_preemption())

    def checkpoint(self) -> Any:
        """Save and be queued again, when submitit tells of a time limit or a preemption."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            _await(self.process)
            self.process.poll()
        return DelayedSubmission(Command(self.words, self.log, self.environment))


def _preemption() -> signal.Signals:
    """The signal at which submitit calls `checkpoint` and queues a job again."""
    from submitit import JobEnvironment

    return JobEnvironment._usr_sig()


def _await(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of a process without a lock: `Popen.wait` holds one, on which a signal handler that waits would hang."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _is_ending() -> bool:
    """Whether SLURM is ending this job: it sends SIGTERM for that, and also in good time before it takes the machine away."""
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return False
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):  # the number of one task of an array may be that of the whole array
        number = f"{os.environ.get('SLURM_ARRAY_JOB_ID', number)}_{task}"
    try:
        told = subprocess.run(["squeue", "-h", "-j", number, "-o", "%T"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return told.stdout.split() != ["RUNNING"]


class Here:
    """A job's process on this machine."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to save and stop."""
        self._process.terminate()

    def kill(self) -> None:
        """End its whole group."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def start_here(job: Job, environment: Mapping[str, str]) -> Process:
    """Start a job on this machine."""
    return Here(Command(job.command, job.folder / LOG, environment).start())


class Submitted:
    """A job in the hands of submitit."""

    def __init__(self, job: Any, log: Path) -> None:
        self._job, self._log, self._code = job, log, None

    def poll(self) -> int | None:
        """The exit code, or None while it waits or runs; a job that was lost leaves the reason in its log."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if self._code is None and self._job.done():
            try:
                self._code = next((int(code) for code in self._job.results() if code), 0)  # one of each machine
            except (FailedJobError, UncompletedJobError) as error:
                with self._log.open("a", encoding="utf-8") as log:
                    log.write(f"submitit: {' '.join(str(error).split())[:500]}\n")
                self._code = LOST
        return self._code

    def terminate(self) -> None:
        """Ask it to save and stop."""
        self._job.cancel()

    def kill(self) -> None:
        """Cancel it; the cluster kills what does not stop."""
        self._job.cancel()


def submitter(executor: Any) -> Start:
    """A way to start jobs through an executor of submitit."""

    def start(job: Job, environment: Mapping[str, str]) -> Process:
        log = (job.folder / LOG).absolute()
        return Submitted(executor.submit(Command(job.command, log, environment)), log)

    return start


def slurm(folder: Path, words: Mapping[str, str]) -> Start:
    """A way to start jobs on a SLURM cluster.

    Args:
        folder: shared with the cluster's machines; takes submitit's own files.
        words: its settings, such as `partition`, `timeout_min`, `gpus_per_node`, `mem_gb`, or `slurm_account`.

    Raises:
        ConfigError: an unknown setting.
        EnvironmentFault: submitit or SLURM is missing.
    """
    try:
        from submitit import SlurmExecutor
    except ModuleNotFoundError as error:
        raise missing(error, "--launcher slurm") from error
    try:
        executor = SlurmExecutor(folder=folder, max_num_timeout=TIMEOUTS)
    except RuntimeError as error:
        raise EnvironmentFault(f"--launcher slurm: {error}; run it where sbatch is, or leave --launcher out") from error
    values = {name.removeprefix("slurm_"): int(text) if text.isdecimal() else text for name, text in words.items()}
    try:
        executor.update_parameters(**{"job_name": "mae-bench", **values})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--slurm: {' '.join(str(error).split())[:300]}") from error
    return submitter(executor)


def torchrun(words: tuple[str, ...], count: int) -> tuple[str, ...]:
    """The command of a module run as one process for each of several GPUs of this machine; as it is for one.

    Args:
        words: `python -m MODULE ...`.
        count: GPUs.
    """
    if count == 1:
        return words
    how = ("--standalone", "--nproc-per-node", str(count))
    return (sys.executable, "-m", "mae_bench.ranks", *how, "-m", *words[2:])
