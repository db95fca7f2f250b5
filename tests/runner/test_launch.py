"""Jobs: told apart by how they end, stopped together, never left alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mae_bench.core.errors import InputError
from mae_bench.display import PlainDisplay
from mae_bench.jobs import Job
from mae_bench.launch import check_stopped, run_jobs
from mae_bench.locks import is_locked
from tests.results.sample import Screen
from tests.runner.conftest import held
from tests.runner.light_parent import JOB, jobs

pytestmark = pytest.mark.slow

PARENT = Path(__file__).with_name("light_parent.py")
SLOT: list[dict[str, str]] = [{}]


def quiet():
    return PlainDisplay(Screen())


def wait_for(*paths, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not come"
        time.sleep(0.05)


def gone(pid, seconds=20.0):
    """Whether a process ends, or has; a defunct one whose new parent has not asked for it counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def start_parent(out, kinds, parallel=2):
    return subprocess.Popen([sys.executable, str(PARENT), str(out), kinds, str(parallel)], stderr=subprocess.PIPE, text=True)


def pids(*folders):
    return [int((folder / "visits").read_text().split()[-1]) for folder in folders]


def test_r17_a_failed_job_is_told_and_the_others_run(tmp_path):
    outcomes = run_jobs(jobs(tmp_path, ["ok", "fail", "crash", "killed", "ok"]), [{}, {}], quiet())
    found = {outcome.job.name: outcome for outcome in outcomes}
    states = [found[name].state for name in sorted(found)]
    assert states == ["done", "failed", "failed", "failed", "done"], outcomes
    assert found["1-fail"].message == "the checkpoint is broken; fetch it again"
    assert found["2-crash"].message == "RuntimeError: a fault of two lines"
    assert "SIGKILL" in found["3-killed"].message and "memory" in found["3-killed"].message
    assert "Traceback" in found["2-crash"].log.read_text() and "Traceback" not in found["1-fail"].log.read_text()
    assert json.loads((tmp_path / "1-fail" / "status.json").read_text())["exit_code"] == 3
    killed = json.loads((tmp_path / "3-killed" / "status.json").read_text())  # r11: it could not say so itself
    assert killed["state"] == "failed" and killed["message"] == found["3-killed"].message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_job_stopped_by_something_else_does_not_stop_the_others(tmp_path, number):
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run_jobs, jobs(tmp_path, ["sleep", "ok", "ok"]), SLOT, quiet())
        wait_for(tmp_path / "0-sleep" / "ready")
        os.kill(pids(tmp_path / "0-sleep")[0], number)
        outcomes = running.result(timeout=60)
    found = {outcome.job.name: outcome for outcome in outcomes}
    assert [found[name].state for name in sorted(found)] == ["failed", "done", "done"]
    assert "by something else than this program" in found["0-sleep"].message
    check_stopped(outcomes)  # raises nothing: this program was not asked to stop


