"""A pretraining on a cluster: queued again with its state when the cluster asks; submitit's LocalExecutor stands in for SLURM."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mae_bench import pretrain_nodes
from mae_bench.cli import main
from mae_bench.core import metrics
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from mae_bench.display import PlainDisplay
from mae_bench.jobs import Job
from mae_bench.launch import run_jobs
from mae_bench.pretrain import pretrain
from mae_bench.pretrain_submit import command, submit
from mae_bench.processes import _is_ending
from mae_bench.start_pretrain import Wanted
from tasks.handle import open_data
from tests.pretrain.noisy import write_noisy
from tests.results.sample import Screen

SMALL = ["epochs=10", "warmup_epochs=1", "batch_size=4", "image_size=32", "decoder_dim=16"]
PROMISED = "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning"


@pytest.fixture
def images(tmp_path):
    return write_noisy(tmp_path / "images", 4, 1)


def wanted(data, out, *words, **more) -> Wanted:
    return Wanted("mae", "vit_demo_patch8", f"folder={data}", out, list(words), "demo", 3, **more)


def when(ready, act):
    """Act in a thread as soon as something holds."""

    def watch():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not ready():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.filterwarnings(*PROMISED)
def test_R04_a_warned_job_saves_and_is_queued_again_whatever_the_signal(tmp_path, start):
    """Sent to the job itself, as a cluster does, while it waits for its process."""
    folder, asked = tmp_path / "out", (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    for visit, number in enumerate(asked):
        path = folder / f"visit-{visit}"

        def send(path=path, number=number):
            os.kill(int(path.read_text()), number)

        when(lambda path=path: path.exists() and path.read_text(), send)
    child = str(Path(__file__).with_name("queued_child.py"))
    job = Job("warned", (sys.executable, child, str(folder), str(len(asked))), folder)
    (outcome,) = run_jobs([job], [{}], PlainDisplay(Screen()), start)
    assert outcome.state == "done", outcome
    assert sorted(path.name for path in folder.glob("saved-*")) == ["saved-0", "saved-1", "saved-2"]


@pytest.mark.slow
@pytest.mark.filterwarnings(*PROMISED)
def test_R04_a_preempted_pretraining_ends_in_the_same_weights(images, tmp_path, start):
    out = tmp_path / "out"
    overrides = dict(word.split("=") for word in SMALL)
    pretrain("mae", "vit_demo_patch8", open_data(f"folder={images}"), overrides, Run(tmp_path / "whole", seed=3), recipe="demo")

    def trains():
        return len(metrics.read(out, "loss")) >= 2

    def preempt():
        pid = json.loads((out / "status.json").read_text())["pid"]
        os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGUSR2)

    watching = when(trains, preempt)
    screen = Screen()
    assert submit(wanted(images, out, *SMALL, threads=1, device="cpu"), {}, screen, start) == 0, screen.text
    watching.join(1)
    assert "going on from step" in (out / "log.txt").read_text()
    whole, cut = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    assert all((whole[name] == cut[name]).all() for name in whole | cut)
    assert metrics.read(out, "loss") == metrics.read(tmp_path / "whole", "loss")


@pytest.mark.slow
@pytest.mark.filterwarnings(*PROMISED)
def test_what_fails_is_told_with_its_code(images, tmp_path, start):
    screen = Screen()
    few = wanted(images, tmp_path / "out", "batch_size=100", threads=1, device="cpu")
    assert submit(few, {}, screen, start) == 3
    assert "8 training samples for a batch of 100; lower batch_size" in screen.text


def test_what_is_wrong_is_refused_before_anything_is_submitted(images, tmp_path):
    for words, said in (
        (wanted(images, tmp_path / "out", "mask_rate=0.5"), "did you mean mask_ratio"),
        (wanted(images, tmp_path / "out", "epochs=0"), "epochs"),
    ):
        with pytest.raises(ConfigError, match=said):
            submit(words, {}, Screen(), lambda job, environment: pytest.fail("submitted"))
    with pytest.raises(ConfigError, match="gpus_per_node=a100:8: give a number"):
        submit(wanted(images, tmp_path / "out"), {"gpus_per_node": "a100:8"}, Screen())
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_a_launcher(images, tmp_path, monkeypatch, capsys):
    words = ["pretrain", "mae", "--arch", "vit_demo_patch8", "-d", f"folder={images}", "-o", str(tmp_path / "out")]
    assert main([*words, "--slurm", "partition=gpu"]) == 2
    assert "--slurm with slurm alone" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*words, "--launcher", "slurm"]) == 4
    assert "--launcher slurm" in capsys.readouterr().err


def test_the_command_holds_all_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = Wanted("mae", "vit_base_patch16", "folder=images", Path("out"), ["epochs=3"], "paper", 7, workers=4, sharded=True)
    words = command(asked, 8, 2)
    assert words[1:4] == ("-m", "mae_bench.pretrain_nodes", "8")
    expected = ["pretrain", "mae", "--arch", "vit_base_patch16", "--recipe", "paper", "--seed", "7"]
    expected += ["-d", f"folder={tmp_path / 'images'}", "-o", str(tmp_path / "out"), "--workers", "4", "--sharded", "epochs=3"]
    assert list(words[4:]) == expected
    assert command(asked)[1:4] == ("-m", "mae_bench.cli", "pretrain")
    assert command(asked, 8)[-len(expected) - 4 : -len(expected)] == ("--nproc-per-node", "8", "-m", "mae_bench.cli")


def test_machines_find_each_other_through_the_first():
    one_of_two = pretrain_nodes.command(4, ["pretrain"], nodes=2, first="gpu3", job="77")
    assert one_of_two[3:11] == ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "gpu3:29400", "--rdzv-id", "77"]


@pytest.mark.parametrize(("told", "ending"), [("RUNNING", False), ("COMPLETING", True), ("", True)])
def test_a_cancelled_job_is_told_from_a_warned_one(tmp_path, monkeypatch, told, ending):
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho {told}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert _is_ending() is ending
    monkeypatch.delenv("SLURM_JOB_ID")
    assert _is_ending() is False


def test_a_task_of_an_array_asks_for_itself(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$3" = 12_4 ] && echo RUNNING || echo "RUNNING RUNNING"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name, value in (("SLURM_JOB_ID", "12"), ("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "4")):
        monkeypatch.setenv(name, value)
    assert _is_ending() is False
