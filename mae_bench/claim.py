"""A claim on a folder: which process of which machine works in it, and that it still does.

The kernel's lock tells of other processes of this machine, and ends with them. Of other machines on a shared file system it may
tell nothing, and some file systems have no locks. So who works in a folder leaves a claim there too, a file that it changes every
`BEAT_SECONDS`. A claim that has not changed while somebody watched it for `STALE_SECONDS` is of a machine that is gone, and is
taken over. Only changes count, seen by the watcher's own monotonic clock: no time is ever written down or compared, so that a
wrong or changing clock takes nothing from anybody.

Claims are numbered. To take one over is to make the file of the next number, which one process alone can do, and to look again.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mae_bench.claim_file import NAME, Seen, claims_in, last_in, make, rewrite, text_of
from mae_bench.core.patience import patiently
from mae_bench.living import here, lives

BUSY = 76
"""Exit code: another process works in the folder, or has just changed what is to be done there; try again later."""
BEAT_SECONDS = 30.0
STALE_SECONDS = 600.0

Lock = Literal["mine", "other", "none"]
"""The kernel's lock of the folder: this process's, somebody's, or there are no locks here."""

_watched: dict[str, tuple[bytes, float]] = {}
"""What this process has seen in claims of other machines, and since when."""


class Busy(Exception):
    """Another process holds the folder."""


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
                rewrite(self._path, text_of(self._owner, self._beats))
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
    before = last_in(folder)
    if (before is None and lock == "other") or (before is not None and not _is_over(before, lock)):
        raise Busy(str(folder))
    owner = {**here(), "token": secrets.token_hex(8)}
    path = folder / f"{NAME}{1 if before is None else before.number + 1}"
    if not make(path, text_of(owner, 0)):
        raise Busy(str(folder))
    # Meanwhile another process may have taken the old claim over, finished and let go, and a third one may have begun.
    others = [one for one in claims_in(folder) if one.path != path]
    if any(before is None or one.number > before.number or one.content != before.content for one in others):
        path.unlink(missing_ok=True)
        raise Busy(str(folder))
    for one in others:
        one.path.unlink(missing_ok=True)
        _watched.pop(str(one.path), None)
    return Claim(path, owner, lost or _quit).start()


def holder(folder: Path, lock: Lock) -> str:
    """The machine that may work in a folder; empty where none does."""
    seen = last_in(folder)
    if seen is None:
        return socket.gethostname() if lock == "other" else ""
    return "" if _is_over(seen, lock) else str(seen.owner.get("host", "another machine"))


def _is_over(seen: Seen, lock: Lock) -> bool:
    """Whether who made a claim is gone."""
    owner, own = seen.owner, here()
    if owner.get("boot") == own["boot"] and own["boot"]:
        if lock == "mine":  # which its maker would hold
            return True
        if owner.get("space") == own["space"]:
            return not lives(owner.get("pid"), owner.get("started"))
    return _unchanged(seen) >= STALE_SECONDS


def _unchanged(seen: Seen) -> float:
    """For how long this process has seen nothing else in a claim."""
    key = str(seen.path)
    if key not in _watched or _watched[key][0] != seen.content:
        _watched[key] = seen.content, time.monotonic()
    return time.monotonic() - _watched[key][1]


def _quit(folder: Path) -> None:
    """End this process, which stood still for so long that another one has taken its place."""
    sys.stderr.write(f"mae-bench: another process has taken over {folder}, since this one stood still\n")
    sys.stderr.flush()
    os._exit(BUSY)
