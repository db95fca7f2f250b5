"""What a pretraining is said to cost, against hand counts and a measured run; blocks computed again against blocks kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from mae_bench import pretrain
from mae_bench.cli import main
from mae_bench.core import find
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.core.run import Run
from mae_bench.estimate_pretrain import estimate
from tasks.handle import open_data
from tests.pretrain.noisy import write_noisy

pytestmark = [pytest.mark.slow, pytest.mark.apart]

HERE = Path(__file__).parent
IMAGES = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_data(f"folder={write_noisy(tmp_path_factory.mktemp('images'), IMAGES // 2, IMAGES // 2)}")


def cost_of(data, objective="supervised", arch="vit_base_patch16", changes=None, **words):
    return estimate(objective, arch, data, {"batch_size": "8", **(changes or {})}, throughput=100.0, **words)


def test_operations_are_those_counted_by_hand(data):
    tokens, width, classes = 197, 768, 2
    block = (
        tokens * (4 * width * width + 2 * width * 4 * width) + 2 * tokens**2 * width
    )  # attention's four matrices, the MLP; q k, then v
    multiplications = 196 * 16 * 16 * 3 * width + 12 * block + width * classes
    cost = cost_of(data)
    assert cost.forward_flops == 2 * multiplications
    assert multiplications == pytest.approx(17.58e9, rel=2e-3)  # as papers have it for ViT-B at 224 pixels, with 1000 classes
    assert cost.step_flops == pytest.approx(3 * cost.forward_flops, rel=0.02)


def test_sizes_are_those_of_the_model(data):
    changes = {"batch_size": "12", "average_decay": "null"}
    cost = cost_of(data, arch="vit_demo_patch8", changes=changes)
    module = find.load(pretrain.ROOM, "supervised", what="objective")
    config = pretrain.settings(module, "supervised", "paper", changes)
    model = pretrain.build_model(module, "vit_demo_patch8", data, config, Run(Path()))
    numbers = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert (cost.parameters, cost.weights) == (numbers, 4 * numbers)
    assert (cost.gradients, cost.optimizer) == (4 * trained, 8 * trained)
    assert (cost.steps, cost.images) == (300 * 2, 300 * IMAGES)
    average = cost_of(data, arch="vit_demo_patch8", changes={"batch_size": "12"})
    assert average.weights == 2 * cost.weights


def demo(data, objective="supervised", **words):
    return cost_of(data, objective, "vit_demo_patch8", **words)


def test_devices_share_the_work(data):
    alone, shared = demo(data), demo(data, devices=4, sharded=True)
    assert (alone.micro_batch, shared.micro_batch) == (8, 2)
    assert shared.weights + shared.gradients + shared.optimizer == (alone.weights + alone.gradients + alone.optimizer) / 4
    assert shared.activations == pytest.approx(alone.activations / 4, rel=0.05)
    assert shared.device_seconds == alone.device_seconds == 300 * IMAGES / 100
    assert demo(data, devices=4).weights == alone.weights


def test_what_saves_memory_is_seen(data):
    plain = demo(data, "mae")
    assert demo(data, "mae", changes={"checkpointing": "true"}).activations < 0.3 * plain.activations
    many, half = demo(data, "mae", changes={"batch_size": "24"}), {"precision": "bf16"}
    bf16 = demo(data, "mae", **half), demo(data, "mae", changes={"batch_size": "24"}, **half)
    assert bf16[1].activations - bf16[0].activations == pytest.approx(0.55 * (many.activations - plain.activations), rel=0.2)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the kernel tells no memory of a process")
def test_memory_is_that_of_a_run(data, tmp_path):
    """Peak of resident memory in a process of its own, within a factor of 1.4."""
    changes = {"epochs": "2", "warmup_epochs": "1", "batch_size": str(IMAGES)}
    cost = cost_of(data, "mae", "vit_demo_patch8", changes)
    words = [
        str(HERE / "memory_child.py"),
        "mae",
        str(data.root),
        str(tmp_path / "out"),
        *(f"{k}={v}" for k, v in changes.items()),
    ]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = int(done.stdout)
    assert cost.memory / 1.4 < measured < cost.memory * 1.4


@pytest.mark.edge
@pytest.mark.parametrize("objective", find.names(pretrain.ROOM))
def test_every_objective_is_estimated(data, objective):
    pytest.importorskip("lightly.loss")
    cost = cost_of(data, objective, "vit_demo_patch8")
    assert cost.step_flops > 2 * cost.forward_flops * 0.9
    assert cost.activations > 0


def test_the_command_says_it_and_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["pretrain", "mae", "--arch", "vit_demo_patch8", "-d", f"folder={data.root}", "-o", str(out), "batch_size=8"]
    assert main([*words, "--dry-run", "--devices", "2", "--throughput", "50"]) == 0
    said = capsys.readouterr().out
    for part in (
        "parameters  26.21 M",
        "GFLOP forward",
        "4800 steps, 38400 images",
        "GiB a device",
        "0.21 device hours, 6:24 on 2",
    ):
        assert part in said
    assert main([*words, "--dry-run", "--recipe", "demo", "--threads", "1"]) == 0
    assert "measured here" in capsys.readouterr().out
    assert not out.exists()
    assert main([*words, "--devices", "2"]) == 2
    assert "give --dry-run too" in capsys.readouterr().err
    assert not out.exists()


def test_what_a_run_would_refuse_is_refused(data):
    with pytest.raises(ConfigError, match="batch_size 8 does not divide into 3 micro-batches; change --devices"):
        cost_of(data, devices=3)
    with pytest.raises(InputError, match="24 training samples for a batch of 4096; lower batch_size"):
        cost_of(data, changes={"batch_size": "4096"})


def stepped(data, objective, changes, *, again):
    """Loss, gradients and bytes kept of one step."""
    module = find.load(pretrain.ROOM, objective, what="objective")
    config = pretrain.settings(module, objective, "demo", {**changes, "checkpointing": str(again)})
    model = pretrain.build_model(module, "vit_demo_patch8", data, config, Run(Path())).train()
    torch.manual_seed(0)
    sample = module.sample(config, model.get_submodule("backbone").spec)
    batch = module.collate([sample(torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8), 0) for _ in range(4)])
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = torch.stack(list(model(batch).values())).sum()
    size = sum(kept.values())
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return loss, gradients, size


@pytest.mark.parametrize(
    ("objective", "changes"),
    [("mae", {"decoder_depth": "4"}), ("mae", {"encoder_mask_tokens": "true"}), ("supervised", {"drop_path": "0.5"})],
)
def test_blocks_computed_again_give_the_same_gradients(data, objective, changes):
    """Bit for bit, stochastic depth included; less is kept."""
    loss, gradients, kept = stepped(data, objective, changes, again=False)
    loss_again, gradients_again, kept_again = stepped(data, objective, changes, again=True)
    assert torch.equal(loss, loss_again)
    assert gradients.keys() == gradients_again.keys() and gradients
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)
    assert kept_again < 0.6 * kept
