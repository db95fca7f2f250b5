"""Starting cells as forks of one process that has imported what they need; see `mae_bench.fork_server`."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mae_bench.fork_server import LARGEST, TITLE
from mae_bench.job import PARENT
from mae_bench.jobs import LOG, Job
from mae_bench.processes import Command, Here, Process, Start, start_here

FORKED = ("mae_bench.cell",)
"""Modules of which a command is run in a forked process: `main` takes its words and gives the exit code."""
PRELOADED = (
    "torchvision",
    "timm",
    "torch.utils.flop_counter",
    "mae_bench.cell",
    "mae_bench.choose",
    "mae_bench.core.engine",
    "mae_bench.environment",
    "backbones.source",
    "tasks.common.bank",
    "tasks.common.classifiers",
    "tasks.handle",
)
"""What every cell imports, or nearly so; what single tasks need beyond it they import themselves."""
KILL_SECONDS = 10.0
"""Time that the server has for a kill before it is killed itself."""


@contextmanager
def forking(device: str, modules: Sequence[str] | None = None) -> Iterator[Start]:
    """A way to start jobs: cells as forks of one process, all else by itself.

    An accelerator cannot be used both in a process and in its fork, and systems other than Linux have no way for a process to end
    with the one it comes from; there all are started by themselves.
    """
    if device != "cpu" or not sys.platform.startswith("linux"):
        yield start_here
        return
    forks = Forks(PRELOADED if modules is None else modules)
    try:
        yield forks.start
    finally:
        forks.close()


class Forks:
    """Starts cells as forks of a server, which is there from the first cell on and begun anew when something has killed it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._server: Server | None = None
        self._environment: dict[str, str] = {}

    def start(self, job: Job, environment: Mapping[str, str]) -> Process:
        """Start a job on this machine."""
        interpreter, flag, *words = job.command
        server = self._server_for(environment) if (interpreter, flag) == (sys.executable, "-m") and words[0] in FORKED else None
        return (
            start_here(job, environment)
            if server is None
            else Forked(server, Command(job.command, job.folder / LOG, environment))
        )

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()

    def _server_for(self, environment: Mapping[str, str]) -> "Server | None":
        """The server, unless it cannot serve or was started with another environment."""
        if self._server is not None and self._server.is_over() and self._server.ready:  # something has killed it
            self._server.close()
            self._server = None
        if self._server is None:
            self._server, self._environment = Server(environment, self._modules), dict(environment)
        return None if self._server.is_over() or self._environment != dict(environment) else self._server


class Server:
    """This program's side of the process that cells are forked from."""

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str]) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setblocking(False)
        self.ready = False
        self._gone = False
        self.fault = "ended while it was importing"
        """Why it is gone, where it has never been ready."""
        self._ended: dict[int, int] = {}
        self._count = 0
        words = (sys.executable, "-m", "mae_bench.fork_server", " " * TITLE, str(theirs.fileno()), *modules)
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment, PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            process_group=0,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def fork(self, words: Sequence[str], log: int) -> int:
        """Ask for a process that does what a command says; gives its number."""
        self._count += 1
        message = json.dumps({"start": self._count, "words": list(words)}).encode()
        self._send(lambda: socket.send_fds(self._line, [message], [log]))
        return self._count

    def signal(self, number: int, what: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to a forked process, or to its group."""
        message = json.dumps({"signal": int(what), "of": number, "group": group}).encode()
        self._send(lambda: self._line.send(message))

    def code(self, number: int) -> int | None:
        """The exit code of a forked process, or None while there is none."""
        self.is_over()
        return self._ended.get(number)

    def is_over(self) -> bool:
        """Take what has been told; whether the server has ended, or is about to."""
        while not self._gone:
            try:
                text = self._line.recv(LARGEST)
            except BlockingIOError:
                break
            except ConnectionResetError:  # it has ended without reading all; what it told before can still be had
                continue
            self._take(json.loads(text or b"{}"))
        return self._gone

    def wait(self, seconds: float) -> None:
        """Wait until something is told, at most for so long."""
        select.select([self._line], [], [], seconds)

    def close(self) -> None:
        """Let the server end."""
        self._line.close()
        try:
            self.process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _take(self, told: Mapping[str, object]) -> None:
        match told:
            case {"ready": str(fault)}:
                self.ready, self.fault = not fault, fault
            case {"ended": int(number), "code": int(code)}:
                self._ended[number] = code
            case _:
                self._gone = True

    def _send(self, send: Callable[[], object]) -> None:
        try:
            send()
        except (BlockingIOError, ConnectionError):  # it takes nothing any more
            self.process.kill()


class Forked:
    """A job's process on this machine that was forked from a server."""

    def __init__(self, server: Server, command: Command) -> None:
        self._server, self._command = server, command
        self._instead: Here | None = None
        self._stopped: signal.Signals | None = None
        """By what it was ended before there was anything to end."""
        with command.open_log() as log:
            self._number = server.fork(command.words[2:], log.fileno())

    def poll(self) -> int | None:
        """The exit code, or None while it runs.

        Where the server was killed the code is lost: the process was asked to stop by that, and counts as killed. Where there
        never was one, the job is started by itself.
        """
        if self._instead is not None:
            return self._instead.poll()
        code = self._server.code(self._number)
        if code is not None or not self._server.is_over():
            return code
        if self._server.ready:
            return -signal.SIGKILL
        if self._stopped is not None:
            return -self._stopped
        self._instead = Here(self._command.start(f"not forked: the process to fork from {self._server.fault}"))
        return None

    def terminate(self) -> None:
        """Ask it to save and stop."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End its whole group."""
        self._end(signal.SIGKILL)
        until = time.monotonic() + KILL_SECONDS
        while self.poll() is None:
            if time.monotonic() > until:
                self._server.process.kill()
            self._server.wait(0.1)

    def _end(self, what: signal.Signals) -> None:
        if self._instead is not None:
            self._instead.kill() if what == signal.SIGKILL else self._instead.terminate()
            return
        self._stopped = what
        if self._server.is_over() or not self._server.ready:
            self._server.process.kill()
        else:
            self._server.signal(self._number, what, group=what == signal.SIGKILL)
