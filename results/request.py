"""What a cell was asked to measure: `config.yaml` of its folder, enough to run it again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from mae_bench.core.config import Config
from mae_bench.core.files import write_text

FILE = "config.yaml"
MOST_SHOWN = 40
"""Characters of changed settings in a title."""
LONGEST_KEY = 100
"""Bytes in which the line of a key ends."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Builds plain values only; the C one is ten times faster where PyYAML has it."""


class Request(Config):
    """One cell to measure."""

    key: str
    """`cell_key` of everything that shapes the numbers."""
    model: str
    """Name in tables."""
    source: str
    """NAME=SRC, paths absolute."""
    sha256: str
    """Of the checkpoint file."""
    task: str
    recipe: str
    config: dict[str, Any]
    """Settings of the task: the recipe with the overrides in it."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """The settings that differ from the named recipe."""
    config_digest: str
    """Of the settings."""
    version: int = 1
    """Of the task's code."""
    data: str
    """DATASET=PATH, the path absolute."""
    dataset: str
    """Name in tables and folders."""
    fingerprint: str
    """Of the data set."""
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    workers: int = 0
    save_seconds: float = 60.0
    max_skipped: float = 0.001
    """Share of the training images that may be damaged and left out; the record says how many were."""
    debug: bool = False
    partial: bool = False
    """Whether tensors that the checkpoint lacks started at random."""
    export_native: bool = False
    """Whether the native config of the cell is to be written beside its record."""
    room: str = "tasks.suite"
    """Package that holds the task's file."""

    @property
    def title(self) -> str:
        """The cell in displays."""
        how = f"{self.task}:{self.recipe}{changed(self.changes, self.config_digest)}"
        return f"{self.model} {how} {self.dataset} seed {self.seed}"

    def key_in(self, precision: str) -> str:
        """The key this cell has when it is measured in some precision."""
        return cell_key(
            sha256=self.sha256,
            task=self.task,
            digest=self.config_digest,
            fingerprint=self.fingerprint,
            seed=self.seed,
            version=self.version,
            precision=precision,
            partial=self.partial,
        )


def changed(changes: Mapping[str, Any], digest: str) -> str:
    """Changed settings behind the name of a recipe, by which the cells of a sweep are told apart; long ones by their digest."""
    text = ", ".join(f"{name}={value}" for name, value in changes.items())
    return f"[{text if len(text) <= MOST_SHOWN else digest[:8]}]" if text else ""


def cell_key(
    *,
    sha256: str,
    task: str,
    digest: str,
    fingerprint: str,
    seed: int,
    version: int,
    precision: str | None = "fp32",
    partial: bool = False,
) -> str:
    """Digest of everything that shapes the numbers of a cell: equal keys, equal numbers.

    Args:
        sha256: of the checkpoint.
        task: its name.
        digest: of the settings.
        fingerprint: of the data set.
        seed: of the cell.
        version: of the task's code.
        partial: whether weights that the checkpoint lacks started at random.
        precision: of the computation; None gives the key of records of schema 1, which left it out.
    """
    facts = [sha256, task, digest, fingerprint, seed, version, *([precision] if precision is not None else [])]
    facts += ["loaded in part"] if partial else []
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_key(folder: Path) -> str | None:
    """The key of a cell's request without reading all of it, which takes a hundred times as long."""
    try:
        with (folder / FILE).open("rb", buffering=0) as file:
            word, _, value = file.read(LONGEST_KEY).partition(b"\n")[0].decode().partition(":")
    except (OSError, UnicodeDecodeError):
        return None
    return value.strip().strip("'\"") if word == "key" else None


def write_request(folder: Path, request: Request) -> None:
    """Leave a cell's request in its folder."""
    write_text(folder / FILE, yaml.safe_dump(request.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def read_request(folder: Path, warn: Callable[[str], None]) -> Request | None:
    """Read a cell's request; a broken one is one warning line."""
    path = folder / FILE
    try:
        return _upgraded(Request.model_validate(yaml.load(path.read_text(encoding="utf-8"), LOADER)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError, ValidationError, RecursionError) as error:
        warn(f"{path}: not a readable request of a cell ({type(error).__name__}); left out")
        return None


def _upgraded(request: Request) -> Request:
    """A request from before the precision was part of the key, with the key it has now."""
    facts = {name: getattr(request, name) for name in ("sha256", "task", "fingerprint", "seed", "version")}
    if request.key != cell_key(**facts, digest=request.config_digest, precision=None):
        return request
    return request.model_copy(update={"key": request.key_in(request.precision)})
