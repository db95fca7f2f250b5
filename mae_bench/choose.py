"""Tasks, recipes and settings of a command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mae_bench.core import find
from mae_bench.core.config import Config, nearest
from mae_bench.core.errors import ConfigError, EnvironmentFault

ROOM = "tasks.suite"
DEFAULT_RECIPE = "paper"


@dataclass(frozen=True)
class Wanted:
    """A task that is asked for."""

    task: str
    recipe: str
    settings: Mapping[str, Any]
    """What is changed of the recipe, by key."""
    seeds: tuple[int, ...]
    apart: bool = False
    """Whether changed settings make a folder of their own, so that several of a task fit into one plan."""


@dataclass(frozen=True)
class Choice:
    """A task with the settings it is to run with."""

    task: str
    recipe: str
    module: ModuleType
    config: Config
    changes: dict[str, Any]
    fault: str
    seeds: tuple[int, ...] = (0,)
    folder: str = ""
    """Name of its folder below a model's."""


@dataclass(frozen=True)
class Blocked:
    """A task that this machine lacks the packages to even look at."""

    task: str
    fault: str


def load_task(task: str, room: str = ROOM) -> ModuleType:
    """A task's file by name."""
    return find.load(room, task, what="task")


def version_of(module: ModuleType) -> int:
    """Version of a task's code; 1 where the file names none."""
    return int(getattr(module, "VERSION", 1))


def find_recipe(module: ModuleType, task: str, recipe: str) -> Config:
    """A task's settings by the name of the recipe."""
    if recipe not in module.RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r} of {task}; {nearest(recipe, list(module.RECIPES))}")
    config: Config = module.RECIPES[recipe]
    return config


def split_task(word: str) -> tuple[str, str]:
    """Task and recipe of `TASK[:RECIPE]`."""
    task, _, recipe = word.partition(":")
    return task, recipe or DEFAULT_RECIPE


def parse_seeds(text: str | None) -> list[int]:
    """Seeds of `0,1,2`; None is the first one alone."""
    if text is None:
        return [0]
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or any(not word.isdecimal() or not word.isascii() for word in words):
        raise ConfigError(f"--seeds {text!r}; write whole numbers from 0 on, such as 0,1,2")
    return list(dict.fromkeys(int(word) for word in words))


def changes_of(config: Config, recipe: Config) -> dict[str, Any]:
    """The settings that differ from a recipe, by dotted key."""
    return dict(_differences(config.model_dump(mode="json"), recipe.model_dump(mode="json")))


def task_words(tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Task and recipe of each `TASK[:RECIPE]`, of words that may join several by commas."""
    words = [split_task(word.strip()) for text in tasks for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError("no task; write for example -t knn,linear:demo")
    return list(dict.fromkeys(words))


def check_overrides(overrides: Mapping[str, str], words: Sequence[tuple[str, str]], room: str) -> None:
    """Refuse settings that no planned task takes."""
    planned = sorted({task for task, _ in words})
    for key in overrides:
        task, dot, _ = key.partition(".")
        if not dot:
            raise ConfigError(f"{key!r} names no task; write for example {planned[0]}.{key}={overrides[key]}")
        if task not in planned:
            if task in find.names(room):
                raise ConfigError(f"setting {key!r}: {task} is not in -t; {nearest(task, planned)}")
            # Where no task is near, it is more likely a part of a task's settings.
            example = f"for a setting of a task write {planned[0]}.{key}={overrides[key]}"
            raise ConfigError(f"setting {key!r}: {task} is no task; {nearest(task, planned, example)}")


def wanted_of(words: Sequence[tuple[str, str]], overrides: Mapping[str, str], seeds: Sequence[int], room: str) -> list[Wanted]:
    """The tasks of a command line, each with the settings that name it."""
    check_overrides(overrides, words, room)
    found = []
    for task, recipe in words:
        own = {key.partition(".")[2]: value for key, value in overrides.items() if key.partition(".")[0] == task}
        found.append(Wanted(task, recipe, own, tuple(seeds)))
    return found


def choose(wanted: Sequence[Wanted], room: str) -> tuple[list[Choice], tuple[Blocked, ...]]:
    """Load the tasks and make their settings; those whose packages are missing come apart.

    Raises:
        ConfigError: an unknown task, recipe or setting, or the same task twice with the same settings.
    """
    choices: list[Choice] = []
    blocked: list[Blocked] = []
    for one in wanted:
        try:
            module = load_task(one.task, room)
        except EnvironmentFault as error:
            blocked.append(Blocked(f"{one.task}:{one.recipe}", str(error)))
            continue
        recipe = find_recipe(module, one.task, one.recipe)
        config = recipe.override(one.settings, where=one.task) if one.settings else recipe
        changes = changes_of(config, recipe)
        folder = f"{one.task}-{one.recipe}" + (f"-{config.digest()[:8]}" if one.apart and changes else "")
        if folder in [choice.folder for choice in choices]:
            raise ConfigError(f"{one.task}:{one.recipe} stands twice in the grid with the same settings; keep one")
        choices.append(Choice(one.task, one.recipe, module, config, changes, _lacking(module, one.task), one.seeds, folder))
    return choices, tuple(dict.fromkeys(blocked))


def _lacking(module: ModuleType, task: str) -> str:
    """The line about the first module that a task needs and this machine lacks."""
    for name in module.REQUIRES:
        if find_spec(name) is None:
            return str(find.missing(ModuleNotFoundError(name=name), f"task {task}"))
    return ""


def _differences(new: Mapping[str, Any], old: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            found += _differences(value, old[key], f"{prefix}{key}.")
        elif value != old.get(key):
            found.append((f"{prefix}{key}", value))
    return found
