"""Several processes of one job: signals that reach all of them, losses that one of them lacks, gradients clipped one by one."""

import math
import os
import signal
import socket
import time

import pytest
import torch
from torch import nn

from mae_bench.core import metrics
from mae_bench.core.engine import train
from mae_bench.core.errors import Diverged
from mae_bench.core.optim import OptimConfig
from mae_bench.core.parallel import Parallel
from mae_bench.core.run import Run
from tests.core.killing import forked, status_of
from tests.core.trainings import Noisy, training, unbroken, weights


class Unhurried(Noisy):
    """Samples that take a while."""

    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_R04_a_signal_to_all_processes_of_a_job_saves(tmp_path, workers, accumulate):
    """As a cluster, a service manager or a shell sends it, to the data workers too."""
    expected, _ = unbroken(tmp_path / "whole", accumulate=accumulate)
    run = Run(tmp_path / "cut", workers=workers)

    def work():
        os.setpgid(0, 0)
        train(training(dataset=Unhurried(), accumulate=accumulate), run)

    child = forked(work)
    while len(metrics.read(run.out, "loss")) < 3:
        time.sleep(0.01)
    os.killpg(child, signal.SIGTERM)
    assert status_of(child) == 75
    job = training(dataset=Unhurried(), accumulate=accumulate)
    train(job, run)
    assert torch.equal(weights(job.model), expected)


class GivesUp(nn.Module):
    """A model that gives a loss of another name, and no finite one, in the third step of process 1."""

    def __init__(self):
        super().__init__()
        self.body, self.other, self.steps = nn.Linear(4, 1), nn.Linear(4, 1), 0

    def forward(self, batch):
        self.steps += 1
        if self.steps == 3 and os.environ["RANK"] == "1":
            return {"broken": sum(p.sum() for p in self.parameters()) * math.nan}
        return {"one": self.body(batch).square().mean(), "two": self.other(batch).square().mean()}


@pytest.mark.slow
def test_R12_a_loss_that_one_process_alone_lacks_stops_all(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]

    def start(rank):
        def work():
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            train(training(model=GivesUp()), Run(tmp_path / f"rank{rank}"))

        return forked(work)

    assert [status_of(child) for child in [start(0), start(1)]] == [Diverged.exit_code] * 2
    assert len(metrics.read(tmp_path / "rank0", "loss")) == 2


def test_gradients_are_clipped_each_by_itself_where_that_is_asked(tmp_path):
    def clipped(each):
        model = nn.Linear(2, 1)
        model.weight.grad, model.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([0.1])
        Parallel(training(model=model, optim=OptimConfig(lr=0.1, clip_grad=1.0)), Run(tmp_path)).clip(1.0, each=each)
        return [*model.weight.grad.flatten().tolist(), model.bias.grad.item()]

    whole = math.hypot(5.0, 0.1)
    assert clipped(False) == pytest.approx([3 / whole, 4 / whole, 0.1 / whole], rel=1e-5)
    assert clipped(True) == pytest.approx([0.6, 0.8, 0.1], rel=1e-5)
