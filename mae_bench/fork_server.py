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
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
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
        self._running: dict[int, tuple[int, ForkProcess]] = {}
        """Number and process by the descriptor that tells of its end."""

    def serve(self) -> None:
        """Serve until the other end is closed."""
        while True:
            for ready in select.select([self._line.fileno(), *self._running], [], [])[0]:
                if ready in self._running:
                    self._end(ready)
                    continue
                text, logs, _, _ = socket.recv_fds(self._line, LARGEST, 1)
                if not text:
                    return
                asked = json.loads(text)
                if "start" in asked:
                    self._fork(asked["start"], asked["words"], logs[0])
                else:
                    self._signal(asked)

    def _fork(self, number: int, words: list[str], log: int) -> None:
        process = get_context("fork").Process(target=self._work, args=(words, log))
        try:
            process.start()
        except OSError as error:  # no memory, or no more processes
            os.write(log, f"mae-bench: cannot start a process: {error.strerror}\n".encode())
            self._tell(ended=number, code=1)
            return
        finally:
            os.close(log)
        with contextlib.suppress(OSError):  # it has done so itself, and may have ended
            os.setpgid(_pid(process), _pid(process))
        self._running[process.sentinel] = number, process

    def _work(self, words: list[str], log: int) -> None:
        """In the forked process: do what a command says, and end with its exit code."""
        os.setpgid(0, 0)
        self._line.close()  # whose closing tells the runner that this process's parent is gone
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        os.environ[PARENT] = str(os.getppid())
        show([sys.executable, "-m", *words])
        sys.argv = list(words)
        sys.exit(import_module(words[0]).main(words[1:]))

    def _signal(self, asked: dict[str, Any]) -> None:
        for number, process in self._running.values():
            if number == asked["of"] and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if asked["group"] else os.kill)(_pid(process), asked["signal"])

    def _end(self, sentinel: int) -> None:
        number, process = self._running.pop(sentinel)
        process.join()
        self._tell(ended=number, code=process.exitcode or 0)
        process.close()

    def _tell(self, **message: int) -> None:
        self._line.send(json.dumps(message).encode())


def _pid(process: ForkProcess) -> int:
    assert process.pid is not None, "it was started"
    return process.pid


def preload(modules: Sequence[str]) -> str:
    """Import modules; why nothing can be forked from this process then, as in "it ...", or nothing."""
    try:
        for name in modules:
            import_module(name)
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


def main(words: Sequence[str]) -> None:
    """Serve until the runner is gone, and end at once then: cells that still run are to save, not to be waited for."""
    end_with_parent()
    _, end, *modules = words
    line = socket.socket(fileno=int(end))
    show([sys.executable, "-m", "mae_bench.fork_server", *modules])
    fault = preload(modules)
    with contextlib.suppress(ConnectionError):
        line.send(json.dumps({"ready": fault}).encode())
        if not fault:
            Server(line).serve()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
