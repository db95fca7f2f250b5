"""The process that cells are forked from: `python -m mae_bench.fork_server ROOM FD MODULE...` imports once what all need.

Torch, torchvision and timm take longer to import than a small cell takes to work. A cell that is forked from a process that has
them is still a process of its own: in a group of its own, with its own log, exit code and end. What a fork can break is what
threads hold, since they are not in the copy. So this process runs no model, looks at no accelerator and starts no thread, and
refuses to serve where what it has imported left one.

Messages are JSON, one in a packet. The runner says `{"start": number, "words": [MODULE, ...]}`, with the open log beside it, and
`{"signal": signal, "of": number, "group": whether}`. It is told `{"ready": fault}`, then for each start, at its end,
`{"ended": number, "code": code}`. When the runner's end is closed this process ends, and its cells, which that asks to stop,
save and stop.
"""

import contextlib
import ctypes
import gc
import json
import os
import select
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mae_bench.core.plural import counted
from mae_bench.job import PARENT, end_with_parent

LARGEST = 65536
"""Bytes of a message."""
TITLE = 1024
"""Bytes of the first word of the command line, which is there to make room for what `ps` shows of a cell."""


class Server:
    """Forks what is asked for at one end of a socket, and tells how each ended."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._running: dict[int, tuple[int, int]] = {}
        """Number and process id by the descriptor that tells of a process's end."""

    def serve(self) -> list[str] | None:
        """Serve until the other end is closed; gives None then, and in each forked process the words of its command."""
        while True:
            for ready in select.select([self._line.fileno(), *self._running], [], [])[0]:
                if ready in self._running:
                    self._end(ready)
                    continue
                text, logs, _, _ = socket.recv_fds(self._line, LARGEST, 1)
                if not text:
                    return None
                asked = json.loads(text)
                if "start" not in asked:
                    self._signal(asked)
                elif self._fork(asked["start"], logs[0]):
                    return asked["words"]

    def _fork(self, number: int, log: int) -> bool:
        """Whether this is the forked process."""
        try:
            process = os.fork()
        except OSError as error:  # no memory, or no more processes
            os.write(log, f"mae-bench: cannot start a process: {error.strerror}\n".encode())
            self._tell(ended=number, code=1)
            process = -1
        if process:
            os.close(log)
        if process > 0:
            with contextlib.suppress(OSError):  # it has done so itself, and may have ended
                os.setpgid(process, process)
            self._running[os.pidfd_open(process)] = number, process
        if process == 0:
            os.setpgid(0, 0)
            self._line.close()
            for descriptor in self._running:
                os.close(descriptor)
            for stream in (1, 2):
                os.dup2(log, stream)
            os.close(log)
            os.environ[PARENT] = str(os.getppid())
        return process == 0

    def _signal(self, asked: dict[str, Any]) -> None:
        for number, process in self._running.values():  # which are not reaped, so that no other has their numbers
            if number == asked["of"]:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if asked["group"] else os.kill)(process, asked["signal"])

    def _end(self, descriptor: int) -> None:
        number, process = self._running.pop(descriptor)
        os.close(descriptor)
        self._tell(ended=number, code=os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))

    def _tell(self, **message: int) -> None:
        self._line.send(json.dumps(message).encode())


def preload(modules: Sequence[str]) -> str:
    """Import modules; why nothing can be forked from this process then, as in "it ...", or nothing."""
    try:
        for name in modules:
            import_module(name)
        os.close(os.pidfd_open(os.getpid()))
    except (ImportError, OSError) as error:
        return f"ended by {type(error).__name__}: {error}"
    count = threads()
    gc.collect()
    gc.freeze()  # what is there stays, and no collection in a forked process copies its pages
    return f"has started {counted(count - 1, 'thread')} by what it imports" if count > 1 else ""


def threads() -> int:
    """Threads of this process that a forked one would miss; libraries that are made for it, as OpenBLAS, end theirs at a fork."""
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return len(list(Path("/proc/self/task").iterdir()))


def show(words: Sequence[str]) -> None:
    """Let `ps` show other words of this process than those it was started with, as far as these have room."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    text = "\0".join(words).encode()[: max(0, end - begin - 1)]
    if begin and text:
        ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def main(words: Sequence[str]) -> int:
    """Serve; in a forked process do what its command says. Gives the exit code."""
    end_with_parent()
    _, end, *modules = words
    line = socket.socket(fileno=int(end))
    start = [sys.executable, "-m", "mae_bench.fork_server", *modules]
    show(start)
    fault = preload(modules)
    try:
        line.send(json.dumps({"ready": fault}).encode())
        asked = None if fault else Server(line).serve()
    except ConnectionError:  # the runner is gone
        return 0
    if asked is None:
        return 0
    module, *rest = asked
    show([sys.executable, "-m", *asked])
    sys.argv = [module, *rest]
    return import_module(module).main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
