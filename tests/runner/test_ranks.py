"""A cell as several processes under torchrun: one of them writes, and it ends as a cell of one process does."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mae_bench import ranks
from mae_bench.cell import main
from mae_bench.core.errors import InputError, Stopped
from mae_bench.job import work_in
from mae_bench.jobs import LOG, Job
from mae_bench.launch import run_jobs
from mae_bench.processes import start_here, torchrun
from results.record import read_record
from tests.runner.test_cell import make, record_of
from tests.runner.test_launch import SLOT, gone, quiet, wait_for


def job(folder, kind):
    return Job(kind, torchrun((sys.executable, "-m", "tests.runner.light_job", str(folder), kind), 2), folder)


def visitors(folder, count):
    """Process ids of all that work in a folder, once they do."""
    deadline = time.monotonic() + 100
    while len(found := (folder / "visits").read_text().split()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [int(line) for line in found]


def test_of_several_processes_of_a_cell_the_main_one_alone_writes(tmp_path, images, monkeypatch):
    one = make(tmp_path, images)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    before = {path.name for path in one.folder.iterdir()}
    assert main([str(one.folder)]) == 0
    assert {path.name for path in one.folder.iterdir()} - before == {"visits"}  # which the fake task leaves
    monkeypatch.setenv("RANK", "0")
    assert main([str(one.folder)]) == 0
    record = record_of(one)
    assert record is not None and read_record(one.folder / "record.json", pytest.fail) == record


@pytest.mark.parametrize(("rank", "error", "waits"), [("1", InputError, [5.0]), ("0", InputError, []), ("1", Stopped, [])])
def test_with_an_error_the_main_process_ends_first(tmp_path, monkeypatch, rank, error, waits):
    slept: list[float] = []
    monkeypatch.setattr("mae_bench.job.time.sleep", slept.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)

    def work():
        raise error("broken")

    assert work_in(tmp_path, work) == error.exit_code and slept == waits


@pytest.mark.slow
def test_a_cell_of_two_processes_ends_as_its_main_one_does(tmp_path):
    done, failed = run_jobs([job(tmp_path / "a", "ok"), job(tmp_path / "b", "fail")], SLOT, quiet())
    assert done.state == "done" and len((tmp_path / "a" / "visits").read_text().split()) == 2
    assert json.loads((tmp_path / "a" / "status.json").read_text())["state"] == "done"
    assert (failed.state, failed.message) == ("failed", "the checkpoint is broken; fetch it again")
    assert json.loads((tmp_path / "b" / "status.json").read_text())["exit_code"] == 3


@pytest.mark.slow
def test_a_process_that_the_system_kills_is_told_and_the_cell_tried_once_more(tmp_path):
    (outcome,) = run_jobs([job(tmp_path / "a", "kill-other")], SLOT, quiet())
    assert outcome.state == "failed" and outcome.message.startswith("killed by SIGKILL; the system may have been out of memory")
    assert len((tmp_path / "a" / "visits").read_text().split()) == 4
    assert json.loads((tmp_path / "a" / "status.json").read_text())["message"] == outcome.message


@pytest.mark.slow
def test_an_error_that_another_process_than_the_main_one_meets_alone_is_told(tmp_path):
    (outcome,) = run_jobs([job(tmp_path / "a", "fail-alone")], SLOT, quiet())
    message = "process 1 of 2: image 3 is broken; fetch it again"
    assert (outcome.state, outcome.message) == ("failed", message)
    status = json.loads((tmp_path / "a" / "status.json").read_text())
    assert (status["state"], status["message"], status["exit_code"]) == ("failed", message, 3)


def ends(folder, monkeypatch, rank, error):
    """Exit code of one of two processes and the status it leaves."""
    monkeypatch.setattr("mae_bench.job.time.sleep", lambda seconds: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("MASTER_PORT", "1234")

    def work():
        if rank == "0":  # while it works, the other one does
            (folder / "begun.json").write_text((folder / "status.json").read_text())
            (folder / "status.json").write_text((folder / "other.json").read_text())
        raise error

    code = work_in(folder, work)
    return code, json.loads((folder / "status.json").read_text())


def test_what_the_main_process_meets_after_anothers_error_is_not_told(tmp_path, monkeypatch):
    told = {"state": "failed", "message": "process 1 of 2: broken", "exit_code": 4}
    (tmp_path / "other.json").write_text(json.dumps(told))
    assert ends(tmp_path, monkeypatch, "0", RuntimeError("Connection closed by peer")) == (4, told)
    assert ends(tmp_path, monkeypatch, "0", Stopped("stopped by SIGTERM")) == (4, told)


def test_another_process_tells_its_error_only_while_its_own_main_one_works(tmp_path, monkeypatch):
    (tmp_path / "other.json").write_text("{}")
    ends(tmp_path, monkeypatch, "0", InputError("this one"))
    assert ends(tmp_path, monkeypatch, "1", InputError("other"))[1]["message"] == "this one"
    begun = json.loads((tmp_path / "begun.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(begun | {"training": "another"}))
    assert ends(tmp_path, monkeypatch, "1", InputError("other"))[1]["state"] == "running"
    (tmp_path / "status.json").write_text(json.dumps(begun))
    assert ends(tmp_path, monkeypatch, "1", InputError("other"))[1]["message"] == "process 1 of 2: other"


@pytest.mark.slow
def test_r02_r13_a_cell_of_two_processes_is_stopped_as_one(tmp_path):
    one = job(tmp_path / "a", "swallow")
    one.folder.mkdir()
    process = start_here(one, {})
    try:
        wait_for(one.folder / "visits", seconds=200)
        both = visitors(one.folder, 2)
        process.terminate()
        deadline = time.monotonic() + 100
        while (code := process.poll()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
    assert code == 75 and all(gone(pid) for pid in both), (one.folder / LOG).read_text()
    assert json.loads((one.folder / "status.json").read_text())["state"] == "stopped"


@pytest.mark.slow
def test_r19_a_cell_of_two_processes_ends_with_the_program_that_started_it(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    script = f"""
import sys, time
from pathlib import Path
from mae_bench.jobs import Job
from mae_bench.processes import start_here, torchrun
words = torchrun((sys.executable, "-m", "tests.runner.light_job", {str(folder)!r}, "sleep"), 2)
start_here(Job("a", words, Path({str(folder)!r})), {{}})
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_for(folder / "visits", seconds=200)
    both = visitors(folder, 2)
    parent.kill()
    parent.wait()
    assert all(gone(pid, 60) for pid in both)


def test_the_code_of_the_process_that_tells_most_is_the_cells(monkeypatch):
    class Failed:
        def __init__(self, exitcode, timestamp=0):
            self.exitcode, self.timestamp = exitcode, timestamp

    assert ranks._end_as({0: Failed(76, 9), 1: Failed(-15, 1)}) == 76  # type: ignore[dict-item]
    assert ranks._end_as({2: Failed(3, 9), 1: Failed(4, 1)}) == 4  # type: ignore[dict-item]
    assert ranks._end_as({0: Failed(-11)}) == 139  # type: ignore[dict-item]
    # Stopped as another has failed, by torchrun or by itself; killed as it did not stop.
    for consequence in (-15, 75, -9, 1):
        assert ranks._end_as({0: Failed(consequence), 1: Failed(3)}) == 3  # type: ignore[dict-item]
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
    ranks._end_as({0: Failed(-9)})  # type: ignore[dict-item]
    ranks._end_as({0: Failed(1), 1: Failed(-9), 2: Failed(-15)})  # type: ignore[dict-item]
    assert killed == [signal.SIGKILL] * 2
