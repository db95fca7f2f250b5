"""What a finished cell leaves: one JSON file with the numbers and everything needed to get them again."""

import contextlib
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from mae_bench.core.config import Config
from mae_bench.core.patience import patiently
from results.migrations import MIGRATIONS

FILE = "record.json"
SCHEMA = 3
"""Version of the layout of the file; a reader refuses newer ones, and `results.migrations` brings older ones up to it."""

Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


class Score(Config):
    """One measured number."""

    value: float
    unit: str = "%"
    stderr: float | None = None
    """Sampling error of the evaluation set, in `unit`; None where the metric is no mean over samples."""
    ci95: tuple[float, float] | None = None
    """95 % interval of the same, in `unit` (Wilson's for accuracies)."""
    higher_is_better: bool = True


class ClassScores(Config):
    """The numbers of one class."""

    name: str
    values: dict[str, float | None]
    """In percent by metric, such as `AP_box`; None where the data have nothing of the class to find."""


class Model(Config):
    """The checkpoint that was measured, and how much of it was loaded."""

    name: str
    """Name in tables."""
    source: str
    """SRC as given on the command line."""
    sha256: str
    """Of the checkpoint file."""
    ledger: dict[str, int] = Field(default_factory=dict)
    """Number of tensors matched, converted, resized, dropped, missing."""
    arch: str = "unknown"
    method: str = "unknown"
    pretrain_data: str = "unknown"
    notes: tuple[str, ...] = ()
    """What was assumed or done on loading: `12 heads are assumed: ...`, settings that the user said, a partial load."""


class Protocol(Config):
    """How it was measured."""

    task: str
    recipe: str
    config: dict[str, Any]
    """The full settings: the recipe with the overrides in it."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """The settings that differ from the named recipe, by dotted key."""
    config_digest: str
    """Of the settings; cells of unlike digests are not comparable."""
    version: int = 1
    """Of the task's code: raised when the same settings begin to mean another number."""
    selection: str = "unknown"
    """Which weights the number is of."""


class Dataset(Config):
    """What it was measured on."""

    name: str
    """Name in tables and folders."""
    given: str
    """DATASET=PATH as given on the command line."""
    kind: str
    fingerprint: str
    counts: dict[str, int] = Field(default_factory=dict)
    """Images in `train` and `val`."""
    classes: int | None = None


class Cost(Config):
    """What it took."""

    seconds: float
    """Time of all sessions together, as it went by: features that were found ready are not in it."""
    shared_seconds: float = 0.0
    """What other cells of the output folder spent on features that this one found ready, less what it waited for them.

    Alone it would have taken `alone_seconds`, whichever cell happened to come first.
    """
    sessions: int = 1
    """Processes it took: more than one when it was interrupted."""
    images_per_second: float | None = None
    """Images that went through the backbone in the last session, by its time: training and evaluation, loading and all."""
    gflops: float | None = None
    """Billions of floating-point operations of one forward pass of the backbone for one image, two a multiply-add."""
    input_size: tuple[int, int] | None = None
    """Height and width in pixels that these are of."""
    peak_memory_mb: float | None = None
    """Largest resident memory of the last session, in MB."""
    peak_gpu_memory_mb: float | None = None
    gpus: int = 0
    """Accelerators it ran on."""
    energy_joules: float | None = None
    """Of these accelerators over all sessions, as their driver counts it; None where one does not tell."""

    @property
    def alone_seconds(self) -> float:
        """Time of the cell if no other one had shared features with it."""
        return self.seconds + self.shared_seconds

    @property
    def gpu_hours(self) -> float:
        """Hours of all its accelerators together."""
        return self.seconds * self.gpus / 3600


class Machine(Config):
    """Where it was measured, and with what."""

    device: str
    """Name of the accelerator, or `cpu`."""
    cpu: str = "unknown"
    cores: int = 1
    threads: int = 1
    precision: str = "fp32"
    platform: str = "unknown"
    python: str = "unknown"
    versions: dict[str, str] = Field(default_factory=dict)
    """Installed packages that shape a number."""
    git: str | None = None
    """Commit of the suite's checkout, with `+changes` where files differ from it."""


class Record(Config):
    """One cell, measured."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    version: int = Field(default=SCHEMA, alias="schema")
    key: str
    """Digest of everything that shapes the numbers."""
    seed: int
    date: str
    """UTC, ISO 8601, when the cell was finished."""
    metrics: dict[str, Score]
    model: Model
    protocol: Protocol
    dataset: Dataset
    cost: Cost
    machine: Machine
    deviations: tuple[str, ...] = ()
    """What differs from the protocol's own words, for example a resized position embedding."""
    classes: tuple[ClassScores, ...] = ()
    """The numbers of single classes, of tasks that have them."""


def now() -> str:
    """The date as records carry it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_record(path: Path, warn: Callable[[str], None]) -> Record | None:
    """Read one record; anything wrong with it is one warning line, and the file is left as it is.

    Args:
        path: the JSON file.
        warn: takes the warning line.

    Returns:
        The record, or None where there is none that can be read.
    """
    try:
        text = patiently(path.read_bytes)
        if (record := _parsed(text)) is not None:
            return record
        data = json.loads(text.decode(), parse_constant=_refuse)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        warn(f"{path}: not a readable record ({error}); left out")
        return None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool):
        warn(f"{path}: not a record of mae-bench (no schema number); left out")
        return None
    if schema < 1:
        warn(f"{path}: there is no schema {schema}; left out")
        return None
    if schema > SCHEMA:
        warn(f"{path}: written by a newer mae-bench (schema {schema}, this one knows {SCHEMA}); left out, upgrade to read it")
        return None
    try:
        for version in range(schema, SCHEMA):
            data = MIGRATIONS[version](data)
        return Record.model_validate(data)
    except (KeyError, TypeError, AttributeError) as error:
        warn(f"{path}: not a record of schema {schema} ({type(error).__name__}: {error}); left out")
        return None
    except ValidationError as error:
        first = error.errors()[0]
        warn(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; left out")
        return None


def accuracy_score(value: float, total: int, *, unit: str = "%", higher_is_better: bool = True) -> Score:
    """An accuracy in percent over `total` samples, with its standard error and Wilson interval.

    A value that is no whole number of right answers is not such an accuracy and gets neither.
    """
    right = value * total / 100
    if total < 1 or not 0 <= value <= 100 or abs(right - round(right)) > 1e-3:
        return Score(value=value, unit=unit, higher_is_better=higher_is_better)
    share, spread = right / total, Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Score(
        value=value,
        unit=unit,
        stderr=100 * math.sqrt(share * (1 - share) / total),
        ci95=(100 * max(0.0, centre - half), 100 * min(1.0, centre + half)),
        higher_is_better=higher_is_better,
    )


def _parsed(text: bytes) -> Record | None:
    """A record of today's schema in half the time; None for anything else, which is then looked at with care."""
    if b'"schema"' not in text or b"NaN" in text or b"Infinity" in text:
        return None
    with contextlib.suppress(ValidationError):
        if (record := Record.model_validate_json(text)).version == SCHEMA:
            return record
    return None


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")
