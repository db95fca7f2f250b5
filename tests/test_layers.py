"""Imports go down only, and only the named edge files name the heavy frameworks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("mae_bench", "backbones", "tasks", "results")

# The longest name that fits a module says on which floor it is.
LAYERS = {
    "mae_bench": 3,
    "mae_bench.__init__": 0,
    "mae_bench.core": 0,
    "mae_bench.objectives": 2,
    "mae_bench.cli": 4,
    "mae_bench.cli_ckpt": 4,
    "mae_bench.cli_pretrain": 4,
    "mae_bench.cli_results": 4,
    "mae_bench.cli_tools": 4,
    "mae_bench.cli_usage": 4,
    "mae_bench.cli_words": 4,
    "backbones": 1,
    "backbones.adapters": 2,
    "tasks": 1,
    "tasks.common": 2,
    "tasks.edges": 2,
    "tasks.suite": 2,
    "results": 3,
    "results.migrations": 0,
    "results.names": 0,
    "results.record": 0,
    "results.reference": 0,
    "results.request": 0,
}

# Rooms of one floor, or of neighbouring ones, that know nothing of each other.
STRANGERS = (
    ("backbones", "tasks"),
    ("backbones", "mae_bench.objectives"),
    ("tasks", "mae_bench.objectives"),
    ("mae_bench.objectives", "tasks.suite"),
    ("mae_bench.core", "results"),
)

FRAMEWORKS = ("detectron2", "mmseg", "mmengine", "mmcv")
EDGES = ("backbones/adapters/", "tasks/edges/")


def modules() -> Iterator[tuple[Path, str]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            relative = path.relative_to(ROOT).as_posix()
            yield path, relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.AST, module: str, *, package: bool) -> set[str]:
    """Names of everything that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if package else module.split(".")[:-1]
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            found.update(f"{source}.{alias.name}" for alias in node.names)
    return found


def layer(name: str) -> int:
    """Floor of a module, or of a name inside one."""
    if name in ROOMS or (name.startswith("mae_bench.") and name.count(".") == 1 and name.split(".")[1].startswith("_")):
        return LAYERS.get(f"{name.split('.')[0]}.__init__", 0)
    fitting = [known for known in LAYERS if name == known or name.startswith(known + ".")]
    return LAYERS[max(fitting, key=len)]


def inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def faults(module: str, names: set[str], path: str) -> list[str]:
    """What is wrong with the imports of one module."""
    found = []
    for name in sorted(names):
        top = name.partition(".")[0]
        if top in FRAMEWORKS and not path.startswith(EDGES):
            found.append(f"{path} names {top}, which only {' and '.join(EDGES)} may")
        if top not in ROOMS:
            continue
        if layer(name) > layer(module):
            found.append(f"{path} (layer {layer(module)}) imports {name} (layer {layer(name)})")
        if any(inside(module, one) and inside(name, other) for one, other in STRANGERS):
            found.append(f"{path} imports {name}, which it is to know nothing of")
    return found


def test_imports_go_down():
    found = []
    for path, module in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = imported(tree, module, package=path.name == "__init__.py")
        found += faults(module, names, path.relative_to(ROOT).as_posix())
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("backbones/vit.py", "import tasks.handle"),
        ("backbones/vit.py", "from mae_bench.objectives import mae"),
        ("mae_bench/core/run.py", "from results.record import Record"),
        ("mae_bench/core/run.py", "def work():\n    from mae_bench import runner"),
        ("mae_bench/core/run.py", "from .. import runner"),
        ("tasks/suite/knn.py", "from mae_bench.runner import run_plan"),
        ("tasks/suite/knn.py", "from mae_bench.objectives.mae import Config"),
        ("tasks/data/coco.py", "from tasks.suite import knn"),
        ("results/record.py", "from results.table import build_table"),
        ("mae_bench/runner.py", "from mae_bench.cli import main"),
        ("mae_bench/objectives/mae.py", "import mae_bench.pretrain"),
        ("tasks/suite/detection.py", "def work():\n    import detectron2.config"),
        ("mae_bench/doctor.py", "from mmengine import Config"),
    ],
)
def test_a_wrong_import_is_found(path, line):
    module = path.removesuffix(".py").replace("/", ".")
    assert faults(module, imported(ast.parse(line), module, package=False), path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("tasks/suite/knn.py", "from mae_bench.core.run import Run"),
        ("tasks/suite/detection.py", "from tasks.edges import detection_run"),
        ("tasks/edges/detection_model.py", "import detectron2"),
        ("mae_bench/environment.py", "from mae_bench import __version__"),
        ("mae_bench/cli.py", "from mae_bench.runner import run_plan"),
        ("results/table.py", "from results.record import Record"),
    ],
)
def test_a_right_import_passes(path, line):
    module = path.removesuffix(".py").replace("/", ".")
    assert not faults(module, imported(ast.parse(line), module, package=False), path)
