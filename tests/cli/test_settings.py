"""Wrong settings are told in plain words, whatever is wrong with them and whichever setting it is."""

import re
from typing import Any

import pytest

from mae_bench import demo
from mae_bench.core import find
from mae_bench.core.errors import ConfigError
from mae_bench.grid import read_grid
from mae_bench.listing import OBJECTIVES, TASKS
from mae_bench.start_pretrain import Wanted
from tests.cli.test_cli import call

__all__ = ["call"]

JARGON = re.compile(
    r"pydantic|Input should|Value error|validation|should be|should have|Field required|Extra inputs|parse|dictionary"
)
WRONG = (
    "",
    "no such",
    "-1e9",
    "1e9",
    "0",
    "-0.5",
    "{}",
    "{a: 1}",
    "[]",
    "[x]",
    "[0, 0]",
    "[1, 2, 3, 4, 5, 6, 7, 8, 9]",
    "null",
    "true",
)
ROOMS = [(room, name) for room in (TASKS, OBJECTIVES) for name in find.names(room)]


@pytest.mark.parametrize(("room", "name"), ROOMS, ids=[name for _, name in ROOMS])
def test_no_wrong_value_of_any_setting_is_told_in_jargon(room, name):
    recipe = find.load(room, name, what="task").RECIPES["paper"]
    said = []
    for key in type(recipe).model_fields:
        for value in WRONG:
            try:
                recipe.override({key: value}, where=name)
            except ConfigError as error:
                said.append(str(error))
    assert len(said) > 3 * len(type(recipe).model_fields)
    for line in said:
        assert not JARGON.search(line), line
        assert name in line and len(line.splitlines()) == 1 and re.search(r"; |: ", line)


LINES = [
    ("linear", "epochs", "many", "setting linear.epochs='many': give a whole number"),
    ("linear", "epochs", "2.5", "setting linear.epochs=2.5: give a whole number"),
    ("linear", "epochs", "yes", "setting linear.epochs=yes: give a number"),
    ("linear", "epochs", "0", "setting linear.epochs=0: give at least 1"),
    ("linear", "base_lr", "[1]", "setting linear.base_lr=[1]: give a number"),
    ("linear", "base_lr", "nan", "setting linear.base_lr='nan': give a finite number"),
    ("linear", "optimizer", "adamv", "setting linear.optimizer='adamv': did you mean adamw?"),
    ("linear", "optimizer", "x", "setting linear.optimizer='x': known: adamw, lars, sgd"),
    ("linear", "cached", "perhaps", "setting linear.cached='perhaps': give true or false"),
    ("linear", "crop_scale", "[0.2]", "setting linear.crop_scale=[0.2]: value 2 is missing; give it"),
    ("linear", "crop_scale", "[0.2, 3]", "setting linear.crop_scale=[0.2, 3]: value 2 is 3; give at most 1"),
    ("linear", "crop_scale", "[0.2, 0.3, 1]", "setting linear.crop_scale=[0.2, 0.3, 1]: give at most 2 values"),
    ("linear", "crop_scale", "0.2", "setting linear.crop_scale=0.2: give a list, such as [1, 2]"),
    ("partial", "blocks", "0.7", "setting partial.blocks=0.7: give a multiple of 0.5"),
    ("detection", "head", "3", "setting detection.head=3: give settings by name, such as {name: value}"),
    ("detection", "head", "{norn: LN}", "unknown setting 'norn' of detection.head; did you mean norm"),
    ("detection", "head.box_fcs", "[]", "setting detection.head.box_fcs=[]: give at least 1 value"),
]


@pytest.mark.parametrize(("task", "key", "value", "line"), LINES, ids=[f"{task}.{key}={value}" for task, key, value, _ in LINES])
def test_what_is_said(task, key, value, line):
    recipe = find.load(TASKS, task, what="task").RECIPES["paper"]
    with pytest.raises(ConfigError) as raised:
        recipe.override({key: value}, where=task)
    assert str(raised.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("models: [a]\ndata: [folder=x]\n", ": tasks is missing; give it"),
        ("models: [a]\ntasks: []\ndata: [folder=x]\n", ": tasks=[]: give at least 1 value"),
        ("models: a\ntasks: [knn]\ndata: [folder=x]\n", ": models='a': give a list"),
        ("models: [a]\ntasks: [{task: knn, seds: [1]}]\ndata: [folder=x]\n", "unknown setting 'seds' of "),
        ("models: [a]\ntasks: [{task: knn, seeds: [x]}]\ndata: [folder=x]\n", "seeds=['x']: value 1 is 'x'; give a whole number"),
    ],
)
def test_of_a_grid_file(tmp_path, text, line):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_grid(tmp_path / "grid.yaml")
    assert line in str(raised.value) and f"{tmp_path / 'grid.yaml'}" in str(raised.value)
    assert not JARGON.search(str(raised.value))


def test_a_warm_up_longer_than_the_training_names_both_settings():
    wanted: dict[str, Any] = {"objective": "mae", "arch": "a", "data": "d", "out": None, "recipe": "paper", "seed": 0}
    overrides = Wanted(**wanted, words=["epochs=3"]).overrides()
    with pytest.raises(ConfigError, match="warmup_epochs=40 is not less than epochs=3; set warmup_epochs too, 0 say"):
        find.load(OBJECTIVES, "mae", what="objective").RECIPES["paper"].override(overrides, where="mae")


@pytest.mark.parametrize(
    ("task", "settings", "line"),
    [
        ("finetune", {"epochs": "3"}, "warmup_epochs=5 is not less than epochs=3; set warmup_epochs too, 0 say"),
        ("partial", {"epochs": "5"}, "warmup_epochs=5 is not less than epochs=5; set warmup_epochs too, 0 say"),
        ("linear", {"warmup_epochs": "90"}, "warmup_epochs=90 is not less than epochs=90; set warmup_epochs too, 9 say"),
        ("segmentation", {"steps": "800"}, "warmup_steps=1500 is not less than steps=800; set warmup_steps too, 80 say"),
        (
            "detection",
            {"steps": "100", "schedule.milestones": "[]"},
            "schedule.warmup_steps=250 is not less than steps=100; set schedule.warmup_steps too, 10 say",
        ),
    ],
)
def test_a_warm_up_as_long_as_a_tasks_training_names_both_settings(task, settings, line):
    with pytest.raises(ConfigError) as raised:
        find.load(TASKS, task, what="task").RECIPES["paper"].override(settings, where=task)
    assert str(raised.value) == f"{task}: {line}"


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_to_measure_without_training_needs_no_other_warm_up(task):
    recipe = find.load(TASKS, task, what="task").RECIPES["paper"]
    assert recipe.override({"steps": "0", "weights": "whole.pth"}).steps == 0


@pytest.mark.parametrize("task", list(demo.TASKS))
def test_settings_of_a_tiny_demo_fit_its_recipes(task):
    own = {key.partition(".")[2]: value for key, value in demo.TINY.items() if key.startswith(f"{task}.")}
    recipe = find.load(TASKS, task, what="task").RECIPES[demo.RECIPE]
    assert recipe.override(own, where=task)
