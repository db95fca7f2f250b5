"""A claim on a folder: which process of which machine works in it, and that it still does.

The kernel's lock tells of other processes of this machine, and ends with them. Of other machines on a shared file system it may
tell nothing, and some file systems have no locks. So who works in a folder leaves a claim there too, a file that it changes every
`BEAT_SECONDS`. A claim that has not changed while somebody watched it for `STALE_SECONDS` is of a machine that is gone, and is
taken over. Only changes count, seen by the watcher's own monotonic clock: no time is ever written down or compared, so that a
wrong or changing clock takes nothing from anybody.

Claims are numbered. To take one over is to make the file of the next number, which one process alone can do, and to look again.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mae_bench.core.patience import patiently

BUSY = 76
"""Exit code: another process works in the folder, or has just changed what is to be done there; try again later."""
NAME = ".claim-"
BEAT_SECONDS = 30.0
STALE_SECONDS = 600.0
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that cannot give a file a second name."""

Lock = Literal["mine", "other", "none"]
"""The kernel's lock of the folder: this process's, somebody's, or there are no locks here."""

_watched: dict[str, tuple[bytes, float]] = {}
"""What this process has seen in claims of other machines, and since when."""


class Busy(Exception):
    """Another process holds the folder."""


@dataclass(frozen=True)
class _Seen:
    number: int
    path: Path
    content: bytes

    @property
    def owner(self) -> dict[str, Any]:
        try:
            found = json.loads(self.content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Claim:
    """A claim of this process, kept alive by a thread."""

    def __init__(self, path: Path, owner: dict[str, Any], lost: Callable[[Path], None]) -> None:
        self._path, self._owner, self._lost = path, owner, lost
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._beats = 0

    def start(self) -> "Claim":
        """Begin to beat."""
        self._thread.start()
        return self

    def release(self) -> None:
        """Let go; a claim that somebody has taken over is theirs, and one that cannot be removed goes stale."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # what was done in the folder is done
            if patiently(self._is_there):
                patiently(lambda: self._path.unlink(missing_ok=True))

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                if not self._is_there():
                    return self._lost(self._path.parent)
                self._beats += 1
                _rewrite(self._path, _text(self._owner, self._beats))
            except OSError:  # the file system is away; the next beat comes
                continue

    def _is_there(self) -> bool:
        try:
            there = json.loads(self._path.read_bytes() or b"{}")
        except FileNotFoundError:
            return False
        except ValueError:  # torn by a fault of the file system; the name is still this claim's
            return True
        return not there or there.get("token") == self._owner["token"]


def take(folder: Path, lock: Lock, lost: Callable[[Path], None] | None = None) -> Claim:
    """Claim a folder for this process.

    Args:
        folder: exists.
        lock: what the kernel says.
        lost: called when somebody has taken the claim over, since this process stood still for so long; it ends this process.

    Raises:
        Busy: another process holds it, or may.
    """
    before = _last(folder)
    if (before is None and lock == "other") or (before is not None and not _is_over(before, lock)):
        raise Busy(str(folder))
    owner = {**_here(), "token": secrets.token_hex(8)}
    path = folder / f"{NAME}{1 if before is None else before.number + 1}"
    if not _make(path, _text(owner, 0)):
        raise Busy(str(folder))
    # Meanwhile another process may have taken the old claim over, finished and let go, and a third one may have begun.
    others = [one for one in _all(folder) if one.path != path]
    if any(before is None or one.number > before.number or one.content != before.content for one in others):
        path.unlink(missing_ok=True)
        raise Busy(str(folder))
    for one in others:
        one.path.unlink(missing_ok=True)
        _watched.pop(str(one.path), None)
    return Claim(path, owner, lost or _quit).start()


def holder(folder: Path, lock: Lock) -> str:
    """The machine that may work in a folder; empty where none does."""
    seen = _last(folder)
    if seen is None:
        return socket.gethostname() if lock == "other" else ""
    return "" if _is_over(seen, lock) else str(seen.owner.get("host", "another machine"))


def _is_over(seen: _Seen, lock: Lock) -> bool:
    """Whether who made a claim is gone."""
    owner, here = seen.owner, _here()
    if owner.get("boot") == here["boot"] and here["boot"]:
        if lock == "mine":  # which its maker would hold
            return True
        if owner.get("space") == here["space"]:
            return not _lives(owner.get("pid"), owner.get("started"))
    return _unchanged(seen) >= STALE_SECONDS


def _unchanged(seen: _Seen) -> float:
    """For how long this process has seen nothing else in a claim."""
    key = str(seen.path)
    if key not in _watched or _watched[key][0] != seen.content:
        _watched[key] = seen.content, time.monotonic()
    return time.monotonic() - _watched[key][1]


def _all(folder: Path) -> list[_Seen]:
    found = []
    for name in patiently(lambda: os.listdir(folder)):  # noqa: PTH208  # whose errors are told, unlike a glob's
        number, path = name.removeprefix(NAME), folder / name
        if name.startswith(NAME) and number.isdecimal():
            with contextlib.suppress(FileNotFoundError):  # let go since it was listed
                found.append(_Seen(int(number), path, patiently(path.read_bytes)))
    return sorted(found, key=lambda one: one.number)


def _last(folder: Path) -> _Seen | None:
    return next(reversed(_all(folder)), None)


def _make(path: Path, content: bytes) -> bool:
    """Make a file with its content at once; False where there is one."""
    draft = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        patiently(lambda: draft.write_bytes(content))
        return _link(draft, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _make_without_links(path, content)
    finally:
        draft.unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> bool:
    try:
        patiently(lambda: os.link(draft, path))
    except FileExistsError:  # perhaps made by this very call, whose first answer a server has lost
        return draft.stat().st_nlink > 1
    return True


def _make_without_links(path: Path, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return True


def _rewrite(path: Path, content: bytes) -> None:
    """Change a file of the same length in its place: it takes no room on a full disk, and brings back no file that is gone."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(handle, content, 0)
    finally:
        os.close(handle)


def _text(owner: dict[str, Any], beats: int) -> bytes:
    return json.dumps({**owner, "beats": f"{beats:012}"}).encode()


def _here() -> dict[str, Any]:
    """This process among all of all machines."""
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id") or f"{sys.platform} {socket.gethostname()}",
        "space": _target("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _lives(pid: object, started: object) -> bool:
    """Whether a process of this machine is the one that had this number then."""
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(pid) == started


def _started(pid: int) -> str:
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


def _quit(folder: Path) -> None:
    """End this process, which stood still for so long that another one has taken its place."""
    sys.stderr.write(f"mae-bench: another process has taken over {folder}, since this one stood still\n")
    sys.stderr.flush()
    os._exit(BUSY)
