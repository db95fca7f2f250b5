"""Folders of which a process has hold: by the kernel's lock on this machine, by a claim among all that share the file system."""

import errno
import fcntl
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mae_bench import claim
from mae_bench.claim import Busy
from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.patience import patiently

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems say that have no locks; there claims alone tell."""

_held: set[tuple[int, int] | None] = set()
"""Device and number of the lock files this process holds. The kernel lets a process go that opens one again and closes it."""
_looking = threading.Lock()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, among those of this machine and of others that share the file system.

    However the process ends, the next one on this machine can have the folder at once, one on another after a while; see
    `mae_bench.claim`.

    Raises:
        Busy: another process holds it, or this one does already.
        EnvironmentFault: nothing can be written there.
    """
    with _looking:
        if _identity(folder) in _held:
            raise Busy(str(folder))
        file, lock = _take(folder)
        own = _identity(folder)
        _held.add(own)
    try:
        with _told(folder):
            held = claim.take(folder, lock)
        try:
            yield
        finally:
            held.release()
    finally:
        with _looking:
            _held.discard(own)
            file.close()


def is_locked(folder: Path) -> bool:
    """Whether a process works in the folder at this moment."""
    return bool(holder(folder))


def holder(folder: Path) -> str:
    """The machine of the process that works in the folder at this moment; empty where none does.

    Of another machine that is gone this process can only know when it has looked for long enough.
    """
    with _looking:
        own = _identity(folder)
        if own is None:
            return ""
        if own in _held:
            return socket.gethostname()
        try:
            file, lock = _take(folder)
        except EnvironmentFault:
            return ""
        with file:
            return claim.holder(folder, lock)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Device and number of a folder's lock file, whatever path leads there; None where there is none."""
    try:
        found = (folder / LOCK).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _take(folder: Path) -> tuple[IO[bytes], claim.Lock]:
    """Open and lock the lock file; a record lock is not inherited by data workers, so none of them can keep it."""
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = patiently(lambda: (folder / LOCK).open("ab"))
    try:
        patiently(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return file, "other"
    except OSError as error:
        if error.errno in NO_LOCKS:
            return file, "none"
        file.close()
        raise EnvironmentFault(f"cannot lock {folder / LOCK}: {error.strerror}; choose an -o elsewhere") from error
    return file, "mine"


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the system says of a folder that cannot be written, on one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(f"cannot write in {folder}: {error.strerror}; choose another -o") from error
