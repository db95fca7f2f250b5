"""Grid files: everything is checked before anything runs, and a preview says what would be done and what it would cost."""

import pytest
import yaml

from mae_bench.core.errors import ConfigError
from mae_bench.estimate import EARLIER, MEASURED, Estimate, Estimator, forward_gflops, measured_speed, passes
from mae_bench.estimate_memory import device_memory
from mae_bench.grid import Limits, read_grid
from mae_bench.options import Options, parse_time
from mae_bench.plan import plan_of
from mae_bench.preview import Preview, check_limits, previews, show, too_large
from mae_bench.settle import standing
from results.keeping import write_record
from results.request import read_request, write_request
from results.store import stored_cells
from tests.results.sample import Screen, make_record
from tests.runner.conftest import write_images

pytestmark = [pytest.mark.slow, pytest.mark.apart]

MODEL = "random:vit_demo_patch8"
ROOM = "tests.runner.fake_suite"


@pytest.fixture
def write(tmp_path):
    """Write a grid over the image folder beside it."""
    write_images(tmp_path / "pets")

    def writing(text="", **values):
        data = {"models": [MODEL], "tasks": ["steady:demo"], "data": ["folder=pets"], **values}
        path = tmp_path / "grid.yaml"
        path.write_text(text or yaml.safe_dump(data))
        return path

    return writing


def plan(path, options=None):
    grid = read_grid(path)
    return plan_of(grid.models, grid.wanted(), grid.data, path.parent / "out", options=options or Options(), room=ROOM)


def test_a_grid_is_models_tasks_data_seeds_and_sweeps(write):
    tasks = ["steady:demo", {"task": "steady", "settings": {"mode": "ok"}, "sweep": {"value": [1, 2.5, "1e-3"]}, "seeds": [7]}]
    found = plan(write(models=[MODEL, f"b={MODEL}"], tasks=tasks, seeds=[0, 1]))
    assert len(found.cells) == 2 * (2 + 3) == len({cell.folder for cell in found.cells})
    values = [cell.request.config["value"] for cell in found.cells if cell.request.seed == 7][:3]
    assert values == [1.0, 2.5, 0.001] and found.tasks == ("steady:demo", "steady:paper")
    assert len({cell.request.title for cell in found.cells}) == len(found.cells)  # jobs are told apart by it
    plain = {cell.folder.parent.parent.name for cell in found.cells if cell.request.recipe == "demo"}
    assert plain == {"steady-demo"}  # the folder that the command line gives it too


def test_the_cells_of_a_sweep_are_found_again(write):
    found = plan(write(tasks=[{"task": "steady", "sweep": {"value": [1, 2]}}]))
    for cell in found.cells:
        write_request(cell.folder, cell.request)
    assert len(stored_cells(found.cells[0].folder.parents[3], pytest.fail)) == 2


WRONG = [
    ({"tasks": ["stedy"]}, r"unknown task 'stedy'.*steady"),
    ({"tasks": [{"task": "steady", "settings": {"valu": 1}}]}, r"unknown setting 'valu' of steady; did you mean value"),
    ({"tasks": [{"task": "steady", "settings": {"value": "many"}}]}, r"steady\.value"),
    ({"tasks": [{"tsk": "steady"}]}, "did you mean|unknown|required|Field"),
    ({"tasks": [{"task": "steady", "sweep": {"value": []}}]}, "sweep without values"),
    ({"tasks": [{"task": "steady", "sweep": {"value": [1]}, "settings": {"value": 2}}]}, "both settings and sweep"),
    ({"tasks": ["steady", "steady"]}, "stands twice"),
    ({"tasks": []}, "tasks"),
    ({"models": []}, "models"),
    ({"models": ["random:vit_tny"]}, r"vit_tny.*did you mean"),
    ({"modles": []}, r"unknown setting.*modles.*did you mean models"),
    ({"seeds": list(range(10_001))}, "10001 cells are more than"),
    ({"limits": {"cels": 3}}, "cels"),
]


@pytest.mark.parametrize(("values", "line"), WRONG, ids=[line for _, line in WRONG])
def test_u01_u02_u08_a_wrong_grid_is_one_line(write, tmp_path, values, line):
    with pytest.raises(ConfigError, match=line) as raised:
        plan(write(**values))
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


BAD_YAML = {
    "tab": "models:\n\t- a",
    "twice": "models: [a]\nmodels: [b]",
    "twice inside": "tasks: [{task: a, task: b}]",
    "bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "object": "models: !!python/object/apply:os.system ['touch {marker}']",
    "list": "- a",
    "empty": "",
    "deep": "[" * 3000,
}


@pytest.mark.parametrize("kind", BAD_YAML)
def test_u05_bad_yaml_is_one_line_and_never_executed(write, tmp_path, kind):
    with pytest.raises(ConfigError, match=r"grid\.yaml") as raised:
        read_grid(write(BAD_YAML[kind].replace("{marker}", str(tmp_path / "marker")) or " "))
    assert "\n" not in str(raised.value) and not (tmp_path / "marker").exists()


def test_u06_words_become_the_right_types(write):
    [cell] = plan(
        write("models: [random:vit_demo_patch8]\ntasks: [{task: steady, settings: {value: 1e-4}}]\ndata: [folder=pets]")
    ).cells
    assert cell.request.config["value"] == 1e-4


def finish(cell):
    request = cell.request
    record = make_record(request.model, request.task, request.recipe, digest=request.config_digest, sha256=request.sha256)
    record = record.model_copy(
        update={
            "key": request.key,
            "protocol": record.protocol.model_copy(update={"config": request.config}),
            "model": record.model.model_copy(update={"arch": "vit_demo_patch8"}),
            "dataset": record.dataset.model_copy(update={"name": request.dataset, "fingerprint": request.fingerprint}),
            "cost": record.cost.model_copy(update={"seconds": 50.0, "peak_memory_mb": 900.0}),
        }
    )
    write_request(cell.folder, request)
    write_record(cell.folder, record)
    return record


