"""Which process of which machine this is, and whether another one of this machine still lives."""

import os
import socket
import sys
from pathlib import Path
from typing import Any


def here() -> dict[str, Any]:
    """This process among all of all machines."""
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id") or f"{sys.platform} {socket.gethostname()}",
        "space": _target("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": started_at(os.getpid()),
    }


def lives(pid: object, started: object) -> bool:
    """Whether a process of this machine is the one that had this number then."""
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started_at(pid) == started


def started_at(pid: int) -> str:
    """When a process was started, in the kernel's ticks since the machine was; empty where the kernel does not tell."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115  # not a file's path
    except OSError:
        return ""
