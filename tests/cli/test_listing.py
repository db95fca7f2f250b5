"""What is listed tells things apart, and names where they come from."""

import types

import pytest

from mae_bench.core import find
from mae_bench.core.config import Config
from mae_bench.listing import OBJECTIVES, TASKS, about_recipe, listing
from mae_bench.start import recipe_text
from tests.cli.test_cli import call

__all__ = ["call"]

ROOMS = [(room, name) for room in (TASKS, OBJECTIVES) for name in find.names(room)]
SOURCES = (
    "arXiv",
    "FINETUNE",
    ".py",
    "mmseg",
    "unilm",
    "dinov2",
    "own choice",
    "the same places",
    "none is released",
    "mirror images",
)


@pytest.mark.parametrize(("room", "name"), ROOMS, ids=[name for _, name in ROOMS])
def test_every_recipe_has_a_line_of_its_own_with_its_source(room, name):
    file = find.load(room, name, what="file")
    assert set(file.ABOUT) == set(file.RECIPES)
    assert len(set(file.ABOUT.values())) == len(file.RECIPES)
    for line in file.ABOUT.values():
        assert len(line) <= 125 and (line.startswith("the same") or any(source in line for source in SOURCES)), line


def test_all_recipes_are_listed():
    listed = {item.name: item.text for item in listing("recipes")}
    there = {f"{name}:{recipe}" for room, name in ROOMS for recipe in find.load(room, name, what="file").RECIPES}
    assert set(listed) == there and "partial:paper-0.5" in there and all(listed.values())


def test_a_recipe_without_a_line_is_told_by_what_it_changes():
    class Settings(Config):
        epochs: int = 90
        pool: str = "cls"
        clip: float | None = 1.0

    file = types.ModuleType("file")
    file.RECIPES = {"paper": Settings(), "short": Settings(epochs=3, clip=None)}  # type: ignore[attr-defined]
    assert about_recipe(file, "short") == "epochs=3 clip=null"
    assert about_recipe(file, "paper") == "its own defaults"


def test_architectures_are_listed_with_their_sizes():
    listed = {item.name: item.text for item in listing("archs")}
    assert listed["vit_base_patch16"] == "85.8 M parameters: 12 blocks of width 768, 12 heads, patch 16, 224 x 224 pixels (vit)"
    assert set(listed) <= {item.name for item in listing("models")}


def test_show_recipe_means_paper_where_none_is_named(call):
    assert call("show", "recipe", "detection") == call("show", "recipe", "detection:paper")
    assert call("show", "recipe", "mae")[1].startswith("# mae:paper, digest ")
    assert recipe_text("finetune").splitlines()[1].startswith("# ViT-B: 100 epochs")
    code, _, error = call("show", "recipe", "partial:paper-0.7")
    assert code == 2 and "unknown recipe partial:paper-0.7; did you mean paper-0.5" in error
