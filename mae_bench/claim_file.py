"""The files that claims on a folder are: numbered, made whole by one process alone, changed in their place."""

import contextlib
import errno
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae_bench.core.patience import patiently

NAME = ".claim-"
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that cannot give a file a second name."""


@dataclass(frozen=True)
class Seen:
    """A claim as it was read."""

    number: int
    path: Path
    content: bytes

    @property
    def owner(self) -> dict[str, Any]:
        """Who made it; empty where that cannot be read."""
        try:
            found = json.loads(self.content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def claims_in(folder: Path) -> list[Seen]:
    """The claims on a folder, by number."""
    found = []
    for name in patiently(lambda: os.listdir(folder)):  # noqa: PTH208  # whose errors are told, unlike a glob's
        number, path = name.removeprefix(NAME), folder / name
        if name.startswith(NAME) and number.isdecimal():
            with contextlib.suppress(FileNotFoundError):  # let go since it was listed
                found.append(Seen(int(number), path, patiently(path.read_bytes)))
    return sorted(found, key=lambda one: one.number)


def last_in(folder: Path) -> Seen | None:
    """The claim of the highest number; None where there is none."""
    return next(reversed(claims_in(folder)), None)


def make(path: Path, content: bytes) -> bool:
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


def rewrite(path: Path, content: bytes) -> None:
    """Change a file of the same length in its place: it takes no room on a full disk, and brings back no file that is gone."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(handle, content, 0)
    finally:
        os.close(handle)


def text_of(owner: dict[str, Any], beats: int) -> bytes:
    """The content of a claim, of the same length however often it has been changed."""
    return json.dumps({**owner, "beats": f"{beats:012}"}).encode()
