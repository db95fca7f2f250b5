"""Sixty cells with every kind of fault, and two runners at them: a healthy cell ends with one record, a faulty one is named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from results.record import read_record
from results.store import STATUS, read_object
from tests.runner import light_grid
from tests.runner.light_grid import CELLS, FAULTY, cells, prepare

GRID = Path(light_grid.__file__)
YEAR = 365 * 86400.0


def start(out, clock, *how):
    environment = {**os.environ, "LIGHT_SECONDS": "0.5", "LIGHT_BEAT": "0.2"}
    command = [sys.executable, str(GRID), str(out), str(clock), *how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_for_records(out, count, runner):
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/*/*/*/record.json"))) < count:
        assert time.monotonic() < deadline and runner.poll() is None
        time.sleep(0.05)


def kill_running(out, count):
    """Kill some healthy cells in their work, as a system without memory does."""
    healthy, killed, deadline = [cell.folder for mode, cell in cells(out) if not mode], [], time.monotonic() + 60
    while len(killed) < count:
        assert time.monotonic() < deadline
        for folder in healthy:
            status = read_object(folder / STATUS)
            visits = folder / "visits"
            if status.get("state") == "running" and folder not in killed and visits.exists() and visits.stat().st_size:
                os.kill(status["pid"], signal.SIGKILL)
                killed.append(folder)
                break
        time.sleep(0.05)
    return killed


def check(out, *said):
    """Every healthy cell has its one record and was measured once; the faulty ones have none and are named by every runner."""
    for mode, cell in cells(out):
        records = sorted(path.name for path in cell.folder.glob("record*.json"))
        title = cell.request.title
        if mode in FAULTY:
            assert records == (["record.json"] if mode == "corrupt" else []), (mode, title)
            assert all(title in text.partition(" failed:")[2] or str(cell.folder) in text for text in said), (mode, title)
            continue
        record = read_record(cell.folder / "record.json", pytest.fail)
        assert record is not None and record.key == cell.request.key
        # A second measurement would have kept the first one's record beside its own.
        assert records == ["record.json"] and (cell.folder / "finished").read_text() == "x", (mode, title)
        assert not list(cell.folder.glob(".claim-*"))
    return [cell for mode, cell in cells(out) if mode not in FAULTY]


@pytest.mark.slow
def test_r17_r19_t02_two_runners_and_every_fault_leave_one_record_of_each_healthy_cell(tmp_path):
    assert len(cells(tmp_path)) == CELLS
    prepare(tmp_path)
    corrupt = [cell.folder / "record.json" for mode, cell in cells(tmp_path) if mode == "corrupt"]
    first, second = start(tmp_path, 0.0, "forked"), start(tmp_path, 3 * YEAR)
    wait_for_records(tmp_path, 8, second)
    killed = kill_running(tmp_path, 2)
    wait_for_records(tmp_path, 20, second)
    first.kill()
    first.communicate(timeout=60)
    third = start(tmp_path, -3 * YEAR, "forked")
    said = [one.communicate(timeout=180)[0] for one in (second, third)]
    assert [second.returncode, third.returncode] == [1, 1], said
    healthy = check(tmp_path, *said)
    assert len(healthy) == 51
    assert all(len((folder / "visits").read_text()) > 1 for folder in killed)
    assert all(path.read_text() == '{"schema": 3, "key": ' for path in corrupt)
    again = start(tmp_path, 0.0)
    text, _ = again.communicate(timeout=120)
    assert again.returncode == 1 and "51 of 60 cells are finished and skipped" in text
    check(tmp_path, text)
