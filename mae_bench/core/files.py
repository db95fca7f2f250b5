"""Writing files so that a reader finds the old content or the new, whatever kills the writer."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mae_bench.core.errors import EnvironmentFault


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` only when the block ends well.

    The content is on disk before the name points to it (fsync of the file, rename, fsync of the folder).

    Raises:
        EnvironmentFault: the disk is full or the folder cannot be written; `path` is as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        temporary = None
        sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror or error}; free space or choose another -o") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since JSON has none."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_with(path: Path, writer: Callable[[IO[bytes]], object]) -> None:
    """Write atomically what `writer` puts into the open file, such as `torch.save` or an image's `save`."""
    with atomic(path) as file:
        try:
            writer(file)
        except RuntimeError as error:
            # torch.save hides what went wrong with the disk behind an error of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def cache_folder() -> Path:
    """The suite's folder in the user's cache: `$XDG_CACHE_HOME/mae-bench`, or `~/.cache/mae-bench` where that is no whole path.

    Raises:
        RuntimeError: nobody says where the user's home is.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "mae-bench"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
