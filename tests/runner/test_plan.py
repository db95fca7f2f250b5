"""Plans: every fault of a command line is found before anything runs."""

from dataclasses import asdict

import pytest
from PIL import Image

from mae_bench.choose import parse_seeds, split_task
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
from mae_bench.options import Options, make_options
from mae_bench.plan import make_plan
from tests.runner.conftest import write_images

MODEL = "random:vit_demo_patch8"
ROOM = "tests.runner.fake_suite"


def plan(tmp_path, data, *, models=(MODEL,), tasks=("steady:demo",), overrides=None, seeds=(0,), options=None, room=ROOM):
    return make_plan(
        models,
        tasks,
        [data] if isinstance(data, str) else data,
        tmp_path / "out",
        overrides=overrides or {},
        seeds=seeds,
        options=options or Options(),
        room=room,
    )


def test_cells_are_models_times_tasks_times_seeds(tmp_path, images):
    found = plan(tmp_path, images, models=(MODEL, f"b={MODEL}"), tasks=("steady:demo,steady:paper",), seeds=(0, 7))
    assert len(found.cells) == len({cell.folder for cell in found.cells}) == len({cell.request.key for cell in found.cells}) * 2
    assert found.models == ("random", "b") and found.tasks == ("steady:demo", "steady:paper")
    folders = {str(cell.folder.relative_to(tmp_path / "out")) for cell in found.cells}
    assert "b/steady-paper/folder-pets/seed7" in folders


def test_a_plan_touches_nothing(tmp_path, images):
    plan(tmp_path, images)
    assert not (tmp_path / "out").exists()


def test_the_recipe_without_a_name_is_the_papers(tmp_path, images):
    [cell] = plan(tmp_path, images, tasks=("steady",)).cells
    assert cell.request.recipe == "paper" and split_task("knn") == ("knn", "paper")


def test_settings_reach_their_task_and_are_told_apart(tmp_path, images):
    [plain], [changed] = (plan(tmp_path, images, overrides=values).cells for values in ({}, {"steady.value": "1e-4"}))
    assert changed.request.config["value"] == 1e-4 and changed.request.changes == {"value": 1e-4}
    assert changed.folder == plain.folder and changed.request.key != plain.request.key


def test_the_key_is_of_what_shapes_the_numbers_and_of_nothing_else(tmp_path, images):
    [first] = plan(tmp_path, images).cells
    [other] = plan(tmp_path, images, options=Options(threads=7, workers=3, save_seconds=9.0, debug=True)).cells
    [rounded] = plan(tmp_path, images, options=Options(precision="bf16")).cells
    [named] = plan(tmp_path, images, models=(f"name={MODEL}",), tasks=("steady:other",)).cells
    assert first.request.key == other.request.key == named.request.key
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "pets" / "train" / "cat" / "new.png")
    [more] = plan(tmp_path, images).cells
    [seeded] = plan(tmp_path, images, seeds=(1,)).cells
    assert len({first.request.key, more.request.key, seeded.request.key, rounded.request.key}) == 4


def test_two_data_sets_of_one_kind_are_cells_of_their_own(tmp_path, images):
    other = write_images(tmp_path / "more" / "cars", ("a", "b"))
    found = plan(tmp_path, [images, f"folder={other}"])
    assert [cell.request.dataset for cell in found.cells] == ["folder-pets", "folder-cars"]


def test_two_data_sets_of_one_name_are_told_apart(tmp_path, images):
    other = write_images(tmp_path / "more" / "pets", count=5)
    names = {cell.request.dataset for cell in plan(tmp_path, [images, f"folder={other}"]).cells}
    assert len(names) == 2 and all(name.startswith("folder-pets-") for name in names)
    with pytest.raises(ConfigError, match="given 2 times"):
        plan(tmp_path, [images, f"folder={write_images(tmp_path / 'same' / 'pets')}"])


WRONG = [
    ({"tasks": ("stedy",)}, r"unknown task 'stedy'.*steady"),
    ({"tasks": ("steady:dmo",)}, r"unknown recipe 'dmo' of steady.*demo"),
    ({"tasks": (" , ",)}, "no task"),
    ({"tasks": ("boxes:demo",)}, r"task boxes needs detection data; given: folder-pets \(classification\)"),
    ({"overrides": {"valu": "1"}}, r"'valu' names no task; write for example steady\.valu=1"),
    ({"overrides": {"boxes.value": "1"}}, "boxes is not in -t"),
    ({"overrides": {"nothing.value": "1"}}, r"nothing is no task; for a setting of a task write steady\.nothing\.value=1"),
    ({"overrides": {"staedy.value": "1"}}, r"staedy is no task; did you mean steady\?"),
    ({"overrides": {"steady.valu": "1"}}, r"unknown setting 'valu' of steady; did you mean value\?"),
    ({"overrides": {"steady.value": "many"}}, r"steady\.value"),
    ({"overrides": {"steady.value": ".nan"}}, r"steady\.value"),
    ({"models": (MODEL, "random:vit_tiny_patch16")}, "2 models are called 'random'"),
    ({"models": ("random:vit_tny",)}, r"vit_tny.*did you mean"),
    ({"models": ()}, "no model"),
    ({"models": (f"../../x={MODEL}",)}, "cannot name a model"),
    ({"seeds": tuple(range(10_001))}, "10001 cells are more than"),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[line for _, line in WRONG])
def test_u01_u02_u08_a_wrong_command_is_one_line(tmp_path, images, words, line):
    with pytest.raises(ConfigError, match=line) as raised:
        plan(tmp_path, images, **words)
    assert "\n" not in str(raised.value) and raised.value.exit_code == 2


@pytest.mark.parametrize("words", [{"models": ("missing/file.pth",)}, {"data": "folder=/nowhere/at/all"}])
def test_a_missing_file_is_an_input_error(tmp_path, images, words):
    with pytest.raises(InputError):
        plan(tmp_path, words.pop("data", images), **words)


def test_e01_a_missing_framework_is_a_fault_of_its_cells_alone(tmp_path, images):
    found = plan(tmp_path, images, tasks=("steady:demo", "needy:demo", "absent:demo"))
    assert [bool(cell.fault) for cell in found.cells] == [False, True]
    assert "a_framework_that_is_not_there" in found.cells[1].fault and "pip install" in found.cells[1].fault
    [blocked] = found.blocked
    assert blocked.task == "absent:demo" and "pip install" in blocked.fault


def test_seeds():
    assert parse_seeds("0, 2,1,2") == [0, 2, 1]
    for text in ("", "a", "-1", "1.5", ","):
        with pytest.raises(ConfigError, match="--seeds"):
            parse_seeds(text)


def test_u12_a_device_that_is_not_there_is_a_fault_of_the_environment(monkeypatch):
    monkeypatch.setattr("mae_bench.core.run.default_device", lambda: "cpu")
    with pytest.raises(EnvironmentFault, match="torch sees none here"):
        make_options(device="cuda")


def test_options_know_which_of_them_were_given():
    assert make_options(device="cpu", workers=0).given == {"device", "workers"}
    assert make_options().given == set()


def test_u12_options_of_this_machine():
    options = make_options(device="cpu")
    assert options.precision == "fp32" and options.jobs >= 1 and options.threads >= 1
    assert asdict(make_options(device="cpu", jobs=3, threads=2))["jobs"] == 3
    for words in ({"device": "tpu"}, {"precision": "int8"}, {"jobs": 0}, {"threads": -1}, {"workers": -1}, {"overwrite": "x"}):
        with pytest.raises(ConfigError):
            make_options(**{"device": "cpu", **words})
