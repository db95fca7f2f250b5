"""SHA-256 of large files, kept beside what tells whether a file was written to since: it is hashed once and not in every load.

In `$XDG_CACHE_HOME/mae-bench/sha256` (`~/.cache` else), a file of JSON each. What cannot be read or written there is done
without: the file is hashed then.
"""

import json
import os
import re
import time
from pathlib import Path

from mae_bench.core.errors import EnvironmentFault
from mae_bench.core.files import cache_folder, write_json

SMALLEST = 2**26
"""Bytes of the smallest file that is worth it: 64 MiB are hashed in 0.1 s."""
SETTLED_NS = 2 * 10**9
"""How long a file must have been at rest when it is hashed: a write within the same tick of the clock would not be seen."""
HASH = re.compile(r"[0-9a-f]{64}")


def recall(stat: os.stat_result) -> str:
    """The hash of a file that is as it was when it was hashed; empty where none is known."""
    if stat.st_size < SMALLEST:
        return ""
    try:
        told = json.loads(_place(stat).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return ""
    same = isinstance(told, dict) and told.get("state") == _state(stat)
    sha256 = told.get("sha256") if same else None
    return sha256 if isinstance(sha256, str) and HASH.fullmatch(sha256) else ""


def remember(stat: os.stat_result, sha256: str) -> None:
    """Keep the hash of a file that was as `stat` says before and after it was hashed."""
    if stat.st_size < SMALLEST or time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED_NS:
        return
    try:
        _place(stat).parent.mkdir(parents=True, exist_ok=True)
        write_json(_place(stat), {"state": _state(stat), "sha256": sha256})
    except (OSError, RuntimeError, EnvironmentFault):
        return


def _state(stat: os.stat_result) -> list[int]:
    """What changes with every write; no program can set the last of them."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _place(stat: os.stat_result) -> Path:
    return cache_folder() / "sha256" / f"{stat.st_dev:x}-{stat.st_ino:x}.json"
