"""What a cell's folder holds before it runs: records are never lost, saved trainings only where that is asked for."""

import json

import pytest

from mae_bench import runner
from mae_bench.options import Options, make_options
from mae_bench.runner import retry
from mae_bench.status import show_status
from results.keeping import kept, write_record
from results.record import read_record
from results.request import read_request, write_request
from tests.results.sample import Screen
from tests.runner.light_runner import command, key_of, make_cell, run, visits

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr(runner, "python", command)


def test_r15_a_record_of_other_settings_stays_until_the_new_one_is_written(tmp_path):
    old, new = make_cell(tmp_path, k=20), make_cell(tmp_path, k=30)
    run(tmp_path, old)
    (old.folder / "ckpt").mkdir()
    code, text = run(tmp_path, make_cell(tmp_path, k=30, mode="error"))
    assert code == 1 and key_of(old) == old.request.key  # what failed has replaced nothing
    code, text = run(tmp_path, new)
    assert code == 0 and "again: mae knn:demo" in text and "k 20 -> 30" in text and "30.00" in text
    assert (key_of(new), key_of(new, kept(new.folder, old.request.key).name)) == (new.request.key, old.request.key)
    assert not (new.folder / "ckpt").exists()


def test_r15_no_record_is_ever_lost_and_earlier_ones_come_back(tmp_path):
    cells = [make_cell(tmp_path, k=k) for k in (20, 30, 40)]
    for cell in cells:
        assert run(tmp_path, cell)[0] == 0
    for cell in cells:
        code, text = run(tmp_path, cell)
        assert code == 0 and "1 of 1 cell is finished and skipped" in text
        assert key_of(cell) == cell.request.key
    assert visits(cells[0]) == 1  # of the last one that ran; the others were brought back without running
    assert {path.name for path in cells[0].folder.glob("record.*.json")} >= {f"record.{cell.request.key}.json" for cell in cells}


def test_r15_planning_changes_no_record(tmp_path):
    old, new = make_cell(tmp_path, k=20), make_cell(tmp_path, k=30)
    run(tmp_path, old)
    before = (old.folder / "record.json").read_bytes()
    runner.cell_jobs([new], Options(), Screen())
    assert (old.folder / "record.json").read_bytes() == before
    console = Screen()
    show_status(tmp_path, console)
    assert "1 done, 1 planned" in console.text
    assert retry(tmp_path, Options(), console) == 0 and key_of(new) == new.request.key


def test_e01_a_cell_that_cannot_run_here_leaves_what_is_there_alone(tmp_path):
    run(tmp_path, make_cell(tmp_path, k=20))
    before = {path: path.read_bytes() for path in make_cell(tmp_path).folder.iterdir() if path.is_file()}
    code, text = run(tmp_path, make_cell(tmp_path, k=30, fault="task knn needs x; run: pip install x"))
    assert code == 1 and "pip install x" in text
    assert {path: path.read_bytes() for path in make_cell(tmp_path).folder.iterdir() if path.is_file()} == before


def interrupted(out, **words):
    """A cell that was stopped in its training."""
    cell = make_cell(out, **words)
    write_request(cell.folder, cell.request)
    (cell.folder / "status.json").write_text(json.dumps({"state": "stopped"}))
    (cell.folder / "ckpt").mkdir()
    return cell


def test_what_an_unfinished_cell_has_saved_is_kept_unless_it_is_of_other_settings(tmp_path):
    cell = interrupted(tmp_path / "a")
    assert run(tmp_path / "a", make_cell(tmp_path / "a"))[0] == 0 and (cell.folder / "ckpt").exists()
    cell = interrupted(tmp_path / "b")
    assert run(tmp_path / "b", make_cell(tmp_path / "b", k=9))[0] == 0 and not (cell.folder / "ckpt").exists()


def test_a_plan_that_was_never_run_costs_no_saved_training(tmp_path):
    cell = interrupted(tmp_path)
    runner.cell_jobs([make_cell(tmp_path, k=9)], Options(), Screen())
    assert run(tmp_path, cell)[0] == 0 and (cell.folder / "ckpt").exists()


