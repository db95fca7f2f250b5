"""Files held open, so that what is hashed, checked and loaded is one and the same, whatever their paths name later."""

import hashlib
import os
import re
import stat
import threading
import weakref
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from backbones import hashes
from mae_bench.core.errors import InputError

CHUNK_BYTES = 2**20
# huggingface_hub keeps large files under their SHA-256, as the server states it, and links to them.
BLOB = re.compile(r"[0-9a-f]{64}")


class Origin(Protocol):
    """Where tensors come from."""

    @property
    def sha256(self) -> str:
        """Hex digits of the hash."""
        ...

    def verify(self) -> None:
        """See that nothing changed since it was opened; tensors that are mapped would have changed with it.

        Raises:
            InputError: a file was written to.
        """
        ...


class OpenFile:
    """A regular file, opened once and closed with the last reference to it.

    The tensors of a file may be mapped: they are its pages. Who copies them calls `verify` afterwards.
    """

    def __init__(self, path: Path) -> None:
        """Open without waiting for anything.

        Raises:
            InputError: nothing there, no permission, or something that is no file.
        """
        self.path = path
        try:
            # Without O_NONBLOCK, opening a pipe would wait for its writer.
            self.handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give the path of a checkpoint file") from error
        weakref.finalize(self, os.close, self.handle)
        target = path.resolve()
        self.promised = target.name if path.is_symlink() and target.parent.name == "blobs" and BLOB.fullmatch(target.name) else ""
        """The SHA-256 that a download is to have; empty where nobody says one."""
        self._before = os.fstat(self.handle)
        if stat.S_ISDIR(self._before.st_mode):
            raise InputError(f"{path}: a folder without model.safetensors in it; give the checkpoint file")
        if not stat.S_ISREG(self._before.st_mode):
            raise InputError(f"{path}: a pipe, device or socket, not a checkpoint file")
        self._found: str | None = None
        self._sha256: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self._before.st_size

    def reader(self) -> BufferedReader:
        """The file from its beginning."""
        file = open(self.handle, "rb", closefd=False)
        file.seek(0)
        return file

    def same(self) -> str:
        """A path to the open file itself, even if `path` names another one by now; `path` where the system has no such thing."""
        own = Path(f"/proc/self/fd/{self.handle}")
        return str(own if own.exists() else self.path)

    def verify(self) -> None:
        """See `Origin.verify`."""
        after = os.fstat(self.handle)
        if (self._before.st_size, self._before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise InputError(f"{self.path}: changed while it was read; wait until its writer is done")

    def start_hash(self) -> None:
        """Hash in a thread of its own; hashing holds no lock of Python's, so that tensors are checked meanwhile.

        A large file that was hashed before and not written to since is not hashed again.
        """
        self._found = hashes.recall(self._before) or None
        if self._found is not None:
            return
        self._thread = threading.Thread(target=self._try_hash, daemon=True)
        self._thread.start()

    @property
    def sha256(self) -> str:
        """Of the whole file as it was when it was opened; waits for the thread the first time.

        Raises:
            InputError: the file was written to before it was hashed, cannot be read, or is not what was to be downloaded.
        """
        if self._sha256 is None:
            if self._thread is not None:
                self._thread.join()
            try:
                # In a forked process the thread is not there, and nothing was left by it.
                found = self._found or self._hash()
            except OSError as error:
                raise InputError(f"{self.path}: {error.strerror} while reading; copy or download it again") from error
            self.verify()
            if self.promised not in ("", found):
                raise InputError(
                    f"{self.path}: its SHA-256 is {found}, and huggingface.co has {self.promised}; "
                    f"delete {self.path.resolve()} and download it again"
                )
            self._sha256 = found
        return self._sha256

    def _try_hash(self) -> None:
        try:
            found = self._hash()
            self.verify()
            hashes.remember(self._before, found)
            self._found = found
        except (OSError, InputError):
            self._found = None  # Who asks for it reads again, and raises.

    def _hash(self) -> str:
        """Read by position, which moves no reader."""
        digest, place, chunk = hashlib.sha256(), 0, bytearray(CHUNK_BYTES)
        view = memoryview(chunk)
        while count := os.preadv(self.handle, [chunk], place):
            digest.update(view[:count])
            place += count
        return digest.hexdigest()


class OpenFiles:
    """Several files that are one checkpoint."""

    def __init__(self, files: Sequence[OpenFile]) -> None:
        """Take files in the order that their hash depends on."""
        self._files = tuple(files)

    @property
    def sha256(self) -> str:
        """Of the hashes of the files in their order, as text, one a line."""
        return hashlib.sha256("".join(f"{file.sha256}\n" for file in self._files).encode()).hexdigest()

    def verify(self) -> None:
        """See `Origin.verify`."""
        for file in self._files:
            file.verify()
