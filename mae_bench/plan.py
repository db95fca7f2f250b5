"""From a command line to cells: models x tasks x fitting data sets x seeds, all of it checked before anything runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.choose import ROOM, Blocked, Choice, Wanted, choose, task_words, version_of, wanted_of
from mae_bench.core.errors import ConfigError
from mae_bench.options import Options, lacking_device
from results.names import plain, slug
from results.request import Request, cell_key

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.handle import DataHandle

MOST_CELLS = 10_000


@dataclass(frozen=True)
class Cell:
    """One number to measure."""

    folder: Path
    request: Request
    fault: str = ""
    """Why it cannot run on this machine, on one line; empty when it can."""


@dataclass(frozen=True)
class Plan:
    """All cells of a command."""

    cells: tuple[Cell, ...]
    models: tuple[str, ...] = ()
    """Names in the order given."""
    tasks: tuple[str, ...] = ()
    """`task:recipe` in the order given."""
    blocked: tuple[Blocked, ...] = ()


def make_plan(
    models: Sequence[str],
    tasks: Sequence[str],
    data: Sequence[str],
    out: Path,
    *,
    overrides: Mapping[str, str],
    seeds: Sequence[int],
    options: Options,
    room: str = ROOM,
) -> Plan:
    """Make the cells of a command line, or say what is wrong with it.

    Args:
        models: `[NAME=]SRC` each.
        tasks: `TASK[:RECIPE]` each, or several joined by commas.
        data: `DATASET=PATH` each.
        out: folder the cells go into.
        overrides: `task.key` to value, as text.
        seeds: one cell for each.
        options: how cells are to be run.
        room: package that holds the tasks' files.

    Raises:
        ConfigError: an unknown name or setting, a task without a fitting data set, an override that no cell takes.
        InputError: a checkpoint or data set that cannot be used.
    """
    wanted = wanted_of(task_words(tasks), overrides, seeds, room)
    return plan_of(models, wanted, data, out, options=options, room=room)


def plan_of(
    models: Sequence[str], wanted: Sequence[Wanted], data: Sequence[str], out: Path, *, options: Options, room: str = ROOM
) -> Plan:
    """Make the cells of tasks that are asked for; everything is checked before anything runs.

    Args:
        models: `[NAME=]SRC` each.
        wanted: tasks with their settings and seeds.
        data: `DATASET=PATH` each.
        out: folder the cells go into.
        options: how cells are to be run.
        room: package that holds the tasks' files.

    Raises:
        ConfigError: an unknown name or setting, a task without a fitting data set.
        InputError: a checkpoint or data set that cannot be used.
    """
    choices, blocked = choose(wanted, room)
    if options.export_native:
        _check_native(choices)
    handles = _open_data(data)
    pairs = [(choice, label, handle) for choice in choices for label, handle in _fitting(choice, handles)]
    count = len(models) * sum(len(choice.seeds) for choice, _, _ in pairs)
    if count > MOST_CELLS:
        raise ConfigError(f"{count} cells are more than {MOST_CELLS}; ask for fewer models, tasks or seeds at a time")
    sources = _open_sources(models, allow_partial=options.allow_partial)
    cells = [
        _cell(source, choice, label, handle, seed, out, options, room)
        for source in sources
        for choice, label, handle in pairs
        for seed in choice.seeds
    ]
    tasks = tuple(dict.fromkeys(f"{one.task}:{one.recipe}" for one in wanted))
    return Plan(tuple(cells), tuple(plain(source.name) for source in sources), tasks, blocked)


def dataset_label(handle: "DataHandle") -> str:
    """Name of a data set in folders and tables: `folder-imagenet`, or `coco` where the folder is called that too."""
    base = plain(handle.root.name)
    return handle.name if base.lower() == handle.name else f"{handle.name}-{base}"


def _open_data(data: Sequence[str]) -> list[tuple[str, "DataHandle"]]:
    from tasks.handle import open_data

    handles = [open_data(text) for text in dict.fromkeys(data)]
    names = [dataset_label(handle) for handle in handles]
    labels = [
        f"{name}-{handle.fingerprint[:8]}" if names.count(name) > 1 else name for name, handle in zip(names, handles, strict=True)
    ]
    for label, count in Counter(labels).items():
        if count > 1:
            raise ConfigError(f"the data set {label} is given {count} times; keep one -d of it")
    return list(zip(labels, handles, strict=True))


def _fitting(choice: Choice, handles: Sequence[tuple[str, "DataHandle"]]) -> list[tuple[str, "DataHandle"]]:
    found = [(label, handle) for label, handle in handles if handle.kind == choice.module.KIND]
    if not found:
        known = ", ".join(f"{label} ({handle.kind})" for label, handle in handles) or "none"
        raise ConfigError(f"task {choice.task} needs {choice.module.KIND} data; given: {known}; add -d DATASET=PATH")
    return found


def _check_native(choices: Sequence[Choice]) -> None:
    """Refuse to export the native config of tasks that have none."""
    if not any(hasattr(choice.module, "export_native") for choice in choices):
        names = ", ".join(dict.fromkeys(choice.task for choice in choices))
        raise ConfigError(f"--export-native: {names} has no config of another framework; leave it out")


def _open_sources(models: Sequence[str], *, allow_partial: bool) -> list["Source"]:
    from backbones.source import open_source

    if not models:
        raise ConfigError("no model; write for example -m random:vit_base_patch16 or -m mae=model.safetensors")
    sources = [open_source(text, allow_partial=allow_partial) for text in dict.fromkeys(models)]
    for name, count in Counter(source.name for source in sources).items():
        if count > 1:
            raise ConfigError(f"{count} models are called {plain(name)!r}; give them names: -m NAME=SRC")
    return sources


def _cell(
    source: "Source", choice: Choice, label: str, handle: "DataHandle", seed: int, out: Path, options: Options, room: str
) -> Cell:
    digest, version = choice.config.digest(), version_of(choice.module)
    key = cell_key(
        sha256=source.sha256,
        task=choice.task,
        digest=digest,
        fingerprint=handle.fingerprint,
        seed=seed,
        version=version,
        precision=options.precision,
        partial=bool(source.ledger.missing),
    )
    request = Request(
        key=key,
        model=plain(source.name),
        source=f"{source.name}={_absolute(source.text)}",
        sha256=source.sha256,
        task=choice.task,
        recipe=choice.recipe,
        config=choice.config.model_dump(mode="json"),
        changes=choice.changes,
        config_digest=digest,
        version=version,
        data=handle.text,
        dataset=label,
        fingerprint=handle.fingerprint,
        seed=seed,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        workers=options.workers,
        save_seconds=options.save_seconds,
        max_skipped=options.max_skipped,
        debug=options.debug,
        partial=bool(source.ledger.missing),
        export_native=options.export_native and hasattr(choice.module, "export_native"),
        room=room,
    )
    folder = out / slug(source.name) / slug(choice.folder) / slug(label) / f"seed{seed}"
    return Cell(folder, request, choice.fault)


def _absolute(text: str) -> str:
    """A source that is a file, by its whole path, so that the cell can be run again from anywhere."""
    path = Path(text).expanduser()
    return str(path.absolute()) if path.exists() else text


def with_options(cell: Cell, options: Options) -> Cell:
    """The same cell, run in another way: only what was given explicitly takes the place of what the cell was asked for with."""
    names = ("device", "precision", "threads", "workers", "save_seconds", "max_skipped", "debug")
    given = options.given | ({"threads"} if "jobs" in options.given else set())
    request = cell.request.model_copy(update={name: getattr(options, name) for name in names if name in given})
    request = request.model_copy(update={"key": request.key_in(request.precision)})
    return replace(cell, request=request, fault=lacking_device(request.device))
