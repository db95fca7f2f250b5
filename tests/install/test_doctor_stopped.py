"""A signal ends the doctor at once, with what it tries."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import sys
from mae_bench import cli, doctor
from mae_bench.frameworks import Framework
slow = "import os, pathlib, time; pathlib.Path({place!r}, str(os.getpid())).touch(); time.sleep(60)"
doctor.FRAMEWORKS = tuple(Framework(name, "to be slow", probe=slow) for name in ("yaml", "rich", "typer"))
doctor.examine.__defaults__ = (doctor.FRAMEWORKS,)
doctor.DEVICE_PROBE = slow
sys.exit(cli.main(["doctor"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_one_line_and_75_and_leaves_no_process(tmp_path, number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", SCRIPT.format(place=str(tmp_path))]
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    while len(list(tmp_path.iterdir())) < 2:
        assert running.poll() is None
        time.sleep(0.05)
    began = time.monotonic()
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 75 and time.monotonic() - began < 20
    assert f"mae-bench: stopped by {number.name}" in said.splitlines()[-1] and "Traceback" not in said
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
