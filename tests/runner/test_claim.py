"""Claims: a dead machine's is taken over, a living one's never, whatever clocks say, with locks of the file system or without."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mae_bench import claim, job, locks
from mae_bench.claim import STALE_SECONDS, Busy, Lock, take
from mae_bench.claim_file import NAME
from mae_bench.core import patience
from mae_bench.core.errors import EnvironmentFault
from mae_bench.living import here, started_at
from mae_bench.locks import holder, is_locked, locked
from tests.runner.conftest import held

FAR = {"host": "far", "boot": "of another machine", "space": "", "pid": 1, "started": "1", "token": "t"}


@pytest.fixture
def clock(monkeypatch):
    """The watcher's monotonic clock, set by hand."""
    now = [1000.0]
    monkeypatch.setattr(claim.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claim, "_watched", {})
    return now


def leave(folder, beats=0, number=1, **facts):
    path = folder / f"{NAME}{number}"
    path.write_text(json.dumps({**FAR, **facts, "beats": beats}))
    return path


def taken(folder, lock: Lock = "mine"):
    try:
        take(folder, lock).release()
    except Busy:
        return False
    return True


@pytest.mark.parametrize("lock", ["mine", "other", "none"])
def test_r20_the_claim_of_a_dead_machine_is_taken_over_when_it_has_not_changed_for_long(tmp_path, clock, lock):
    leave(tmp_path)
    for seconds in (0, 1, STALE_SECONDS - 2):
        clock[0] += seconds
        assert not taken(tmp_path, lock)
    clock[0] += 2
    assert taken(tmp_path, lock)
    assert not list(tmp_path.iterdir())


def test_r16_a_living_claim_is_never_taken_over_whatever_its_clock_says(tmp_path, clock, monkeypatch):
    for beats in range(50):
        path = leave(tmp_path, beats)
        os.utime(path, ((0, 0), (4e9, 4e9))[beats % 2])
        monkeypatch.setattr(claim.time, "time", lambda: (-1) ** beats * 1e9)  # noqa: B023
        clock[0] += STALE_SECONDS - 1
        assert not taken(tmp_path)


def test_a_claim_that_somebody_else_has_taken_over_and_let_go_is_not_what_was_watched(tmp_path, clock, monkeypatch):
    """While this process was about to take the old claim over, another one has done so and a third one has begun."""
    leave(tmp_path)
    assert not taken(tmp_path)
    clock[0] += STALE_SECONDS
    whole = claim.make

    def late(path, content):
        leave(tmp_path, token="of the third")
        return whole(path, content)

    monkeypatch.setattr(claim, "make", late)
    assert not taken(tmp_path)
    assert [json.loads(path.read_text())["token"] for path in tmp_path.iterdir()] == ["of the third"]


@pytest.mark.parametrize("links", [True, False])
def test_r20_one_alone_of_many_takes_a_dead_claim_over(tmp_path, clock, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    leave(tmp_path)
    assert not taken(tmp_path)
    clock[0] += STALE_SECONDS
    held_now = []

    def attempt(number):
        try:
            held_now.append(take(tmp_path, "none"))
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(64))) == 1
    [one] = held_now
    assert not taken(tmp_path, "none")
    one.release()
    assert not list(tmp_path.iterdir())


def test_t02_a_process_of_this_machine_is_known_to_live_or_to_be_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    facts = {**here(), "pid": child.pid, "started": started_at(child.pid)}
    leave(tmp_path, **facts)
    assert not taken(tmp_path, "none") and not taken(tmp_path, "other")
    child.kill()
    child.wait()
    assert taken(tmp_path, "none")
    leave(tmp_path, **{**facts, "pid": os.getpid()})  # the number has been given to another process since
    assert taken(tmp_path, "none")
    leave(tmp_path, **here())
    assert taken(tmp_path, "mine")  # who holds the kernel's lock knows that nobody else of this machine does


def test_a_claim_beats_and_one_that_was_taken_over_ends_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.02)
    lost = []
    mine = take(tmp_path, "mine", lost.append)
    path = tmp_path / f"{NAME}1"
    first = path.read_bytes()
    wait_until(lambda: path.read_bytes() != first)
    assert len(path.read_bytes()) == len(first)  # so that it takes no room on a full disk
    path.unlink()
    leave(tmp_path, number=2)
    wait_until(lambda: lost)
    mine.release()
    assert [one.name for one in tmp_path.iterdir()] == [f"{NAME}2"]


def test_work_that_is_done_stays_done_when_its_claim_cannot_be_let_go(tmp_path, monkeypatch):
    """The server of the files is away at that moment; the claim goes stale."""

    def away(self, missing_ok=False):
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))
    mine = take(tmp_path, "mine")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", away)
        mine.release()
    assert taken(tmp_path, "mine") and not list(tmp_path.iterdir())


def test_a_cell_that_stood_still_for_too_long_stops(tmp_path):
    script = f"""
import time
from pathlib import Path
from mae_bench import claim, job
claim.BEAT_SECONDS = 0.05
def work():
    Path({str(tmp_path / "ready")!r}).touch()
    time.sleep(60)
job.work_in(Path({str(tmp_path / "cell")!r}), work)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "ready").exists)
    next((tmp_path / "cell").glob(f"{NAME}*")).unlink()
    _, said = child.communicate(timeout=60)
    assert child.returncode == job.BUSY and "another process has taken over" in said


def wait_until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refusing(number, times=10**9):
    """A call of the system that fails some times and then does nothing."""
    left = [times]

    def call(*words):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_t05_a_file_system_without_locks_still_has_one_process_at_a_folder(tmp_path, monkeypatch, number):
    with held(tmp_path):
        monkeypatch.setattr(fcntl, "lockf", refusing(number))
        with pytest.raises(Busy), locked(tmp_path):
            pass
        assert is_locked(tmp_path)
    with locked(tmp_path):
        assert list(tmp_path.glob(f"{NAME}*"))
    assert not list(tmp_path.glob(f"{NAME}*"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("what", ["lockf", "listdir", "link"])
def test_t05_a_fault_that_passes_is_waited_for_and_one_that_stays_is_one_line(tmp_path, monkeypatch, number, what):
    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))
    place = fcntl if what == "lockf" else os
    whole = getattr(place, what)

    def fault(times):
        failing = refusing(number, times)
        monkeypatch.setattr(place, what, lambda *words: (failing(), whole(*words))[1])

    fault(2)
    with locked(tmp_path / "a"):
        pass
    fault(10**9)
    with pytest.raises(EnvironmentFault) as raised, locked(tmp_path / "b"):
        pass
    assert str(tmp_path / "b") in str(raised.value) and "\n" not in str(raised.value)


def test_status_names_the_machine_that_works_in_a_folder(tmp_path):
    leave(tmp_path)
    (tmp_path / locks.LOCK).touch()
    assert holder(tmp_path) == "far"
    assert not is_locked(Path(tmp_path, "absent"))
