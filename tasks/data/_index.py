"""What was found in large files, kept so that they are listed once."""

import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.files import cache_folder, write_bytes

log = logging.getLogger(__name__)

SUFFIX = ".mae-bench-index.npz"
TEXT_END = "\0"
"""Between texts; no name in a tar has it."""

Arrays = Mapping[str, np.ndarray]


def indexed(folder: Path, name: str, files: Sequence[Path], version: int, build: Callable[[], Arrays]) -> Arrays:
    """Give what `build` finds, from the last time where the files have the sizes and times they had then.

    It is kept as `.NAME.mae-bench-index.npz` in the folder or, where that cannot be written, in the user's cache
    (`$XDG_CACHE_HOME/mae-bench` or `~/.cache/mae-bench`). It can be deleted at any time.

    Args:
        folder: of the data.
        name: of what is listed, such as `train`.
        files: on whose content the arrays depend.
        version: raised when `build` gives something else for the same files.
        build: makes the arrays; texts as `pack` makes them.
    """
    key = json.dumps([version, [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]])
    places = [folder / f".{name}{SUFFIX}", user_cache(folder / name)]
    return kept(places, key, build, f"{len(files)} files of {folder}")


def kept(places: Sequence[Path], key: str, build: Callable[[], Arrays], what: str) -> Arrays:
    """Give what `build` finds, from the last time where it was kept under the same key.

    Args:
        places: files to keep it in; the first that can be written is taken.
        key: says what it was made of.
        build: makes the arrays.
        what: is read, for the log.
    """
    for place in places:
        found = _read(place, key)
        if found is not None:
            return found
    log.info("reading %s, once", what)
    found = build()
    _keep(places, {**found, "key": pack([key])})
    return found


def user_cache(name: Path | str) -> Path:
    """File in the user's cache for a place on disk."""
    return cache_folder() / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:24]}{SUFFIX}"


def pack(texts: Iterable[str]) -> np.ndarray:
    """Texts as an array of bytes."""
    return np.frombuffer(TEXT_END.join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def unpack(array: np.ndarray) -> list[str]:
    """The texts that `pack` was given; at least one."""
    return array.tobytes().decode("utf-8", "surrogateescape").split(TEXT_END)


def _read(place: Path, key: str) -> Arrays | None:
    """What is kept; None where there is nothing, or nothing for these files."""
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as file:
            return dict(file) if unpack(file["key"]) == [key] else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s); listing again", place, error)
        return None


def _keep(places: Sequence[Path], arrays: Arrays) -> None:
    content = io.BytesIO()
    np.savez(content, **dict[str, Any](arrays))
    reasons = []
    for place in places:
        try:
            return write_bytes(place, content.getvalue())
        except EnvironmentFault as error:
            reasons.append(str(error))
    log.warning("what was read is not kept and will be read again: %s", "; ".join(reasons))
