"""Two processes train as one does, sharded or not: same losses, same weights, one writer, states for any number of them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mae_bench.core import metrics
from tests.pretrain.noisy import write_noisy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.edge]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_noisy(tmp_path_factory.mktemp("images"), 24, 4, (48, 48))


def begin(processes, script, *words):
    """Start a script in one process, or in several by torchrun; all of them in a process group of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, str(HERE / script), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def start(processes, script, *words):
    """Run a script to its end."""
    running = begin(processes, script, *words)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said[-2000:]


def until_step(running, folder, step):
    """Wait until a step is logged."""
    while len(metrics.read(folder, "loss")) <= step:
        assert running.poll() is None, running.communicate()[1][-2000:]
        time.sleep(0.05)


def kill_all(running):
    """SIGKILL to every process of a training, its launcher included."""
    for number in family(running.pid):
        os.kill(number, signal.SIGKILL)
    running.communicate(timeout=60)


def family(parent):
    """A process and all that descend from it."""
    listed = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines()]
    found = [parent]
    for one in found:
        found += [int(pid) for pid, above in listed if int(above) == one]
    return found


def ran(folder):
    return metrics.read(folder, "loss"), safetensors.torch.load_file(folder / "model.safetensors")


WORDS = ("epochs=5", "batch_size=12", "warmup_epochs=1", "image_size=32", "clip_grad=0.5")
MAE = (*WORDS, "decoder_depth=2")
"""With a first block of the decoder, which is called in a way of its own, and a last one."""
OF = {"mae": MAE, "supervised": WORDS}


@pytest.fixture(scope="module")
def one(images, tmp_path_factory):
    """The folder of a training of 20 steps in one process, by objective."""
    folder = tmp_path_factory.mktemp("one")
    for objective in ("mae", "supervised"):
        start(1, "distributed_child.py", objective, images, folder / objective, *OF[objective])
    return folder


def assert_same(folder, whole):
    """20 steps, losses within 1e-5 relative."""
    (losses, weights), (expected, there) = ran(folder), ran(whole)
    assert len(expected) == 20 and losses == pytest.approx(expected, rel=1e-5)
    # Adam's first steps divide small gradients by small gradients: their rounding shows in the weights.
    assert all(torch.allclose(weights[name], there[name], atol=2e-4) for name in there)


def shapes(state):
    """Names, shapes and types of everything in a saved state."""
    if isinstance(state, dict):
        return {name: shapes(value) for name, value in state.items()}
    if isinstance(state, list):
        return [shapes(value) for value in state]
    return (state.shape, state.dtype) if isinstance(state, torch.Tensor) else type(state)


@pytest.mark.parametrize("objective", ["mae", "supervised"])
@pytest.mark.parametrize("how", [(), ("--sharded",), ("--sharded", "checkpointing=true", "accumulate=2")], ids=str)
def test_two_processes_make_the_steps_of_one(images, one, tmp_path, objective, how):
    start(2, "distributed_child.py", objective, images, tmp_path / "two", *OF[objective], *how)
    assert_same(tmp_path / "two", one / objective)
    assert not list((tmp_path / "two").rglob("*.tmp"))
    states = [torch.load(folder / "ckpt/last/state.pt", weights_only=True) for folder in (tmp_path / "two", one / objective)]
    assert shapes(states[0]) == shapes(states[1])


