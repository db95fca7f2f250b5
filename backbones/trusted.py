"""Files whose code the user trusts, by their hash: unpickled in a process that hands over tensors and nothing else."""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones.archives import Content, content_of
from backbones.opened import OpenFile
from backbones.reading import RawCheckpoint, located
from mae_bench.core.errors import ConfigError, InputError

CHILD = Path(__file__).with_name("trusted_child.py")
HASH = re.compile(r"[0-9a-fA-F]{64}")


def read_trusted(path: Path, sha256: str, *, ckpt_key: str = "") -> RawCheckpoint:
    """Read a pickle of any objects, if it is the file that is trusted.

    The code in the file runs, in a process of its own with the user's rights; that is what trust means here.

    Args:
        path: what `torch.save` or `pickle` wrote.
        sha256: all 64 hex digits of the hash, as its maker gives it.
        ckpt_key: see `reading.read`.

    Raises:
        ConfigError: no whole hash.
        InputError: another file than the one that is trusted, or one that has no named tensors.
    """
    if not HASH.fullmatch(sha256):
        raise ConfigError(f"{sha256!r} is no SHA-256: 64 hex digits are needed, and all of them; see: sha256sum FILE")
    file = OpenFile(path)
    if file.sha256 != sha256.lower():
        raise InputError(f"{path}: its SHA-256 is {file.sha256}, not the trusted one; nothing of it was run")
    content = _converted(file)
    raw = located(path, file, [file], content, ckpt_key)
    return replace(raw, notes=(*raw.notes, f"unpickled in full, in a process of its own, by --trust-pickle {file.sha256}"))


def _converted(file: OpenFile) -> Content:
    with tempfile.TemporaryDirectory(prefix="mae-bench-") as folder:
        out = Path(folder) / "tensors.safetensors"
        handle = os.open(file.same(), os.O_RDONLY)
        try:
            command = [sys.executable, "-I", "-W", "ignore", str(CHILD), str(handle), str(out)]
            done = subprocess.run(command, pass_fds=[handle], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        finally:
            os.close(handle)
        file.verify()
        if done.returncode or not out.exists():
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it wrote nothing"])[-1]
            raise InputError(f"{file.path}: cannot be unpickled ({last[:200]}); ask its maker for the weights alone")
        # The tensors are mapped, and stay so when the folder is gone.
        numbered, header = content_of(OpenFile(out))
    return _nested(numbered, json.loads(header["paths"])), {}


def _nested(numbered: dict[str, Any], paths: list[list[str]]) -> dict[str, Any]:
    """Tensors under the keys they had."""
    content: dict[str, Any] = {}
    for number, path in enumerate(paths):
        here = content
        for key in path[:-1]:
            here = here.setdefault(key, {})
        here[path[-1] if path else "tensor"] = numbered[str(number)]
    return content
