"""The engine: exact resume, whatever cuts it; groups; divergence."""

import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import default_collate

from mae_bench.core import engine, faults, metrics
from mae_bench.core.engine import Diverged, Training, train
from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError, Stopped
from mae_bench.core.optim import OptimConfig
from mae_bench.core.run import Run, append_line
from mae_bench.core.schedule import ScheduleConfig


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


def in_child(job, run, fault=""):
    """Run a training in a forked process, as a kill needs one to hit; give its exit status as `os.waitpid` does."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the threads of the parent are not in the child, which would wait for them
        AcceleratorState._reset_state(reset_partial_state=True)  # else its number format would be that of tests before
        os.environ[faults.VARIABLE] = fault
        faults._visits.clear()
        try:
            train(job, run)
        except Stopped:
            os._exit(75)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("nth", [1, 2, 6, 7, 12])
@pytest.mark.parametrize("kind", ["kill", "term"])
def test_R01_R02_resume_is_exact(tmp_path, kind, nth):
    expected, whole = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    status = in_child(training(), run, f"engine.step:{kind}:{nth}")
    assert status == (-signal.SIGKILL if kind == "kill" else 75)
    job = training()
    again = train(job, run)
    assert torch.equal(weights(job.model), expected)
    assert again.losses == whole.losses
    steps = [line["step"] for line in metrics.lines(run.out)]
    assert steps == list(range(12))


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_R05_kill_during_checkpoint_write(tmp_path, nth):
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    assert in_child(training(), run, f"checkpoint.write:kill:{nth}") == -signal.SIGKILL
    job = training()
    train(job, run)
    assert torch.equal(weights(job.model), expected)


def test_number_of_workers_changes_nothing(tmp_path):
    expected, _ = unbroken(tmp_path / "none")
    job = training()
    train(job, Run(tmp_path / "two", workers=2))
    assert torch.equal(weights(job.model), expected)


def test_R07_damaged_last_goes_on_from_prev(tmp_path, caplog):
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    in_child(training(), run, "engine.step:kill:8")
    state = run.checkpoints / "last" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    job = training()
    train(job, run)
    assert "damaged" in caplog.text
    assert torch.equal(weights(job.model), expected)


def test_R08_both_damaged_starts_over(tmp_path, caplog):
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    in_child(training(), run, "engine.step:kill:8")
    for name in ("last", "prev"):
        (run.checkpoints / name / "state.pt").write_bytes(b"")
    job = training()
    train(job, run)
    assert "starting from the beginning" in caplog.text
    assert torch.equal(weights(job.model), expected)


def test_R15_state_of_other_settings_is_refused(tmp_path):
    train(training(), Run(tmp_path))
    with pytest.raises(ConfigError, match="other settings"):
        train(training(key="other"), Run(tmp_path))


def test_finished_training_is_not_repeated(tmp_path):
    expected, whole = unbroken(tmp_path)
    job = training()
    job.dataset.__class__ = type("Broken", (Noisy,), {"__getitem__": None})
    again = train(job, Run(tmp_path))
    assert torch.equal(weights(job.model), expected)
    assert again.losses == whole.losses


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
    monkeypatch.setenv(faults.VARIABLE, "engine.step:nan:5")
    faults._visits.clear()
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


class Smooth(nn.Module):
    """Without dropout and batch norm, so that micro-batches of any size give the same gradients."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.seen = []

    def forward(self, batch):
        self.seen.append(len(batch))
        return {"loss": (batch @ self.weight).square().mean()}


def injected(monkeypatch, fault):
    monkeypatch.setenv(faults.VARIABLE, fault)
    faults._visits.clear()


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
    [({"split_unit": 0}, "lower batch_size"), ({"batch_size": 1}, "lower batch_size"), ({"batch_size": 3}, "accumulate=2")],
)
def test_R10_out_of_memory_that_cannot_be_helped_is_one_line(tmp_path, monkeypatch, changes, advice):
    injected(monkeypatch, "engine.step:oom:1")
    with pytest.raises(EnvironmentFault, match=advice):
        train(training(model=Smooth(), **changes), Run(tmp_path))


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


def test_R01_the_moving_average_survives_a_kill(tmp_path):
    whole = train(training(average_decay=0.9), Run(tmp_path / "whole")).average
    run = Run(tmp_path / "cut", save_seconds=0.0)
    assert in_child(training(average_decay=0.9), run, "engine.step:kill:7") == -signal.SIGKILL
    assert torch.equal(weights(train(training(average_decay=0.9), run).average), weights(whole))


def test_a_model_is_compiled_when_asked(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: called.append(self))
    job = training(compile=True)
    train(job, Run(tmp_path))
    assert called == [job.model]


def test_R06_a_full_disk_is_one_line(tmp_path):
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the threads of the parent are not in the child, which would wait for them
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            train(training(steps=2), Run(tmp_path))
        except EnvironmentFault as error:
            os._exit(error.exit_code if "free space" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert not (tmp_path / "ckpt" / "last").exists()


def test_R06_a_full_disk_under_the_log_is_one_line():
    with pytest.raises(EnvironmentFault, match="free space"):
        append_line(Path("/dev/full"), {"step": 1})


def test_foreign_lines_in_the_log_are_passed_over(tmp_path):
    (tmp_path / metrics.FILE).write_text('3\n[1]\n"text"\n{"step": 0, "loss": 1.5}\n{"step": 1, "lo')
    assert metrics.read(tmp_path, "loss") == [1.5]
    metrics.cut(tmp_path, 1)
    assert (tmp_path / metrics.FILE).read_text() == '{"step": 0, "loss": 1.5}\n'


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_R01_killed_at_any_of_25_steps(tmp_path, workers):
    """Real child processes, SIGKILL, whatever the number of data workers."""
    expected, whole = unbroken(tmp_path / "whole", steps=25)
    for stop in range(1, 26):
        run = Run(tmp_path / str(stop), save_seconds=0.0, workers=workers)
        assert in_child(training(steps=25), run, f"engine.step:kill:{stop}") == -signal.SIGKILL
        job = training(steps=25)
        assert train(job, run).losses == whole.losses
        assert torch.equal(weights(job.model), expected), f"stopped at {stop}"
