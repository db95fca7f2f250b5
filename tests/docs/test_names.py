"""Names of the code that pages use are there: `backbones.contract.Backbone`, and what each kind of file has."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from mae_bench.core import find
from tests.docs.pages import DOCS, PAGES, ROOT, inlines

DOTTED = re.compile(r"(?:backbones|tasks|mae_bench|results)(?:\.\w+)+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_lead_to_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = [name for name in inlines(text) if DOTTED.fullmatch(name)] + re.findall(r"^::: (\S+)", text, re.MULTILINE)
    for name in shown:
        assert exists(name), f"{page.name} names {name}"


@pytest.mark.parametrize("name", ["backbones.contrct", "backbones.contract.Backbones", "tasks.data.Info.nothing"])
def test_a_name_that_is_not_is_found(name: str) -> None:
    assert not exists(name)


def test_every_file_of_a_room_has_what_the_page_on_extending_says() -> None:
    rows = re.findall(r"^\| [^|]+ \| `([\w/]+)/<\w+>\.py` \| ([^|]+) \|$", (DOCS / "extending.md").read_text(), re.MULTILINE)
    rooms = {folder.replace("/", "."): re.findall(r"`(\w+)`", said) + members(said) for folder, said in rows}
    assert set(rooms) >= {"backbones.zoo", "backbones.formats", "tasks.suite", "tasks.data", "mae_bench.objectives"}
    for room, names in rooms.items():
        assert find.names(room)
        for file in find.names(room):
            module = find.load(room, file, what="file")
            assert not [name for name in names if not hasattr(module, name)], f"{room}.{file}"


def members(said: str) -> list[str]:
    """What the Protocol classes that are named demand."""
    places = [name.rpartition(".") for name in re.findall(r"`([\w.]+)`", said) if DOTTED.fullmatch(name)]
    kinds = [getattr(importlib.import_module(module), name) for module, _, name in places]
    return [name for kind in kinds for name in {*kind.__annotations__, *vars(kind)} if not name.startswith("_")]


def exists(dotted: str) -> bool:
    """Whether a module has that name, or a definition or field in one; nothing is imported."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.exists():
            body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
            for part in parts[length:]:
                found = next((statement for statement in body if part in defined(statement)), None)
                if found is None:
                    return False
                body = found.body if isinstance(found, ast.ClassDef) else []
            return True
    return False


def defined(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a meaning to."""
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}