@pytest.mark.parametrize("how", [(), ("--sharded",)], ids=str)
def test_two_processes_make_the_contrastive_steps_of_one(images, tmp_path, how):
    """Negatives of both processes: each one's alone would give another loss."""
    pytest.importorskip("lightly.loss")
    start(1, "distributed_child.py", "simclr", images, tmp_path / "one", *WORDS, "--plain")
    start(2, "distributed_child.py", "simclr", images, tmp_path / "two", *WORDS, "--plain", *how)
    assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    ("before", "after"), [((2, ""), (1, "")), ((2, "--sharded"), (1, "")), ((1, ""), (2, "--sharded"))], ids=str
)
def test_R14_another_number_of_processes_goes_on(images, one, tmp_path, before, after):
    """Killed after some steps, all processes at once, and gone on with in another number of them."""
    place = tmp_path / "cut"
    running = begin(before[0], "distributed_child.py", "mae", images, place, *MAE, "--often", before[1])
    until_step(running, place, 6)
    kill_all(running)
    assert 6 < len(metrics.read(place, "loss")) < 20 and not (place / "model.safetensors").exists()
    start(after[0], "distributed_child.py", "mae", images, place, *MAE, after[1])
    assert_same(place, one / "mae")


def test_R13_when_one_process_dies_all_stop_and_the_training_goes_on(images, one, tmp_path):
    place = tmp_path / "cut"
    running = begin(2, "distributed_child.py", "mae", images, place, *MAE, "--often")
    until_step(running, place, 4)
    os.kill(family(running.pid)[-1], signal.SIGKILL)
    killed = time.monotonic()
    running.communicate(timeout=60)
    assert running.returncode and time.monotonic() - killed < 60
    start(2, "distributed_child.py", "mae", images, place, *MAE)
    assert_same(place, one / "mae")


@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGUSR1, 1), (signal.SIGUSR2, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)]
)
def test_R02_R04_the_command_saves_and_stops(images, tmp_path, number, processes):
    """A signal ends the command with exit code 75; by torchrun, which has a code of its own, each process stops with it."""
    words = ["pretrain", "mae", "--arch", "vit_demo_patch8", "--recipe", "demo", "-d", f"folder={images}", "--threads", "1"]
    place = tmp_path / "cut"
    command = [*words, "-o", place, "epochs=500", "batch_size=12", "warmup_epochs=1", "image_size=32"]
    running = begin(processes, "command_child.py", *command)
    until_step(running, place, 3)
    os.kill(running.pid, number)
    _, said = running.communicate(timeout=120)
    left = json.loads((place / "status.json").read_text())
    assert (left["state"], left["exit_code"]) == ("stopped", 75), said[-2000:]
    assert f"stopped by {number.name} at step" in left["message"]
    assert running.returncode == 75 if processes == 1 else running.returncode
    assert json.loads((place / "ckpt/last/manifest.json").read_text())["step"] == len(metrics.read(place, "loss"))


def test_the_command_runs_under_torchrun(images, tmp_path):
    """One of the processes locks the folder and writes; with another number of them the same steps come out."""
    words = ["pretrain", "mae", "--arch", "vit_demo_patch8", "--recipe", "demo", "-d", f"folder={images}", "--threads", "1"]
    small = ["epochs=2", "batch_size=12", "warmup_epochs=1", "image_size=32"]
    start(1, "command_child.py", *words, "-o", tmp_path / "one", *small)
    start(2, "command_child.py", *words, "-o", tmp_path / "two", *small)
    (one, _), (two, _) = ran(tmp_path / "one"), ran(tmp_path / "two")
    assert len(one) == 8 and two == pytest.approx(one, rel=1e-5)
    assert json.loads((tmp_path / "two" / "status.json").read_text())["state"] == "done"
    assert (tmp_path / "two" / "reconstructions.png").exists()


def test_contrastive_losses_gather_the_negatives_of_all_processes(tmp_path):
    pytest.importorskip("lightly.loss")
    from lightly.loss import NTXentLoss

    from mae_bench.objectives._pair import moco_loss

    start(2, "gather_child.py", tmp_path)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    points = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.eye(16).requires_grad_()
    first, second = points @ weight
    for (value, gradient), loss in zip(
        found, [NTXentLoss(0.2)(first, second), moco_loss(first, second.detach(), 0.2)], strict=True
    ):
        (expected,) = torch.autograd.grad(loss, weight, retain_graph=True)
        assert value.item() == pytest.approx(loss.item(), rel=1e-5)
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)
