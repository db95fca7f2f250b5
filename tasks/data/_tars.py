"""Members of tar files by their place, so that each can be read without the ones before it."""

import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from mae_bench.core.errors import InputError
from tasks.images import patiently

OPEN_FILES = 32
"""Tar files that one process keeps open."""
BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """A plain file in a tar."""

    name: str
    offset: int
    """Of its content, in bytes from the beginning of the outermost file."""
    size: int


def members(path: Path) -> Iterator[Member]:
    """List the plain files of an uncompressed tar.

    Raises:
        InputError: it is no such tar, or cut off.
    """
    with _opened(path) as handle:
        yield from walk(handle, 0, os.fstat(handle).st_size, str(path))


def inner_members(path: Path) -> Iterator[tuple[Member, Iterator[Member]]]:
    """List the tars in a tar, and the files of each.

    Raises:
        InputError: one of them is no tar, or cut off.
    """
    with _opened(path) as handle:
        for outer in walk(handle, 0, os.fstat(handle).st_size, str(path)):
            yield outer, walk(handle, outer.offset, outer.size, f"{path}:{outer.name}")


def walk(handle: int, start: int, size: int, name: str) -> Iterator[Member]:
    """List the files of a tar that is a part of an open file.

    Args:
        handle: file descriptor.
        start: of the tar, in bytes.
        size: of the tar, in bytes.
        name: in messages.

    Raises:
        InputError: see `members`.
    """
    window = _Window(handle, start, size)
    try:
        with tarfile.TarFile(fileobj=window, mode="r") as tar:  # type: ignore[arg-type]  # reads, seeks and tells
            while (info := tar.next()) is not None:
                cast(Any, tar).members.clear()  # else a million headers stay in memory
                if info.issparse():
                    raise InputError(f"{name}: {info.name} is stored with holes; pack it anew without --sparse")
                if info.isfile():
                    yield Member(info.name, start + info.offset_data, info.size)
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is no plain tar, or cut off ({error}); fetch or pack it anew") from error
    # Python takes the end of the file, and a damaged header, for the end of the tar; a whole one ends in zeros.
    window.seek(end)
    if window.read(BLOCK) != bytes(BLOCK):
        raise InputError(f"{name} is cut off or damaged after {end} bytes; fetch or pack it anew")


class TarReader:
    """Reads parts of files, and keeps some of them open; safe in processes that are forked."""

    def __init__(self) -> None:
        self._handles: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Read a part of a file.

        Raises:
            InputError: the file cannot be read, or ends before.
        """
        try:
            content = patiently(lambda: os.pread(self._handle(path), size, offset))
        except OSError as error:
            self._handles.pop(path, None)
            raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from error
        if len(content) < size:
            raise InputError(f"{path} ends before byte {offset + size}; it was cut after it was indexed: fetch it anew")
        return content

    def _handle(self, path: Path) -> int:
        if path not in self._handles:
            if len(self._handles) >= OPEN_FILES:
                os.close(self._handles.popitem(last=False)[1])
            self._handles[path] = os.open(path, os.O_RDONLY)
        self._handles.move_to_end(path)
        return self._handles[path]

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)


class _Window:
    """A part of an open file as a file of its own."""

    def __init__(self, handle: int, start: int, size: int) -> None:
        self._handle, self._start, self._size, self._place = handle, start, size, 0

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        content = os.pread(self._handle, left if count < 0 else min(count, left), self._start + self._place)
        self._place += len(content)
        return content

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def tell(self) -> int:
        return self._place


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)