def test_a_saved_training_in_another_precision_is_refused_and_not_thrown_away(tmp_path):
    cell = interrupted(tmp_path)
    for _ in range(2):
        code, text = run(tmp_path, make_cell(tmp_path, precision="bf16"))
        assert code == 1 and "go on with --precision fp32, or begin anew with --overwrite always" in text
        assert (cell.folder / "ckpt").exists() and not visits(cell)
    assert run(tmp_path, make_cell(tmp_path, precision="bf16"), overwrite="always")[0] == 0
    assert not (cell.folder / "ckpt").exists()


def test_a_finished_cell_counts_for_its_precision_only(tmp_path):
    run(tmp_path, make_cell(tmp_path))
    code, text = run(tmp_path, make_cell(tmp_path, precision="bf16"))
    assert code == 0 and "precision fp32 -> bf16" in text


def test_retry_runs_cells_as_they_were_asked_for(tmp_path):
    cell = make_cell(tmp_path, precision="bf16")
    write_request(cell.folder, cell.request.model_copy(update={"workers": 3, "threads": 2}))
    (cell.folder / "ckpt").mkdir()
    console = Screen()
    assert retry(tmp_path, make_options(device="cpu"), console) == 0
    there = read_request(cell.folder, pytest.fail)
    assert there is not None and (there.precision, there.workers, there.threads) == ("bf16", 3, 2)
    assert (cell.folder / "ckpt").exists() and "in bf16" in console.text and " -> " not in console.text


def test_retry_in_another_precision_says_so_and_throws_nothing_away(tmp_path):
    cell = interrupted(tmp_path)
    console = Screen()
    assert retry(tmp_path, make_options(device="cpu", precision="bf16"), console) == 1
    assert "precision fp32 -> bf16, as asked for now" in console.text and "go on with --precision fp32" in console.text
    assert (cell.folder / "ckpt").exists()


def test_overwrite(tmp_path):
    good, bad = make_cell(tmp_path, "good"), make_cell(tmp_path, "bad", mode="error")
    run(tmp_path, good, bad)
    (bad.folder / "ckpt").mkdir()
    run(tmp_path, good, bad)
    assert (visits(good), visits(bad)) == (1, 2) and (bad.folder / "ckpt").exists()
    run(tmp_path, good, bad, overwrite="failed")
    assert (visits(good), visits(bad)) == (1, 1) and not (bad.folder / "ckpt").exists()
    run(tmp_path, good, bad, overwrite="always")
    assert (visits(good), visits(bad)) == (1, 1) and kept(good.folder, good.request.key).exists()


def test_t09_a_cell_measured_twice_with_different_numbers_is_told(tmp_path):
    cell = make_cell(tmp_path)
    run(tmp_path, cell)
    record = read_record(cell.folder / "record.json", pytest.fail)
    assert record is not None
    other = {"top1": record.metrics["top1"].model_copy(update={"value": 19.0})}
    write_record(cell.folder, record.model_copy(update={"metrics": other}))
    code, text = run(tmp_path, cell, overwrite="always")
    assert code == 0 and "measured twice with different numbers: top1 19.0 -> 20.0" in text


@pytest.mark.parametrize("text", ["", "{", json.dumps({"schema": 99})])
@pytest.mark.parametrize("overwrite", ["", "always"])
def test_t03_a_record_that_cannot_be_read_is_refused_and_left_alone(tmp_path, text, overwrite):
    cell, good = make_cell(tmp_path), make_cell(tmp_path, "good")
    cell.folder.mkdir(parents=True)
    (cell.folder / "record.json").write_text(text)
    code, said = run(tmp_path, cell, good, overwrite=overwrite)
    assert code == 1 and key_of(good) and not visits(cell)
    assert "stays as it is" in said.splitlines()[-1] and str(cell.folder) in said.splitlines()[-1]
    assert (cell.folder / "record.json").read_text() == text
