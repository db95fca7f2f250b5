import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mae_bench.core.repairs import COMMANDS, EXTRA_OF
from mae_bench.frameworks import FRAMEWORKS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
OURS = ("mae_bench", "backbones", "tasks", "results")
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_repair_lines_name_extras_that_bring_the_module() -> None:
    providers = metadata.packages_distributions()
    for module, extra in EXTRA_OF.items():
        if module in COMMANDS or module not in providers:
            continue
        listed = {normal(requirement.name) for requirement in EXTRAS[extra]}
        assert {normal(name) for name in providers[module]} & listed, f"{module} is not in the extra {extra}"


def test_the_core_needs_no_framework() -> None:
    core = {normal(requirement.name) for requirement in CORE}
    for framework in FRAMEWORKS:
        names = {normal(name) for name in framework.distributions or (framework.module,)}
        assert bool(names & core) == (not framework.extra), framework.module


def test_all_is_every_extra_but_those_for_work_on_the_suite() -> None:
    assert EXTRAS["all"][0].extras == set(EXTRAS) - {"all", "dev", "docs"}


def test_constraints_are_versions_and_cover_what_is_declared() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in LINES)
    pinned = {normal(name): version for name, version in (line.split("==") for line in LINES)}
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))]
    for requirement in [*CORE, *(r for lines in EXTRAS.values() for r in lines if normal(r.name) != "mae-bench")]:
        version = pinned[normal(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


@pytest.mark.slow
def test_every_package_that_is_imported_is_declared() -> None:
    providers = metadata.packages_distributions()
    declared = {normal(r.name) for r in [*CORE, *(r for requirements in EXTRAS.values() for r in requirements)]}
    files = [file for room in OURS for file in (ROOT / room).rglob("*.py")] + list((ROOT / "tests").rglob("test_*.py"))
    for file in files:
        for module in imported(file) - set(sys.stdlib_module_names) - {*OURS, "tests", "detectron2"}:
            assert {normal(name) for name in providers.get(module, [module])} & declared, f"{file} imports {module}"


def imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in plain | parts}


@pytest.mark.edge
def test_detection_check_trains() -> None:
    pytest.importorskip("detectron2")
    from tasks.edges.detection_check import train

    losses = train()
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)
