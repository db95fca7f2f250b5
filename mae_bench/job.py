"""The started side of a job: its progress file, its status and exit code, and its end with its parent."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from mae_bench.claim import BUSY, Busy
from mae_bench.core import processes
from mae_bench.core.errors import Diverged, MaeBenchError, Stopped
from mae_bench.core.files import write_json
from mae_bench.core.progress import Bar, FileReporter, Reporter, Silent
from mae_bench.core.signals import ASKING
from mae_bench.lines import Lines
from mae_bench.locks import locked
from results.store import STATUS, read_object

PARENT = "MAE_BENCH_PARENT"
"""Environment variable with the process id of the program that started this one as a job."""

SECONDS_FOR_MAIN = 5.0
"""Before another process than the main one tells an error and ends: torchrun stops all at the first that ends, and the main one
mostly meets the same error."""

ENDED_BADLY = ("failed", "diverged")
"""States that a job leaves itself when it fails."""

_PR_SET_PDEATHSIG = 1


def started_as_job() -> bool:
    """Whether this process was started by `mae_bench.launch`."""
    return PARENT in os.environ


def reporter(folder: Path) -> Reporter:
    """Progress goes to a file when a parent shows it, else to the terminal, or as lines to what is none.

    Of several processes of one training only the main one tells.
    """
    if not processes.is_main():
        return Silent()
    if started_as_job():
        return FileReporter(folder)
    return Bar() if sys.stdout.isatty() else Lines()


def end_with_parent() -> None:
    """Be asked to stop when the starting process dies, whatever kills it, so that no orphan races a second run.

    For one of several processes of a training that is torchrun's agent, and not the program that is noted.
    """
    parent = os.environ.get(PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if processes.world() == 1 and os.getppid() != int(parent):
        raise Stopped("the program that started this job is gone")


def work_in(folder: Path, work: Callable[[], None], *, debug: bool = False) -> int:
    """Do the work of a job in its folder and leave how it ended in `status.json`.

    Of several processes of one training only the main one locks the folder and writes there, but for an error that another meets
    alone.

    Args:
        folder: the job's folder; locked while the work is done.
        work: raises for everything that goes wrong.
        debug: keeps the traceback of errors that one line explains.

    Returns:
        The exit code.
    """
    try:
        end_with_parent()
        with locked(folder) if processes.is_main() else nullcontext(), stop_at_once():
            if processes.is_main():
                _leave(folder, "running", "", 0)
            state, code, message = _outcome(work, debug)
            _say(message)
            end = _end_as_main if processes.is_main() else _end_as_other
            return end(folder, state, message, code)
    except Busy:
        _say(f"another process works in {folder}")
        return BUSY
    except MaeBenchError as error:
        _say(str(error))
        return error.exit_code


def one_line(text: object, limit: int = 600) -> str:
    """A text on one line, with an end."""
    words = " ".join(str(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def log_to_stderr() -> None:
    """Send the suite's own log lines to the log of the job."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """Collect the warnings of a logger inside the block, each once."""
    told: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = one_line(record.getMessage())
            if line not in told:
                told.append(line)

    collector = Collector(logging.WARNING)
    logging.getLogger(name).addHandler(collector)
    try:
        yield told
    finally:
        logging.getLogger(name).removeHandler(collector)


def _outcome(work: Callable[[], None], debug: bool) -> tuple[str, int, str]:
    """State, exit code and one line about how the work ended."""
    try:
        work()
    except Busy:
        raise
    except MaeBenchError as error:
        if debug:
            traceback.print_exc()
        state = {Stopped: "stopped", Diverged: "diverged"}.get(type(error), "failed")
        return state, error.exit_code, one_line(error)
    except KeyboardInterrupt:
        return "stopped", Stopped.exit_code, "stopped by a second Ctrl-C"
    except Exception as error:  # the end of the process: a fault of the suite is told with its traceback, never passed over
        traceback.print_exc()
        return "failed", 1, one_line(f"{type(error).__name__}: {error}")
    return "done", 0, ""


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Where nothing has to be saved first, a signal ends the work at once by `Stopped`; the next run does that part again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(f"stopped by {signal.Signals(number).name}; the same command goes on from there")

    previous = {number: signal.signal(number, stop) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(message: str) -> None:
    if message:
        print(f"mae-bench: {message}", file=sys.stderr, flush=True)  # noqa: T201


def _end_as_main(folder: Path, state: str, message: str, code: int) -> int:
    """Leave how the work ended, unless another process has told an error: what is met after that is its consequence."""
    told = read_object(folder / STATUS)  # this process has left nothing there but that it runs
    if code and told.get("state") in ENDED_BADLY:
        return int(told.get("exit_code") or 1)
    _leave(folder, state, message, code)
    return code


def _end_as_other(folder: Path, state: str, message: str, code: int) -> int:
    """Let the main process tell an error first, and tell it where that one is still at work."""
    if code and state != "stopped":
        time.sleep(SECONDS_FOR_MAIN)
        told = read_object(folder / STATUS)
        if (told.get("state"), told.get("training")) == ("running", processes.training()):
            _leave(folder, state, f"process {processes.rank()} of {processes.world()}: {message}", code)
    return code


def _leave(folder: Path, state: str, message: str, code: int) -> None:
    own = {"pid": os.getpid(), "training": processes.training(), "time": time.time()}
    write_json(folder / STATUS, {"state": state, "message": message, "exit_code": code, **own})
