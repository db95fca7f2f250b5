"""What is told of jobs while they run: plain lines, and bars in a terminal."""

import sys

import pytest

from mae_bench.display import LiveDisplay, make_display
from mae_bench.jobs import Job
from mae_bench.launch import run_jobs
from tests.results.sample import Screen
from tests.runner.light_parent import jobs

pytestmark = pytest.mark.slow

SLOT: list[dict[str, str]] = [{}]


def test_progress_is_told_in_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("mae_bench.display.SECONDS_BETWEEN_LINES", 0.2)
    script = (
        "import time; from pathlib import Path; from mae_bench.core.progress import FileReporter\n"
        f"r = FileReporter(Path({str(tmp_path / 'x')!r})); r.start('train', 10)\n"
        "for i in range(10): r.advance(note='loss 0.5'); time.sleep(0.15)"
    )
    console = Screen()
    job = Job("the [red]job", (sys.executable, "-c", script), tmp_path / "x", summary=lambda: "top1 50.00")
    with make_display(console) as display:
        run_jobs([job], SLOT, display)
    lines = console.text.splitlines()
    assert lines[0].startswith("start   the [red]job")
    assert any("train" in line and "/10, loss 0.5" in line and "eta" in line for line in lines)
    assert lines[-1].startswith("done    the [red]job") and lines[-1].endswith("top1 50.00")


def test_progress_is_drawn_in_a_terminal(tmp_path):
    console = Screen(120, force_terminal=True)
    with make_display(console) as display:
        assert isinstance(display, LiveDisplay)
        run_jobs(jobs(tmp_path, ["ok", "fail"]), SLOT, display)
    text = console.text
    assert "0-ok" in text and "2/2" in text and "FAILED" in text and "the checkpoint is broken" in text
