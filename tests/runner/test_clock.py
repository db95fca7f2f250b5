"""Time and energy of a cell: over all sessions, whatever ended them, and never more than is known."""

import ctypes
import json
import shutil
import subprocess
import time

import pytest

from mae_bench import clock as clocks
from mae_bench.clock import Clock
from mae_bench.core.errors import EnvironmentFault
from mae_bench.energy import Meter, meter_of
from results.record import Cost

# A driver of two GPUs: the first counts, the second does not; a third is unknown.
DRIVER = """
#include <string.h>
static unsigned long long used = 5000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  if (strcmp(uuid, "GPU-a") && strcmp(uuid, "GPU-b")) return 6;
  *handle = strcmp(uuid, "GPU-a") ? (void *)2 : (void *)1;
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *value) {
  if (handle != (void *)1) return 3;
  *value = used += 2500;
  return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """NVML as its header says, in small."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    place = tmp_path_factory.mktemp("driver")
    (place / "nvml.c").write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", place / "nvml.so", place / "nvml.c"], check=True)
    return str(place / "nvml.so")


def test_time_is_counted_over_sessions_that_were_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(clocks, "SECONDS_BETWEEN_NOTES", 0.05)
    clock = Clock(tmp_path).__enter__()
    time.sleep(0.3)
    noted = json.loads((tmp_path / "elapsed.json").read_text())  # what is left if the process is killed now
    clock.__exit__(None, None, None)
    assert 0.15 < noted["seconds"] < 5
    (tmp_path / "elapsed.json").write_text(json.dumps({"seconds": 100.0, "sessions": 3}))
    with Clock(tmp_path) as clock:
        pass
    assert clock.seconds >= 100 and clock.sessions == 4


@pytest.mark.parametrize("seconds", ['"soon"', "null", "true", "[1]", "NaN", "-Infinity", "-5", "{}"])
def test_a_damaged_note_is_begun_anew(tmp_path, seconds):
    for text in (f'{{"seconds": {seconds}, "sessions": 2}}', f'{{"seconds": 1.5, "sessions": {seconds}}}', seconds):
        (tmp_path / "elapsed.json").write_text(text)
        with Clock(tmp_path) as clock:
            pass
        assert 0 <= clock.seconds < 60 and 1 <= clock.sessions <= 3


def test_counting_goes_on_after_a_note_that_could_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(clocks, "SECONDS_BETWEEN_NOTES", 0.02)
    write, tries = clocks.write_json, []

    def fail_once(path, sums):
        tries.append(sums)
        if len(tries) == 2:  # the first one by the thread
            raise EnvironmentFault("cannot write: the server is away")
        write(path, sums)

    monkeypatch.setattr(clocks, "write_json", fail_once)
    with Clock(tmp_path):
        deadline = time.monotonic() + 20
        while len(tries) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(tries) >= 5 and json.loads((tmp_path / "elapsed.json").read_text())["seconds"] > 0


def test_a_process_that_does_not_write_leaves_no_trace(tmp_path):
    with Clock(tmp_path, keeps=False) as clock:
        pass
    assert clock.seconds > 0 and not list(tmp_path.iterdir())


def test_energy_is_counted_over_sessions(tmp_path, driver):
    with Clock(tmp_path, Meter(["GPU-a"], driver)) as clock:
        first = clock.joules
    noted = json.loads((tmp_path / "elapsed.json").read_text())["joules"]
    assert first is not None and noted >= first >= 2.5
    with Clock(tmp_path, Meter(["GPU-a"], driver)) as clock:
        assert clock.joules is not None and clock.joules >= noted + 2.5


def test_energy_that_is_not_known_of_every_session_is_not_known(tmp_path, driver):
    with Clock(tmp_path) as clock:
        assert clock.joules is None
    with Clock(tmp_path, Meter(["GPU-a"], driver)) as clock:
        assert clock.joules is None  # the first session is not in it
    assert "joules" not in json.loads((tmp_path / "elapsed.json").read_text())


def test_energy_is_told_by_the_device_or_not_at_all(driver):
    assert isinstance(ctypes.CDLL(driver).nvmlInit_v2(), int)
    assert Meter(["GPU-a"], driver).joules() is not None
    for names in (["GPU-b"], ["GPU-a", "GPU-b"], ["GPU-unknown"], []):
        assert Meter(names, driver).joules() is None
    assert Meter(["GPU-a"], "no-such-library.so").joules() is None
    assert meter_of("cpu", 1).joules() is None


def test_gpu_hours_are_of_all_gpus():
    assert Cost(seconds=1800.0, gpus=4).gpu_hours == 2.0 and Cost(seconds=60.0).gpu_hours == 0.0
    assert Cost(seconds=60.0, shared_seconds=30.0).alone_seconds == 90.0
