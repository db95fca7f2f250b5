"""What there is, by name: read from the files of the rooms without importing them, so that listing is instant."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from backbones.released import releases
from mae_bench.core import find
from mae_bench.core.config import nearest
from mae_bench.core.errors import ConfigError

TASKS = "tasks.suite"
OBJECTIVES = "mae_bench.objectives"
DATASETS = "tasks.data"
FORMATS = "backbones.formats"
ZOO = "backbones.zoo"
LAYOUTS = "results.layouts"
ABLATIONS = "mae_bench.ablations"


@dataclass(frozen=True)
class Item:
    """One line of a listing."""

    name: str
    text: str
    """What it is, in a line."""


def listing(what: str) -> list[Item]:
    """The names of one kind of thing.

    Raises:
        ConfigError: there is no such kind.
    """
    rooms = {"tasks": TASKS, "objectives": OBJECTIVES, "datasets": DATASETS, "formats": FORMATS}
    if what == "formats":
        return [Item(name, constant(FORMATS, name, "NAME")) for name in find.names(FORMATS)]
    if what in rooms:
        return [Item(name, summary(rooms[what], name)) for name in find.names(rooms[what])]
    if what == "ablations":
        return [Item(name.replace("_", "-"), summary(ABLATIONS, name)) for name in find.names(ABLATIONS)]
    if what == "layouts":
        return [Item(name.replace("_", "-"), summary(LAYOUTS, name)) for name in find.names(LAYOUTS)]
    if what == "models":
        return list(_models())
    if what == "recipes":
        return list(_recipes())
    raise ConfigError(f"ls {what}: {nearest(what, [*rooms, 'models', 'recipes', 'layouts', 'ablations'])}")


def summary(room: str, name: str) -> str:
    """First line of a file's docstring."""
    return (ast.get_docstring(_parse(room, name)) or "").partition("\n")[0]


def constant(room: str, name: str, variable: str) -> str:
    """Text that a file gives a name at its top level; empty where it does not."""
    for statement in _parse(room, name).body:
        if isinstance(statement, ast.Assign) and any(isinstance(to, ast.Name) and to.id == variable for to in statement.targets):
            return str(ast.literal_eval(statement.value))
    return ""


def keys(room: str, name: str, variable: str) -> list[str]:
    """Keys of a dict that a file writes out at its top level, or takes from a neighbour that does."""
    for statement in _parse(room, name).body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(f"{room}."):
            if any(alias.name == variable and alias.asname in (None, variable) for alias in statement.names):
                return keys(room, (statement.module or "").removeprefix(f"{room}."), variable)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        named = any(isinstance(target, ast.Name) and target.id == variable for target in targets)
        if named and isinstance(value := statement.value, ast.Dict):  # type: ignore[attr-defined]
            return [key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return []


def _models() -> Iterable[Item]:
    for name in find.names(ZOO):
        for variant in keys(ZOO, name, "VARIANTS"):
            yield Item(variant, f"architecture of {name}; random:{variant} has random weights")
    for name, release in releases().items():
        yield Item(name, release.told)
    yield Item("timm:NAME", "a pretrained model of timm by its name, such as timm:vit_base_patch16_224.mae")
    yield Item("hf:ORG/NAME", "a model of the Hugging Face hub; a folder in that layout works too")
    yield Item("PATH", f"a checkpoint file, or the folder of a pretraining (families: {', '.join(find.names(FORMATS))})")
    yield Item("NAME=SRC", "any of these under a name of its own in tables")


def _recipes() -> Iterable[Item]:
    for room in (TASKS, OBJECTIVES):
        for name in find.names(room):
            for recipe in keys(room, name, "RECIPES"):
                yield Item(f"{name}:{recipe}", summary(room, name))


def _parse(room: str, name: str) -> ast.Module:
    spec = find_spec(room)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return ast.parse((Path(next(iter(folders))) / f"{name}.py").read_text(encoding="utf-8"))
