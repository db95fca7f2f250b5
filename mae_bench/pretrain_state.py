"""How far a pretraining is, read from the files in its folder; no torch is loaded."""

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mae_bench.choose import changes_of
from mae_bench.core import find, metrics
from mae_bench.core.config import build
from mae_bench.core.errors import MaeBenchError
from mae_bench.core.progress import FILE as PROGRESS
from mae_bench.core.wording import shown
from mae_bench.lines import duration
from mae_bench.listing import OBJECTIVES
from mae_bench.locks import is_locked
from results.store import STATUS, read_object

SETTINGS, RECORD, WEIGHTS, LOG = "config.yaml", "pretrain.json", "model.safetensors", "log.txt"
"""Files that a pretraining leaves."""
PATTERNS = ("", "*/", "*/*/")
"""How deep below an output folder pretrainings are looked for."""
TAIL = 65_536
"""Bytes at the end of a file of numbers among which the last loss is."""


@dataclass(frozen=True)
class PretrainState:
    """One pretraining as its files tell."""

    folder: Path
    facts: dict[str, Any]
    """What `config.yaml` says."""
    record: dict[str, Any] = field(default_factory=dict)
    """Of a finished one."""
    status: dict[str, Any] = field(default_factory=dict)
    """How its last process ended, or that it runs."""
    progress: dict[str, Any] = field(default_factory=dict)
    running: bool = False
    saved_step: int | None = None
    """Steps made by the newest saved state; None where there is none."""
    saved_seconds: float = 0.0
    """Time they took."""
    last: dict[str, Any] = field(default_factory=dict)
    """The last line of numbers with a loss."""

    @property
    def title(self) -> str:
        """What it is."""
        facts = self.facts
        place = facts["data"].get("root", "?") if isinstance(facts.get("data"), dict) else "?"
        return f"{facts['objective']}:{facts.get('recipe')} of {facts['arch']} on {place}, seed {facts.get('seed')}"

    @property
    def state(self) -> str:
        """`finished`, `running`, `stopped` by a signal or a clock, `failed`, `diverged`, or `interrupted`: ended by a kill."""
        if self.running:
            return "running"
        if self.record:
            return "finished"
        told = self.status.get("state")
        return str(told) if told in ("failed", "diverged", "stopped") else "interrupted"

    @property
    def step(self) -> int:
        """Steps made, as far as the files tell."""
        return int(self.last.get("step", -1)) + 1 if self.last else self.saved_step or 0

    @property
    def steps(self) -> int | None:
        """Steps of the whole training; None where no file tells."""
        total = self.record.get("steps") or self.progress.get("total")
        return int(total) if isinstance(total, int) and total > 0 else None


def find_pretrainings(out: Path) -> list[PretrainState]:
    """The pretrainings in an output folder, or up to two levels below it."""
    files = [path for pattern in PATTERNS for path in sorted(out.glob(f"{pattern}{SETTINGS}"))]
    return [found for path in files if (found := read_state(path.parent)) is not None]


def read_state(folder: Path, *, running: bool | None = None) -> PretrainState | None:
    """The state of the pretraining in a folder; None where there is none.

    Args:
        folder: where it is.
        running: whether a process works on it, where that is known; else its lock tells.
    """
    try:
        facts = yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(facts, dict) or not {"objective", "arch", "settings"} <= set(facts):
        return None
    manifests = [read_object(folder / "ckpt" / name / "manifest.json") for name in ("last", "prev")]
    saved = next((one for one in manifests if isinstance(one.get("step"), int)), {})
    return PretrainState(
        folder,
        facts,
        record=read_object(folder / RECORD) if (folder / WEIGHTS).is_file() else {},
        status=read_object(folder / STATUS),
        progress=read_object(folder / PROGRESS),
        running=is_locked(folder) if running is None else running,
        saved_step=saved.get("step"),
        saved_seconds=float(saved.get("seconds", 0.0)),
        last=_last_loss(folder / metrics.FILE),
    )


def tell(found: PretrainState) -> list[str]:
    """A pretraining in a few lines: what it is, how far, what to do."""
    return [found.title, *(f"  {line}" for line in _lines(found))]


