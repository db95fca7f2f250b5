"""Runs: only what is missing, nothing twice, failures told at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mae_bench import runner
from mae_bench.core.errors import EnvironmentFault
from mae_bench.launch import BUSY_SECONDS
from mae_bench.options import Options, make_options
from mae_bench.runner import retry
from mae_bench.status import show_status
from results.request import write_request
from tests.results.sample import Screen
from tests.runner.light_runner import command, key_of, make_cell, run, visits

pytestmark = pytest.mark.slow

RUNNER = Path(__file__).with_name("light_runner.py")


@pytest.fixture(autouse=True)
def light(monkeypatch):
    monkeypatch.setattr(runner, "python", command)


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


def test_r12_a_diverged_cell_is_a_result_and_not_retried_silently(tmp_path):
    bad = make_cell(tmp_path, "bad", mode="diverge")
    code, _ = run(tmp_path, bad, make_cell(tmp_path, "good"))
    assert code == 1 and "| bad | div. |" in (tmp_path / "table.md").read_text()
    for again in (lambda: run(tmp_path, bad)[1], lambda: retried(tmp_path)):
        assert "--overwrite failed" in again() and visits(bad) == 1
    run(tmp_path, bad, overwrite="failed")
    assert visits(bad) == 1 and "1 done, 1 diverged" in status_text(tmp_path)


def retried(out):
    console = Screen()
    assert retry(out, make_options(device="cpu"), console) == 1
    return console.text


def status_text(out):
    console = Screen()
    show_status(out, console)
    return console.text


def test_a_table_that_cannot_be_written_hides_no_failure(tmp_path):
    bad = make_cell(tmp_path, "bad", mode="error")
    (tmp_path / "table.md").mkdir(parents=True)
    code, text = run(tmp_path, bad)
    assert code == 1 and "it is broken; mend it" in text and "table: cannot write" in text


def test_a_cell_that_cannot_start_leaves_the_others_running(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHT_SECONDS", "1")
    good, bad = make_cell(tmp_path, "good"), make_cell(tmp_path, "bad")
    bad.folder.mkdir(parents=True)
    (bad.folder / "log.txt").mkdir()
    code, text = run(tmp_path, good, bad)
    assert code == 1 and key_of(good) and visits(good) == 1
    assert "log.txt: Is a directory" in text.splitlines()[-1]


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
    assert "nothing to do: 3 cells in" in console.text


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
