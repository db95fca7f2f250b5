"""The real thing in its own processes: cut at any moment it ends in the same table, bit for bit."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from results.record import read_record
from tests.runner.conftest import write_images

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def start(*words, fault=""):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200", "MAE_BENCH_FAULT": fault}
    command = [sys.executable, "-m", "mae_bench.cli", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def call(*words, fault="", code=0):
    running = start(*words, fault=fault)
    text, _ = running.communicate(timeout=2400)
    assert running.returncode == code, text
    return text


def scores(out):
    return (out / "table.md").read_text().partition("# Cost")[0]


def run_words(data, out):
    words = ["run", "-m", "tiny=random:vit_demo_patch8", "-t", "knn:demo,finetune:demo", "-d", f"folder={data}", "-o", out]
    return [
        *words,
        "--device",
        "cpu",
        "--jobs",
        "2",
        "knn.k=3",
        "finetune.epochs=6",
        "finetune.warmup_epochs=1",
        "finetune.batch_size=8",
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "pets", ("a", "b", "c"), count=16)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    assert "finetune:demo" in call(*run_words(data, out))
    return scores(out)


def finetuning(out):
    return out / "tiny" / "finetune-demo" / "folder-pets" / "seed0"


def test_r01_a_killed_cell_goes_on_and_ends_in_the_same_numbers(data, unbroken, tmp_path):
    """Killed, begun once more by the run itself and killed again, it is ended by the next run."""
    text = call(*run_words(data, tmp_path), fault="engine.step:kill:9", code=1)
    assert "killed by SIGKILL" in text and str(finetuning(tmp_path) / "log.txt") in text
    call(*run_words(data, tmp_path))
    assert scores(tmp_path) == unbroken
    record = read_record(finetuning(tmp_path) / "record.json", pytest.fail)
    assert record is not None and record.cost.sessions == 3


def test_r05_a_cell_killed_before_its_record_makes_it_without_training_again(data, unbroken, tmp_path):
    call(*run_words(data, tmp_path), fault="record.write:kill:1", code=1)
    call(*run_words(data, tmp_path))
    assert scores(tmp_path) == unbroken


def test_r02_a_stopped_run_goes_on_and_ends_in_the_same_table(data, unbroken, tmp_path):
    running = start(*run_words(data, tmp_path))
    log = finetuning(tmp_path) / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    text, _ = running.communicate(timeout=120)
    assert running.returncode == 75, text
    assert re.search(r"mae-bench: stopped; \d of 2 (is|are) not finished; the same command goes on from there", text)
    assert (finetuning(tmp_path) / "ckpt" / "last").is_dir()
    assert "interrupted" in call("status", tmp_path)
    call(*run_words(data, tmp_path))
    assert scores(tmp_path) == unbroken


@pytest.mark.edge
def test_the_demo_runs_whole_and_a_second_call_says_the_same(tmp_path):
    words = ["demo", "-o", tmp_path, "--scale", "tiny", "--device", "cpu", "--jobs", "2"]
    text = call(*words)
    for name in ("random", "supervised", "simclr", "mae"):
        assert f"| {name} |" in scores(tmp_path)
    assert "failed" not in scores(tmp_path) and "| - |" not in scores(tmp_path)
    assert str(tmp_path / "report.html") in text and (tmp_path / "report.html").stat().st_size > 1_000_000
    table = (tmp_path / "table.md").read_text()
    again = call(*words)
    assert "start  " not in again and again.count("5 of 5 cells are finished and skipped") == 4
    assert (tmp_path / "table.md").read_text() == table
