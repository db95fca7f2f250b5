"""Two processes train as one does: the same losses, the same weights, one writer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from mae_bench.core import metrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.edge]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4)):
        for name in ("dark", "light"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 128, (48, 48, 3)) + 120 * (name == "light")
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{index}.png")
    return root


def start(processes, script, *words):
    """Run a script in one process, or in several by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launcher, str(HERE / script), *map(str, words)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def ran(folder):
    return metrics.read(folder, "loss"), safetensors.torch.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("objective", ["mae", "supervised"])
def test_two_processes_make_the_steps_of_one(images, tmp_path, objective):
    """20 steps, losses within 1e-5 relative."""
    words = [images, "epochs=5", "batch_size=12", "warmup_epochs=1", "image_size=32"]
    start(1, "distributed_child.py", objective, words[0], tmp_path / "one", *words[1:])
    start(2, "distributed_child.py", objective, words[0], tmp_path / "two", *words[1:])
    (one, weights), (two, shared) = ran(tmp_path / "one"), ran(tmp_path / "two")
    assert len(one) == 20 and two == pytest.approx(one, rel=1e-5)
    # Adam's first steps divide small gradients by small gradients: their rounding shows in the weights.
    assert all(torch.allclose(weights[name], shared[name], atol=2e-4) for name in weights)
    assert not list((tmp_path / "two").rglob("*.tmp"))


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
