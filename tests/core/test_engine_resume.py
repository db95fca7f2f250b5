"""The engine goes on exactly, whatever cuts a training or damages what it has saved."""

import resource
import signal
from pathlib import Path

import pytest
import torch

from mae_bench.core import metrics
from mae_bench.core.engine import train
from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.run import Run, append_line
from tests.core.killing import in_child
from tests.core.trainings import Noisy, train_in_child, training, unbroken, weights

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("nth", [1, 2, 6, 7, 12])
@pytest.mark.parametrize("kind", ["kill", "term"])
def test_R01_R02_resume_is_exact(tmp_path, kind, nth):
    expected, whole = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    status = train_in_child(training(), run, f"engine.step:{kind}:{nth}")
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
    assert train_in_child(training(), run, f"checkpoint.write:kill:{nth}") == -signal.SIGKILL
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
    train_in_child(training(), run, "engine.step:kill:8")
    state = run.checkpoints / "last" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    job = training()
    train(job, run)
    assert "damaged" in caplog.text
    assert torch.equal(weights(job.model), expected)


def test_R08_both_damaged_starts_over(tmp_path, caplog):
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    train_in_child(training(), run, "engine.step:kill:8")
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


def test_R01_the_moving_average_survives_a_kill(tmp_path):
    whole = train(training(average_decay=0.9), Run(tmp_path / "whole")).average
    run = Run(tmp_path / "cut", save_seconds=0.0)
    assert train_in_child(training(average_decay=0.9), run, "engine.step:kill:7") == -signal.SIGKILL
    assert torch.equal(weights(train(training(average_decay=0.9), run).average), weights(whole))


def test_R06_a_full_disk_is_one_line(tmp_path):

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        with pytest.raises(EnvironmentFault, match="free space") as told:
            train(training(steps=2), Run(tmp_path))
        raise told.value

    assert in_child(work) == EnvironmentFault.exit_code == 4
    assert not (tmp_path / "ckpt" / "last").exists()


def test_R06_a_full_disk_under_the_log_is_one_line():
    with pytest.raises(EnvironmentFault, match="free space"):
        append_line(Path("/dev/full"), {"step": 1})


def test_foreign_lines_in_the_log_are_passed_over(tmp_path):
    (tmp_path / metrics.FILE).write_text('3\n[1]\n"text"\n{"step": 0, "loss": 1.5}\n{"step": 1, "lo')
    assert metrics.read(tmp_path, "loss") == [1.5]
    metrics.cut(tmp_path, 1)
    assert (tmp_path / metrics.FILE).read_text() == '{"step": 0, "loss": 1.5}\n'


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_R01_killed_at_any_of_25_steps(tmp_path, workers):
    """Real child processes, SIGKILL, whatever the number of data workers."""
    expected, whole = unbroken(tmp_path / "whole", steps=25)
    for stop in range(1, 26):
        run = Run(tmp_path / str(stop), save_seconds=0.0, workers=workers)
        assert train_in_child(training(steps=25), run, f"engine.step:kill:{stop}") == -signal.SIGKILL
        job = training(steps=25)
        assert train(job, run).losses == whole.losses
        assert torch.equal(weights(job.model), expected), f"stopped at {stop}"
