"""A grid file: models, tasks with their settings, data and seeds of many cells, in YAML."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from mae_bench.choose import Wanted, split_task
from mae_bench.core.config import Config, build
from mae_bench.core.errors import ConfigError

LARGEST = 1_000_000
"""Bytes of a grid file."""


class Entry(Config):
    """A task of a grid with what is changed of its recipe."""

    task: str = Field(min_length=1)
    """`TASK[:RECIPE]`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """By key of the task's settings, dots reach into nested ones."""
    sweep: dict[str, list[Any]] = Field(default_factory=dict)
    """Several values by key: one cell for each combination."""
    seeds: tuple[int, ...] = ()
    """In place of the grid's."""

    @field_validator("sweep")
    @classmethod
    def _something(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if any(not values for values in value.values()):
            raise ValueError("a sweep without values")
        return value


class Limits(Config):
    """What a grid may cost; one that would cost more is refused before anything runs."""

    cells: int | None = Field(default=None, ge=0)
    """Cells that have to run."""
    hours: float | None = Field(default=None, ge=0)
    """Estimated time of those, one after another."""


class Grid(Config):
    """Everything a grid file can say."""

    models: tuple[str, ...] = Field(min_length=1)
    """`[NAME=]SRC` each."""
    tasks: tuple[Entry, ...] = Field(min_length=1)
    """Each `TASK[:RECIPE]`, or a mapping with `task`, `settings`, `sweep` and `seeds`."""
    data: tuple[str, ...] = Field(min_length=1)
    """`DATASET=PATH` each; relative paths start at the grid file."""
    seeds: tuple[int, ...] = (0,)
    limits: Limits = Limits()

    @field_validator("tasks", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return [{"task": entry} if isinstance(entry, str) else entry for entry in value] if isinstance(value, list) else value

    def wanted(self) -> list[Wanted]:
        """Every task with its settings; those of one task and recipe are told apart in their folders."""
        found = []
        for entry in self.tasks:
            task, recipe = split_task(entry.task)
            for values in itertools.product(*entry.sweep.values()):
                settings = {**entry.settings, **dict(zip(entry.sweep, values, strict=True))}
                found.append(Wanted(task, recipe, settings, entry.seeds or self.seeds, apart=True))
        return found


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        ConfigError: it cannot be read, is no plain YAML, or says something unknown.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path} has more than {LARGEST} bytes; a grid file is short")
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a grid file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; give a grid file") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: {_where(error)}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} is no grid; write 'models:', 'tasks:' and 'data:' with a list below each")
    if any(_overlap(entry) for entry in _entries(data)):
        raise ConfigError(f"{path}: a key stands in both settings and sweep of a task; keep one")
    grid = build(Grid, {str(key): value for key, value in data.items()}, where=str(path))
    return grid.model_copy(update={"data": tuple(_placed(text, path.parent) for text in grid.data)})


class _Loader(yaml.SafeLoader):
    """Plain values only: no key twice, and no anchors, with which a short file can mean an endless one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not read; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.MarkedYAMLError(problem=f"{twice[0]} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _entries(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = data.get("tasks")
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _overlap(entry: Mapping[str, Any]) -> bool:
    parts = [entry.get(name) for name in ("settings", "sweep")]
    sides = [set(part) for part in parts if isinstance(part, Mapping)]
    return len(sides) == 2 and bool(sides[0] & sides[1])


def _placed(text: str, folder: Path) -> str:
    name, equals, place = text.partition("=")
    return f"{name}={folder / Path(place).expanduser()}" if equals and place else text


def _where(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())[:300] or type(error).__name__
