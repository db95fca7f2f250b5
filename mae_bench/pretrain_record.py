"""What is written about a pretraining: the facts that shape its weights, its settings, its record."""

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

import mae_bench
from mae_bench.core import processes
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from mae_bench.core.training import Trained, Training
from mae_bench.objectives._settings import PretrainConfig
from mae_bench.pretrain_state import LOG, RECORD, SETTINGS, WEIGHTS
from tasks.handle import DataHandle

VERSIONS = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "lightly")

KEPT = (RECORD, WEIGHTS, "ckpt/last", "ckpt/prev")
"""What makes a pretraining worth keeping."""

# Settings that change how a training runs and not what comes of it.
NOT_SHAPING = ("cache", "checkpointing", "max_skipped", "probe_every")


def facts_of(objective: str, recipe: str, arch: str, data: DataHandle, config: PretrainConfig, run: Run) -> dict[str, Any]:
    """Everything that shapes the weights; two runs with equal facts make the same checkpoint."""
    if data.kind != "classification":
        raise ConfigError(f"pretraining reads image folders, and {data.name} is a {data.kind} data set; give -d folder=PATH")
    shaping = {name: value for name, value in config.model_dump(mode="json").items() if name not in NOT_SHAPING}
    return {
        "objective": objective,
        "recipe": recipe,
        "arch": arch,
        "data": data.fingerprint,
        "seed": run.seed,
        "precision": run.precision,
        "settings": shaping,
    }


def key_of(facts: Mapping[str, Any]) -> str:
    """Digest of the facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def resolved(facts: Mapping[str, Any], config: PretrainConfig, data: DataHandle) -> dict[str, Any]:
    """What `config.yaml` says: the facts, where the data lay, and with which versions it was run."""
    place = {"name": data.name, "root": str(data.root), "fingerprint": data.fingerprint}
    return {**facts, "data": place, "settings": config.model_dump(mode="json"), "versions": _versions()}


def refuse_other(out: Path, facts: Mapping[str, Any]) -> None:
    """Leave a folder alone that holds a pretraining with other settings, or some of its weights or states.

    Raises:
        ConfigError: it does; one that was stopped before its first state was saved is given up for the new settings.
    """
    path = out / SETTINGS
    if not path.exists():
        return
    try:
        there = yaml.safe_load(path.read_text())
        there = {**{name: there.get(name) for name in facts}, "data": there["data"]["fingerprint"]}
        there["settings"] = {name: value for name, value in there["settings"].items() if name not in NOT_SHAPING}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not the settings of a pretraining; choose another -o") from error
    differing = [f"{name} is {old!r} there, {new!r} here" for name, old, new in _differences(there, facts)]
    if differing and any((out / name).exists() for name in KEPT):
        raise ConfigError(f"{out} holds another pretraining: {'; '.join(differing)}; choose another -o")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    flat = [{**{k: v for k, v in side.items() if k != "settings"}, **side["settings"]} for side in (old, new)]
    names = [*flat[1], *(name for name in flat[0] if name not in flat[1])]
    return [(name, flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)]


def finished(out: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the record, which is written last, is there and is of these very weights."""
    try:
        record = json.loads((out / RECORD).read_text())
        return record["key"] == key_of(facts) and record["sha256"] == _sha256(out / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def record_of(trained: Trained, training: Training, facts: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What `pretrain.json` says of a finished run; seconds and images are of all sessions."""
    last_epoch = trained.losses[-max(1, len(training.dataset) // training.batch_size) :]
    return {
        "key": key_of(facts),
        "sha256": _sha256(run.out / WEIGHTS),
        "objective": facts["objective"],
        "recipe": facts["recipe"],
        "arch": facts["arch"],
        "data": facts["data"],
        "seed": run.seed,
        "steps": training.steps,
        "images": trained.samples,
        "seconds": trained.seconds,
        "images_per_second": trained.samples / max(trained.seconds, 1e-9),
        "final_loss": sum(last_epoch) / len(last_epoch),
        "device": run.device,
        "precision": run.precision,
        "threads": run.threads,
        "processes": processes.world(),
        "accumulate": trained.accumulate,  # more than was asked for where memory ran out
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {"mae-bench": mae_bench.__version__, "python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def log_line(run: Run, text: str) -> None:
    """Add a line to `log.txt`."""
    run.out.mkdir(parents=True, exist_ok=True)
    with (run.out / LOG).open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