def test_a_preview_says_what_is_done_stale_and_missing(write):
    path = write(seeds=[0, 1])
    first, second = plan(path).cells
    record = finish(first)
    found = previews(plan(path), "", Estimator([record], "cpu", lambda source: pytest.fail("known from a record")))
    assert [one.stands.state for one in found] == ["done", "open"]
    assert found[1].cost is not None and (found[1].cost.seconds, found[1].cost.how) == (50.0, EARLIER)
    console = Screen()
    show(found, plan(path), 2, console)
    assert found[1].cost.memory == 900 * 2**20
    assert "1 done, 1 missing" in console.text and "about 25 s at 2 at a time" in console.text and "seed 1" in console.text

    changed = plan(path, Options(precision="bf16")).cells[0]
    [stale, _] = previews(plan(path, Options(precision="bf16")), "", Estimator([record], "cpu"))
    assert (stale.stands.state, stale.stands.reason) == ("stale", "precision fp32 -> bf16") and changed.folder == first.folder
    assert not second.folder.exists()


def test_a_preview_of_unknown_work_is_measured(write):
    [one] = previews(plan(write()), "", Estimator([], "cpu", lambda source: 2.0))
    assert one.cost is not None and one.cost.how == MEASURED
    from backbones.contract import DenseOptions
    from backbones.source import open_source

    gflops = forward_gflops(open_source(MODEL), DenseOptions(image_size=(48, 48)))
    assert one.cost.seconds == pytest.approx(gflops * 16 / 2.0)  # 8 images of train and 8 of val, once
    assert measured_speed(open_source(MODEL), device="cpu") > 0.01


def sized(write, *megabytes):
    """Previews of cells that take so much, counted."""
    cells = plan(write(seeds=list(range(len(megabytes))))).cells
    costs = [Estimate(1.0, MEASURED, 1.0, size * 2.0**20) for size in megabytes]
    return [Preview(cell, standing(cell, ""), cost) for cell, cost in zip(cells, costs, strict=True)]


@pytest.mark.parametrize(
    ("room", "device", "jobs", "line"),
    [
        (899, "cpu", 1, "seed 1 takes at least 0.9 GiB, and this machine has 0.9"),
        (1599, "cpu", 2, "2 cells at a time take at least 1.6 GiB, and this machine has 1.6; use --jobs 1"),
        (1999, "cpu", 8, "3 cells at a time take at least 2.0 GiB, and this machine has 2.0; use --jobs 2"),
        (2000, "cpu", 8, ""),
        (899, "cuda", 2, "seed 1 takes at least 0.9 GiB, and a GPU has 0.9"),
        (1599, "cuda", 2, ""),
    ],
)
def test_a_preview_tells_cells_that_the_machine_cannot_hold(write, monkeypatch, room, device, jobs, line):
    monkeypatch.setattr("mae_bench.preview.device_memory", lambda _: room * 2**20)
    found = too_large(sized(write, 400, 900, 700), jobs, device)
    assert found.endswith(line) if line else not found


def test_nothing_is_said_of_the_memory_of_cells_that_have_run(write, monkeypatch):
    monkeypatch.setattr("mae_bench.preview.device_memory", lambda _: 1)
    path = write(seeds=[0, 1])
    record = finish(plan(path).cells[0])
    assert too_large(previews(plan(path), "", Estimator([record], "cpu")), 2, "cpu") == "" == too_large([], 1, "cpu")


def test_the_machines_memory():
    assert 2**28 < device_memory("cpu") < 2**50


def test_passes_of_settings():
    assert passes({"epochs": 2, "drop_path": 0.1}, 100, 10) == 2 * 100 * 3 + 10
    assert passes({"steps": 5, "batch_size": 4, "drop_path": 0.1}, 100, 10) == 5 * 4 * 3 + 10
    assert passes({"k": 20}, 100, 10) == 110
    assert passes({"steps": 5, "batch_size": 4, "drop_path": 0.0, "frozen": True}, 100, 10) == 5 * 4 + 10


def test_limits_are_refused_before_anything_runs(write):
    found = previews(plan(write(seeds=[0, 1])), "", Estimator([], "cpu", lambda source: 1e-6))
    check_limits(found, Limits(cells=2))
    with pytest.raises(ConfigError, match=r"2 cells to run, and limits\.cells is 1"):
        check_limits(found, Limits(cells=1))
    with pytest.raises(ConfigError, match=r"limits\.hours is 0\.5"):
        check_limits(found, Limits(hours=0.5))


def test_a_request_of_a_grid_is_run_like_any_other(write):
    from mae_bench.cell import main
    from results.record import read_record

    [cell] = plan(write(tasks=[{"task": "steady", "settings": {"value": 12.5}}])).cells
    write_request(cell.folder, cell.request)
    assert read_request(cell.folder, pytest.fail) == cell.request
    assert main([str(cell.folder), "--key", cell.request.key]) == 0
    record = read_record(cell.folder / "record.json", pytest.fail)
    assert record is not None and record.metrics["top1"].value == 12.5


def test_times():
    assert [parse_time(text) for text in ("90", "45s", "30m", "1h30m", "1d2h3m4s")] == [90, 45, 1800, 5400, 93784]
    for text in ("", "h", "soon", "1.5h", "-3", "0"):
        with pytest.raises(ConfigError, match="is no time"):
            parse_time(text)
