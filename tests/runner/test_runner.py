"""Runs: only what is missing, nothing twice, failures told at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mae_bench import runner
from mae_bench.core.errors import EnvironmentFault
from mae_bench.launch import BUSY_SECONDS
from mae_bench.options import Options
from mae_bench.runner import STALE, retry, run_plan
from mae_bench.status import show_status
from results.record import read_record
from results.request import write_request
from tests.results.sample import Screen
from tests.runner.light_runner import command, make_cell, make_plan

RUNNER = Path(__file__).with_name("light_runner.py")


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr(runner, "python", command)


def run(out, *cells, **options):
    """Exit code and what was said."""
    console = Screen()
    code = run_plan(make_plan(*cells), out, Options(jobs=2, **options), console)
    return code, console.text


def visits(cell):
    path = cell.folder / "visits"
    return len(path.read_text()) if path.exists() else 0


def key_of(cell, name="record.json"):
    record = read_record(cell.folder / name, pytest.fail)
    return None if record is None else record.key


def test_a_second_run_skips_what_is_done_and_says_the_same(tmp_path):
    cells = [make_cell(tmp_path, name) for name in ("zeta", "alpha")]
    code, text = run(tmp_path, *cells)
    table = (tmp_path / "table.md").read_bytes()
    assert code == 0 and "20.00" in text and table.index(b"zeta") < table.index(b"alpha")
    code, text = run(tmp_path, *cells)
    assert code == 0 and "2 of 2 cells are finished and skipped" in text
    assert [visits(cell) for cell in cells] == [1, 1]
    assert (tmp_path / "table.md").read_bytes() == table


def test_r17_a_failing_cell_is_reported_and_the_others_run(tmp_path):
    good, bad = make_cell(tmp_path, "good"), make_cell(tmp_path, "bad", mode="error")
    code, text = run(tmp_path, bad, good)
    assert code == 1 and key_of(good) and not key_of(bad)
    assert f"it is broken; mend it (log: {bad.folder / 'log.txt'})" in text.splitlines()[-1]
    assert "failed" in (tmp_path / "table.md").read_text()


def test_e01_a_cell_that_cannot_run_here_is_reported_and_the_others_run(tmp_path):
    good, bad = make_cell(tmp_path, "good"), make_cell(tmp_path, "bad", fault="task knn needs x; run: pip install x")
    code, text = run(tmp_path, bad, good)
    assert code == 1 and key_of(good) and visits(bad) == 0
    assert text.splitlines()[-1].endswith("task knn needs x; run: pip install x")
    console = Screen()
    show_status(tmp_path, console)
    assert "1 done, 1 failed" in console.text and "pip install x" in console.text


def test_r15_a_record_of_other_settings_is_stale_and_kept_aside(tmp_path):
    old, new = make_cell(tmp_path, k=20), make_cell(tmp_path, k=30)
    run(tmp_path, old)
    (old.folder / "ckpt").mkdir()
    code, text = run(tmp_path, new)
    assert code == 0 and "again: mae knn:demo" in text and "30.00" in text
    assert (key_of(new), key_of(new, STALE)) == (new.request.key, old.request.key)
    assert not (new.folder / "ckpt").exists()


def test_what_an_unfinished_cell_has_saved_is_kept_unless_it_is_of_another_one(tmp_path):
    others = {"same": (make_cell(tmp_path), True), "k": (make_cell(tmp_path, k=9), False)}
    others["precision"] = make_cell(tmp_path, precision="bf16"), False
    for other, kept in others.values():
        first = make_cell(tmp_path)
        (first.folder / "record.json").unlink(missing_ok=True)
        write_request(first.folder, first.request)
        (first.folder / "ckpt").mkdir(exist_ok=True)
        assert run(tmp_path, other)[0] == 0
        assert (first.folder / "ckpt").exists() == kept


def test_overwrite(tmp_path):
    good, bad = make_cell(tmp_path, "good"), make_cell(tmp_path, "bad", mode="error")
    run(tmp_path, good, bad)
    (bad.folder / "ckpt").mkdir()
    run(tmp_path, good, bad)
    assert (visits(good), visits(bad)) == (1, 2) and (bad.folder / "ckpt").exists()
    run(tmp_path, good, bad, overwrite="failed")
    assert (visits(good), visits(bad)) == (1, 1) and not (bad.folder / "ckpt").exists()
    run(tmp_path, good, bad, overwrite="always")
    assert (visits(good), visits(bad)) == (1, 1) and key_of(good, STALE) == key_of(good)


@pytest.mark.parametrize("text", ["", "{", json.dumps({"schema": 99})])
def test_t03_a_broken_record_is_measured_again_and_kept_aside(tmp_path, text):
    cell = make_cell(tmp_path)
    cell.folder.mkdir(parents=True)
    (cell.folder / "record.json").write_text(text)
    code, said = run(tmp_path, cell)
    assert code == 0 and key_of(cell) == cell.request.key and "warning: " in said
    assert (cell.folder / STALE).read_text() == text


def test_r17_retry_runs_what_is_not_done(tmp_path, monkeypatch):
    good, bad = make_cell(tmp_path, "good"), make_cell(tmp_path, "bad", mode="error")
    planned = make_cell(tmp_path, "planned")
    run(tmp_path, good, bad)
    write_request(planned.folder, planned.request)
    console = Screen()
    assert retry(tmp_path, Options(jobs=2, threads=1), console) == 1
    assert [visits(cell) for cell in (good, bad, planned)] == [1, 2, 1]
    run(tmp_path, make_cell(tmp_path, "bad", k=1))
    assert retry(tmp_path, Options(), console) == 0
    assert "nothing to do: all 3 cells" in console.text


def test_t02_two_runs_on_one_folder_measure_no_cell_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHT_SECONDS", "0.5")
    words = [sys.executable, str(RUNNER), str(tmp_path)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    counts = [len(path.read_text()) for path in sorted(tmp_path.glob("*/*/*/*/visits"))]
    assert counts == [1] * 6
    assert all(text.count("21.00") >= 1 for text in said)
    assert BUSY_SECONDS < 10


def test_u10_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    cell = make_cell(tmp_path / "file")
    with pytest.raises(EnvironmentFault, match="choose another -o"):
        run(tmp_path / "file", cell)


def test_status_tells_what_is_missing(tmp_path):
    done, failed, planned, cut = (make_cell(tmp_path, name) for name in ("done", "failed", "planned", "cut"))
    run(tmp_path, done, make_cell(tmp_path, "failed", mode="error"))
    for cell in (planned, cut):
        write_request(cell.folder, cell.request)
    (cut.folder / "status.json").write_text(json.dumps({"state": "running"}))
    (cut.folder / "elapsed.json").write_text(json.dumps({"seconds": 65.0}))
    console = Screen()
    show_status(tmp_path, console)
    text = console.text
    assert "1 done, 1 failed, 1 interrupted, 1 planned" in text and "1:05 so far" in text
    assert f"mae-bench retry {tmp_path}" in text and str(failed.folder / "log.txt") in text
