"""What there is, by name: read from the files of the rooms without importing them, so that listing is instant."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from backbones.released import releases
from mae_bench.choose import changes_of
from mae_bench.core import find
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.wording import shown

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
    others = {"archs": _archs, "models": _models, "recipes": _recipes}
    if what in others:
        return list(others[what]())
    known = ", ".join(sorted([*rooms, *others, "layouts", "ablations"]))
    raise ConfigError(f"ls {what!r}: there is no such kind of thing; known: {known}")


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


def architectures() -> list[str] | None:
    """Names of all architectures; None where a file of the zoo does not write its own out, so that only importing it tells."""
    found = [keys(ZOO, name, "VARIANTS") for name in find.names(ZOO)]
    return [name for names in found for name in names] if all(found) else None


def _models() -> Iterable[Item]:
    for variant in architectures() or ():
        yield Item(variant, f"random weights (random:{variant} says the same); its size: mae-bench ls archs")
    for name, release in releases().items():
        yield Item(name, release.told)
    yield Item("timm:NAME", "a pretrained model of timm by its name, such as timm:vit_base_patch16_224.mae")
    yield Item("hf:ORG/NAME", "a model of the Hugging Face hub; a folder in that layout works too")
    yield Item("PATH", f"a checkpoint file, or the folder of a pretraining (families: {', '.join(find.names(FORMATS))})")
    yield Item("NAME=SRC", "any of these under a name of its own in tables")


def _archs() -> Iterable[Item]:
    """Architectures with their sizes; the one listing that needs torch, which knows them."""
    for name in find.names(ZOO):
        zoo = find.load(ZOO, name, what="architecture family")
        for variant, arch in zoo.VARIANTS.items():
            backbone = zoo.empty(arch, zoo.spec_of(arch, method="", pretrain_data=""))
            millions = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
            height, width = backbone.spec.image_size
            sizes = f"{arch.depth} blocks of width {arch.embed_dim}, {arch.num_heads} heads, patch {arch.patch_size}"
            yield Item(variant, f"{millions:.1f} M parameters: {sizes}, {height} x {width} pixels ({name})")


def _recipes() -> Iterable[Item]:
    for room in (TASKS, OBJECTIVES):
        for name in find.names(room):
            try:
                file = find.load(room, name, what="file")
            except EnvironmentFault as error:
                yield Item(name, str(error))
                continue
            yield from (Item(f"{name}:{recipe}", about_recipe(file, recipe)) for recipe in file.RECIPES)


def about_recipe(file: ModuleType, recipe: str) -> str:
    """What tells a recipe from the others of its task or objective: its own line, else what it changes of `paper`."""
    told = getattr(file, "ABOUT", {}).get(recipe)
    if told:
        return str(told)
    changes = changes_of(file.RECIPES[recipe], file.RECIPES.get("paper", file.RECIPES[recipe]))
    return " ".join(f"{key}={shown(value)}" for key, value in changes.items()) or "its own defaults"


def _parse(room: str, name: str) -> ast.Module:
    spec = find_spec(room)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return ast.parse((Path(next(iter(folders))) / f"{name}.py").read_text(encoding="utf-8"))