@pytest.mark.parametrize("kind", ["sleep", "stubborn"])
def test_a_job_over_its_time_is_stopped_and_the_others_go_on(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("mae_bench.launch.GRACE_SECONDS", 0.5)
    late, after = jobs(tmp_path, [kind, "ok"])
    outcomes = run_jobs([replace(late, time_limit=8.0, weight=9), after], SLOT, quiet())
    found = {outcome.job.name: outcome for outcome in outcomes}
    assert found[late.name].state == "failed" and "its time limit of 8 s is over" in found[late.name].message
    assert found[after.name].state == "done" and all(gone(pid, 0.5) for pid in pids(late.folder))
    check_stopped(outcomes)


def test_r11_a_job_that_crashes_in_foreign_code_is_told(tmp_path):
    script = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    [outcome] = run_jobs([Job("x", (sys.executable, "-c", script), tmp_path / "x")], SLOT, quiet())
    assert outcome.state == "failed" and "SIGSEGV" in outcome.message
    assert json.loads((tmp_path / "x" / "status.json").read_text())["state"] == "failed"


def test_a_job_that_cannot_start_leaves_the_others_alone(tmp_path):
    def refuse():
        raise InputError("that folder is not to be touched")

    bad = [
        Job("a", ("/no/such/program",), tmp_path / "a", weight=9),
        Job("b", ("true",), tmp_path / "b", weight=8, prepare=refuse),
    ]
    after = Job("c", (sys.executable, "-c", ""), tmp_path / "c", weight=7, then=refuse)
    outcomes = run_jobs([*bad, after, *jobs(tmp_path, ["ok"])], SLOT, quiet())
    found = {(outcome.job.name, outcome.state): outcome.message for outcome in outcomes}
    assert "/no/such/program: No such file" in found["a", "failed"]
    assert found["b", "failed"] == "that folder is not to be touched"
    assert found["c", "failed"] == "what follows it cannot be run: that folder is not to be touched"
    assert ("c", "done") in found and ("0-ok", "done") in found


def test_a_job_that_dies_without_a_word_is_told_by_its_log(tmp_path):
    script = "import sys; print('first'); print('what broke', file=sys.stderr); sys.exit(9)"
    [outcome] = run_jobs([Job("x", (sys.executable, "-c", script), tmp_path / "x")], SLOT, quiet())
    assert (outcome.state, outcome.message) == ("failed", "what broke")


def test_the_longest_is_started_first_and_jobs_give_jobs(tmp_path):
    started = []

    class Watch(PlainDisplay):
        def begin(self, job):
            started.append(job.name)

    def job(name: str, weight: float, then: Callable[[], Sequence[Job]] = tuple) -> Job:
        return Job(name, (sys.executable, "-c", ""), tmp_path / name, weight=weight, then=then)

    outcomes = run_jobs([job("short", 1), job("long", 9, lambda: [job("later", 5)]), job("middle", 3)], SLOT, Watch(Screen()))
    assert started == ["long", "later", "middle", "short"]
    assert len(outcomes) == 4


def test_slots_give_each_job_its_environment(tmp_path):
    script = "import os, pathlib; pathlib.Path('seen').write_text(os.environ['PLACE'])"
    words = [(f'cd {tmp_path / name} && exec {sys.executable} -c "{script}"') for name in "ab"]
    run_jobs(
        [Job(name, ("sh", "-c", word), tmp_path / name) for name, word in zip("ab", words, strict=True)],
        [{"PLACE": "one"}, {"PLACE": "two"}],
        quiet(),
    )
    assert {(tmp_path / name / "seen").read_text() for name in "ab"} == {"one", "two"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_r02_r03_r04_a_signal_stops_all_jobs_and_the_exit_code_is_75(tmp_path, number):
    parent = start_parent(tmp_path, "sleep,swallow,sleep")
    folders = tmp_path / "0-sleep", tmp_path / "1-swallow"
    wait_for(*(folder / "ready" for folder in folders))
    parent.send_signal(number)
    _, error = parent.communicate(timeout=30)
    assert parent.returncode == 75, error
    assert len(error.strip().splitlines()) == 1 and "goes on from there" in error
    assert all(gone(pid, 0.5) for pid in pids(*folders))
    assert (folders[1] / "saved").exists() and not (tmp_path / "2-sleep").exists()
    assert json.loads((folders[0] / "status.json").read_text())["state"] == "stopped"


def test_r03_a_second_signal_kills(tmp_path):
    parent = start_parent(tmp_path, "stubborn", 1)
    folder = tmp_path / "0-stubborn"
    wait_for(folder / "ready")
    parent.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert parent.poll() is None
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=30)
    assert parent.returncode == 75
    assert all(gone(pid, 0.5) for pid in pids(folder))


def test_r19_jobs_end_when_the_program_that_started_them_is_killed(tmp_path):
    parent = start_parent(tmp_path, "sleep,swallow")
    folders = tmp_path / "0-sleep", tmp_path / "1-swallow"
    wait_for(*(folder / "ready" for folder in folders))
    parent.kill()
    parent.communicate(timeout=30)
    assert all(gone(pid) for pid in pids(*folders))
    assert (folders[1] / "saved").exists()
    assert not any(is_locked(folder) for folder in folders)


def test_t02_a_busy_folder_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("mae_bench.launch.BUSY_SECONDS", 0.3)
    [job] = jobs(tmp_path, ["ok"])
    with ThreadPoolExecutor() as pool:
        with held(job.folder):
            running = pool.submit(run_jobs, [job], SLOT, quiet())
            time.sleep(1)
            assert not (job.folder / "visits").exists()
        [outcome] = running.result()
    assert outcome.state == "done" and len(pids(job.folder)) == 1


def test_a_folder_finished_elsewhere_is_not_run(tmp_path):
    [outcome] = run_jobs([Job("x", (sys.executable, JOB, "never"), tmp_path / "x", prepare=lambda: "done")], SLOT, quiet())
    assert outcome.state == "elsewhere" and not (tmp_path / "x").exists()


def test_a_fault_of_the_display_leaves_no_job_behind(tmp_path):
    class Broken(PlainDisplay):
        def watch(self, running, waiting):
            if (tmp_path / "0-sleep" / "ready").exists():
                raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError):
        run_jobs(jobs(tmp_path, ["sleep"]), SLOT, Broken(Screen()))
    assert all(gone(pid, 0.5) for pid in pids(tmp_path / "0-sleep"))
    assert os.getpid() not in pids(tmp_path / "0-sleep")


def test_r18_failures_of_one_kind_in_a_row_stop_what_has_not_begun(tmp_path):
    outcomes = run_jobs(jobs(tmp_path, ["fail"] * 8), SLOT, quiet())
    assert [outcome.state for outcome in outcomes] == ["failed"] * 8
    assert sum((tmp_path / f"{number}-fail" / "visits").exists() for number in range(8)) == 5
    assert outcomes[-1].message.startswith("not started: 5 in a row failed alike, the last with: the checkpoint is broken")


def test_r18_unlike_failures_and_ones_with_a_success_between_do_not(tmp_path):
    kinds = ["fail", "fail", "fail", "fail", "ok", "fail", "crash", "fail", "crash", "fail"]
    outcomes = run_jobs(jobs(tmp_path, kinds), SLOT, quiet())
    assert sum((outcome.job.folder / "visits").exists() for outcome in outcomes) == len(kinds)
