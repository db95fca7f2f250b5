"""The engine: batches and their parts, memory that runs out, numbers that are not finite, the moving average."""

import json
import signal

import pytest
import torch
from torch import nn

from mae_bench.core import engine
from mae_bench.core.batches import Share
from mae_bench.core.engine import Diverged, train
from mae_bench.core.errors import EnvironmentFault, InputError
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from mae_bench.core.training import check_sizes, halved
from tests.core.trainings import Smooth, injected, training, weights


def test_accumulation_keeps_the_effective_batch(tmp_path):
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, batch):
            return {"loss": (batch @ self.weight).square().mean()}

    results = []
    for parts in (1, 2):
        job = training(model=Linear(), accumulate=parts)
        results.append((train(job, Run(tmp_path / str(parts))).losses, weights(job.model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_R12_not_finite_loss_stops_and_explains(tmp_path, monkeypatch):
    injected(monkeypatch, "engine.step:nan:5")
    with pytest.raises(Diverged, match="step 4"):
        train(training(), Run(tmp_path))
    explained = json.loads((tmp_path / "diverged.json").read_text())
    assert explained["step"] == 4
    assert len(explained["samples"]) == 4


def test_I19_fewer_samples_than_a_batch(tmp_path):
    with pytest.raises(InputError, match="23 training samples for a batch of 24"):
        train(training(batch_size=24), Run(tmp_path))


def test_batches_may_run_on_into_the_next_epoch(tmp_path):
    losses = train(training(batch_size=24, drop_last=False), Run(tmp_path)).losses
    assert len(losses) == 12


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(training(), Run(tmp_path))
    assert signal.getsignal(signal.SIGTERM) is before


def test_nested_batches_are_moved():
    batch = {"a": [torch.zeros(1), "text"], "b": (torch.ones(1),)}
    moved = engine.to_device(batch, torch.device("meta"))
    assert moved["a"][0].is_meta
    assert moved["a"][1] == "text"
    assert moved["b"][0].is_meta


def test_R10_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(tmp_path, monkeypatch):
    expected = training(model=Smooth())
    train(expected, Run(tmp_path / "whole"))
    injected(monkeypatch, "engine.step:oom:5")
    model = Smooth()
    trained = train(training(model=model), Run(tmp_path / "halved"))
    assert trained.accumulate == 2 and len(trained.losses) == 12
    assert model.seen == [4] * 5 + [2] * 16
    assert torch.allclose(weights(model), weights(expected.model), atol=1e-6)


def test_R10_halved_micro_batches_are_remembered(tmp_path, monkeypatch):
    injected(monkeypatch, "engine.step:oom:1")
    train(training(model=Smooth()), Run(tmp_path))
    assert train(training(model=Smooth()), Run(tmp_path)).accumulate == 2


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"split_unit": 0}, "lower batch_size"),
        ({"batch_size": 1}, "lower batch_size"),
        ({"batch_size": 3}, "set accumulate=3, and another -o where a state is saved already"),
        ({"batch_size": 9, "accumulate": 3}, "accumulate=9"),
        ({"batch_size": 6, "split_unit": 2}, "accumulate=3"),
        ({"batch_size": 6, "split_unit": 2, "accumulate": 3}, "lower batch_size"),
    ],
)
def test_R10_out_of_memory_that_cannot_be_helped_is_one_line(tmp_path, monkeypatch, changes, advice):
    injected(monkeypatch, "engine.step:oom:1")
    with pytest.raises(EnvironmentFault, match=advice):
        train(training(model=Smooth(), **changes), Run(tmp_path))


@pytest.mark.parametrize(("world", "before", "after"), [(2, 1, 2), (2, 2, 3), (4, 1, 3), (3, 1, 2)])
def test_the_advice_divides_the_batch_of_a_process(world, before, after):
    job, share = training(batch_size=12), Share(0, world, before)
    with pytest.raises(EnvironmentFault, match=f"accumulate={after},"):
        halved(job, share, torch.OutOfMemoryError())
    check_sizes(job, Share(0, world, after))


def test_R12_a_weight_that_is_not_finite_is_not_saved(tmp_path):
    class Jump(Smooth):
        def forward(self, batch):
            # The loss is finite, its gradient is not.
            return {"loss": (batch @ self.weight).square().mean() + (self.weight * 0).sum().sqrt()}

    with pytest.raises(Diverged, match="weight is not finite"):
        train(training(model=Jump(), steps=1, schedule=ScheduleConfig(kind="constant")), Run(tmp_path))
    assert not (tmp_path / "ckpt").exists()


def test_the_moving_average_follows_the_weights(tmp_path):
    model, path = Smooth(), []
    job = training(model=model, average_decay=0.9, before_step=lambda step: path.append(model.weight.detach().clone()))
    average = train(job, Run(tmp_path)).average
    # It starts at the first weights that a step leaves.
    seen = [*path[1:], model.weight.detach()]
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    assert isinstance(average, Smooth)
    assert torch.allclose(average.weight, expected, atol=1e-6)
    assert not torch.allclose(average.weight, model.weight, atol=1e-4)


def test_a_model_is_compiled_when_asked(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: called.append(self))
    job = training(compile=True)
    train(job, Run(tmp_path))
    assert called == [job.model]
