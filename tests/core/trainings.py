"""Small trainings for the tests of the engine."""

import torch
from torch import nn
from torch.utils.data import default_collate

from mae_bench.core import faults
from mae_bench.core.engine import Training, train
from mae_bench.core.optim import OptimConfig
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from tests.core.killing import in_child


class Noisy:
    """Samples with random augmentation."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return torch.full((4,), float(index)) / 23 + 0.1 * torch.randn(4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        for parameter in self.parameters():
            parameter.data.normal_(generator=generator)

    def forward(self, batch):
        return {"loss": self.body(batch).square().mean()}


def training(steps=12, **changes):
    values = {
        "model": Net(),
        "dataset": Noisy(),
        "collate": default_collate,
        "optim": OptimConfig(lr=0.01, weight_decay=0.05),
        "schedule": ScheduleConfig(warmup_steps=3),
        "batch_size": 4,
        "steps": steps,
        "key": "k",
        "title": "noisy",
    }
    return Training(**(values | changes))


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def unbroken(folder, **changes):
    job = training(**changes)
    trained = train(job, Run(folder))
    return weights(job.model), trained


def train_in_child(job, run, fault=""):
    """Run a training in a forked process with a fault in it; give its exit status."""
    return in_child(lambda: train(job, run), fault)


def injected(monkeypatch, fault):
    """Put a fault into this process."""
    monkeypatch.setenv(faults.VARIABLE, fault)
    faults._visits.clear()


class Smooth(nn.Module):
    """Without dropout and batch norm, so that micro-batches of any size give the same gradients."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.seen = []

    def forward(self, batch):
        self.seen.append(len(batch))
        return {"loss": (batch @ self.weight).square().mean()}
