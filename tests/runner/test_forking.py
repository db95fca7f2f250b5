"""Cells forked from one process: each is a process of its own as if it had been started by itself."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mae_bench import forking
from mae_bench.display import PlainDisplay
from mae_bench.jobs import Job
from mae_bench.launch import run_jobs
from tests.results.sample import Screen
from tests.runner.light_parent import FORKED, jobs
from tests.runner.test_launch import PARENT, gone, pids, wait_for

pytestmark = pytest.mark.slow

PLACES = [{"PLACE": "here"}] * 2


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    monkeypatch.setattr(forking, "FORKED", (FORKED,))


def run(found: list[Job], modules: tuple[str, ...] = (), places: list[dict[str, str]] = PLACES):
    with forking.forking("cpu", modules) as start:
        outcomes = run_jobs(found, places, PlainDisplay(Screen()), start)
    return {outcome.job.name: outcome for outcome in outcomes}


def facts(folder: Path):
    return json.loads((folder / "facts.json").read_text())


def test_a_forked_job_is_a_process_of_its_own(tmp_path):
    first, second = asked = jobs(tmp_path, ["tell", "tell"], forked=True)
    assert {outcome.state for outcome in run(asked).values()} == {"done"}
    told = [facts(job.folder) for job in asked]
    assert told[0]["pid"] != told[1]["pid"] and told[0]["parent"] == told[1]["parent"] != os.getpid()
    assert all(one["group"] == one["pid"] and one["place"] == "here" for one in told)
    for job, one in zip((first, second), told, strict=True):  # `ps` shows which cell it is, and the log how it was started
        assert [word for word in one["shown"] if word] == list(job.command)
        [line] = (job.folder / "log.txt").read_text().splitlines()
        assert line.endswith(" ".join(job.command))
    assert gone(told[0]["parent"], 5)


def test_r17_every_end_is_told_as_of_a_process_started_by_itself(tmp_path):
    found = run(jobs(tmp_path, ["ok", "fail", "crash", "killed", "ok"], forked=True))
    assert [found[name].state for name in sorted(found)] == ["done", "failed", "failed", "failed", "done"]
    assert found["1-fail"].message == "the checkpoint is broken; fetch it again"
    assert found["2-crash"].message == "RuntimeError: a fault of two lines"
    assert "killed by SIGKILL" in found["3-killed"].message
    assert "Traceback" in found["2-crash"].log.read_text() and "Traceback" not in found["1-fail"].log.read_text()
    assert len((tmp_path / "3-killed" / "visits").read_text().split()) == 2  # run once more, as the system may have been short


def test_a_forked_job_over_its_time_is_killed_with_its_group(tmp_path, monkeypatch):
    monkeypatch.setattr("mae_bench.launch.GRACE_SECONDS", 0.5)
    late, after = jobs(tmp_path, ["stubborn", "ok"], forked=True)
    found = run([replace(late, time_limit=8.0, weight=9), after], places=PLACES[:1])
    assert found[late.name].state == "failed" and "its time limit of 8 s is over" in found[late.name].message
    assert found[after.name].state == "done" and all(gone(pid, 0.5) for pid in pids(late.folder))


def start_parent(out, kinds, parallel):
    command = [sys.executable, str(PARENT), str(out), kinds, str(parallel), "forked"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_r02_r19_forked_jobs_stop_with_the_program_that_runs_them(tmp_path, number):
    parent = start_parent(tmp_path, "sleep,swallow", 2)
    folders = tmp_path / "0-sleep", tmp_path / "1-swallow"
    wait_for(*(folder / "ready" for folder in folders))
    parent.send_signal(number)
    parent.communicate(timeout=60)
    assert parent.returncode == (-number if number == signal.SIGKILL else 75)
    assert all(gone(pid) for pid in pids(*folders)) and (folders[1] / "saved").exists()
    assert json.loads((folders[0] / "status.json").read_text())["state"] == "stopped"


def test_r03_a_second_signal_kills_a_forked_job(tmp_path):
    parent = start_parent(tmp_path, "stubborn", 1)
    wait_for(tmp_path / "0-stubborn" / "ready")
    parent.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        parent.communicate(timeout=1)
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=60)
    assert parent.returncode == 75 and all(gone(pid, 0.5) for pid in pids(tmp_path / "0-stubborn"))


def test_when_the_server_is_killed_its_jobs_stop_and_are_run_once_more_from_another(tmp_path):
    [job] = jobs(tmp_path, ["sleep"], forked=True)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, [replace(job, time_limit=30.0)])
        wait_for(job.folder / "ready")
        [first] = pids(job.folder)
        os.kill(int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert gone(first)
        while len(pids(job.folder)) < 1 or pids(job.folder)[-1] == first:
            assert not running.done()
        os.kill(pids(job.folder)[-1], signal.SIGTERM)
        assert "something else" in running.result(timeout=60)[job.name].message


@pytest.mark.parametrize(
    ("modules", "why"), [(("no_such_module",), "ModuleNotFoundError"), (("tests.runner.threaded",), "1 thread ")]
)
def test_where_nothing_can_be_forked_a_job_is_started_by_itself_and_its_log_says_why(tmp_path, modules, why):
    [job] = jobs(tmp_path, ["tell"], forked=True)
    assert run([job], modules)[job.name].state == "done"
    assert facts(job.folder)["parent"] == os.getpid()
    assert "not forked" in job.folder.joinpath("log.txt").read_text() and why in job.folder.joinpath("log.txt").read_text()


def test_other_commands_places_and_devices_are_not_forked(tmp_path):
    plain, odd = jobs(tmp_path, ["tell"])[0], jobs(tmp_path / "odd", ["tell", "tell"], forked=True)
    assert {one.state for one in run([plain, *odd], places=[{"PLACE": "a"}, {"PLACE": "b"}]).values()} == {"done"}
    assert facts(plain.folder)["parent"] == os.getpid()
    assert len({facts(job.folder)["parent"] for job in odd}) <= 2
    with forking.forking("cuda") as start:
        assert start is forking.start_here


def test_what_cells_need_is_imported_without_a_thread_however_many_may_be_used():
    script = f"from mae_bench.fork_server import preload; print(preload({forking.PRELOADED!r}))"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "4")
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **threads}, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "\n", done.stdout + done.stderr


def test_a_thread_would_be_noticed():
    script = "from mae_bench.fork_server import preload; print(preload(['tests.runner.threaded']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "has started 1 thread by what it imports\n"
