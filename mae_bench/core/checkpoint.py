"""The resumable state of a training: `last` and `prev`, of which one is whole at every moment."""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mae_bench.core import faults
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.files import sync_folder, write_json, write_with

log = logging.getLogger(__name__)

STATE = "state.pt"
MANIFEST = "manifest.json"
KEPT = ("last", "prev")
"""Folders of states, the newest first."""


@dataclass(frozen=True)
class Manifest:
    """What a saved state is of."""

    key: str
    """Digest of everything that shaped the training; a state of another key is never loaded."""
    step: int
    """Optimizer steps made."""
    seconds: float
    """Time the training has taken so far, over all its sessions."""
    sha256: str = ""
    """Of the state file."""


def save(folder: Path, state: dict[str, Any], manifest: Manifest) -> None:
    """Save a state as `last`, keeping the one before as `prev`.

    The new state is whole on disk before anything is renamed, so that a kill at any moment leaves one to go on from.

    Args:
        folder: where `last` and `prev` lie.
        state: tensors and plain values only (it is read with `weights_only`).
        manifest: its `sha256` is filled in here.

    Raises:
        EnvironmentFault: the disk is full or cannot be written; the states there are as they were.
    """
    try:
        _save(folder, state, manifest)
    except OSError as error:
        shutil.rmtree(folder / "new", ignore_errors=True)
        raise EnvironmentFault(f"cannot write {folder}: {error.strerror or error}; free space or choose another -o") from error


def _save(folder: Path, state: dict[str, Any], manifest: Manifest) -> None:
    new, last, prev = (folder / name for name in ("new", *KEPT))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    faults.visit("checkpoint.write")
    write_with(new / STATE, lambda file: torch.save(state, file))
    write_json(new / MANIFEST, asdict(manifest) | {"sha256": _sha256(new / STATE)})
    if last.exists():
        shutil.rmtree(prev, ignore_errors=True)
        last.replace(prev)
    new.replace(last)
    sync_folder(folder)


def load(folder: Path, key: str, device: torch.device) -> tuple[dict[str, Any], Manifest] | None:
    """Load the newest whole state, or None where there is none.

    Raises:
        ConfigError: the folder holds the state of a training with other settings.
    """
    for name in KEPT:
        found = _read_manifest(folder / name)
        if found is None:
            continue
        if found.key != key:
            raise ConfigError(f"{folder} holds a training with other settings; choose another -o, or remove that folder")
        if _sha256(folder / name / STATE) == found.sha256:
            state = torch.load(folder / name / STATE, map_location=device, weights_only=True)
            return state, found
        log.warning("checkpoint %s is damaged; going on from the one before", folder / name)
    if any((folder / name).exists() for name in KEPT):
        log.warning("no whole checkpoint in %s; starting from the beginning", folder)
    return None


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest whole state of whatever training it is, or None where there is none."""
    for name in KEPT:
        found = _read_manifest(folder / name)
        if found is not None and _sha256(folder / name / STATE) == found.sha256:
            return torch.load(folder / name / STATE, map_location="cpu", weights_only=True)
    return None


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest(**json.loads((folder / MANIFEST).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):
        log.warning("checkpoint manifest %s is damaged", folder / MANIFEST)
        return None


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