def command(found: PretrainState) -> str:
    """The command line that goes on with a pretraining; empty where its files no longer tell it."""
    facts = found.facts
    try:
        recipe = find.load(OBJECTIVES, facts["objective"], what="objective").RECIPES[facts["recipe"]]
        changes = changes_of(build(type(recipe), facts["settings"]), recipe)
        data = f"{facts['data']['name']}={facts['data']['root']}"
    except (MaeBenchError, KeyError, TypeError):
        return ""
    words = ["mae-bench", "pretrain", facts["objective"], "--arch", facts["arch"], "-d", data, "-o", str(found.folder)]
    words += ["--recipe", facts["recipe"]] if facts["recipe"] != "paper" else []
    words += ["--seed", str(facts["seed"])] if facts.get("seed") else []
    words += ["--precision", facts["precision"]] if facts.get("precision") not in (None, "fp32") else []
    return shlex.join([*words, *(f"{key}={_plain(value)}" for key, value in changes.items())])


def beginning(found: PretrainState | None, save_seconds: float) -> str:
    """What a start of this pretraining begins with, where something is there already; empty where nothing is."""
    if found is None or found.state == "finished":
        return ""
    if found.saved_step is not None:
        return f"going on from the state saved at step {found.saved_step}"
    if not found.last:
        return ""
    when = f"states are saved every {duration(save_seconds)}; --save-every changes it"
    return f"an earlier start ended at step {found.step}, before its first state was saved: beginning anew ({when})"


def _lines(found: PretrainState) -> Iterator[str]:
    state, place = found.state, found.folder
    if state == "finished":
        record = found.record
        loss = f", loss {record['final_loss']:.4f}" if isinstance(record.get("final_loss"), float) else ""
        yield f"finished: {record.get('steps')} steps in {duration(float(record.get('seconds', 0)))}{loss}"
        yield f"weights: {place / WEIGHTS}, to be measured by: mae-bench run -m {shlex.quote(f'{place.name}={place}')} ..."
        return
    yield f"{state}: {', '.join(_numbers(found))}"
    if state in ("failed", "diverged"):
        yield f"because: {' '.join(str(found.status.get('message', '')).split())}"
    if state != "running":
        again = command(found)
        begins = f"from step {found.saved_step}" if found.saved_step else "from the beginning, since no state was saved yet"
        yield f"goes on {begins}, by the same command{f': {again}' if again else ''}"
    elif found.saved_step:
        yield f"saved at step {found.saved_step}, where it would go on after a kill"
    yield f"log: {place / LOG}; all numbers: {place / metrics.FILE}"


def _numbers(found: PretrainState) -> Iterator[str]:
    step, steps = found.step, found.steps
    yield f"step {step}{f' of {steps}' if steps else ''}"
    epochs = found.facts["settings"].get("epochs") if isinstance(found.facts["settings"], dict) else None
    if steps and isinstance(epochs, int | float):
        yield f"epoch {epochs * step / steps:.1f} of {epochs:g}"
    if isinstance(found.last.get("loss"), int | float):
        yield f"loss {found.last['loss']:.4f}"
    if found.running and steps and (speed := _speed(found)):
        yield f"about {duration((steps - step) / speed)} to go"
    if found.running and isinstance(found.progress.get("time"), int | float):
        yield f"seen {duration(max(0.0, time.time() - found.progress['time']))} ago"


def _speed(found: PretrainState) -> float:
    """Steps a second: over all saved sessions, else since this one began."""
    if found.saved_step and found.saved_seconds > 0:
        return found.saved_step / found.saved_seconds
    times = found.progress.get("time"), found.status.get("time")
    spent = times[0] - times[1] if all(isinstance(one, int | float) for one in times) else 0.0  # type: ignore[operator]
    return found.step / spent if spent > 1 else 0.0


def _last_loss(path: Path) -> dict[str, Any]:
    """The last line of a file of numbers that has a loss; a line cut short by a kill is passed over."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            numbers = json.loads(line)
        except ValueError:
            continue
        if isinstance(numbers, dict) and "loss" in numbers and isinstance(numbers.get("step"), int):
            return numbers
    return {}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)
