"""Signals, deadlines, TensorBoard, number formats and other numbers of processes: what goes on exactly, and what is refused."""

import os
import signal
import time

import pytest
import torch
from accelerate import Accelerator

from mae_bench.core import batches, checkpoint, metrics, parallel
from mae_bench.core.engine import train
from mae_bench.core.errors import ConfigError, EnvironmentFault, Stopped
from mae_bench.core.run import Run
from tests.core.killing import forked, in_child, status_of
from tests.core.trainings import Noisy, Smooth, train_in_child, training, unbroken, weights

pytestmark = pytest.mark.slow


class Slow(Noisy):
    """Samples of which the 30th takes a minute."""

    made = 0

    def __getitem__(self, index):
        self.made += 1
        if self.made == 30:
            time.sleep(60)
        return super().__getitem__(index)


class Stopping(Noisy):
    """Samples of which the 10th asks this process to stop."""

    def __init__(self, number):
        self.made, self.number = 0, number

    def __getitem__(self, index):
        self.made += 1
        if self.made == 10:
            os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


class Killing(Noisy):
    """Samples of which the 10th of a data worker kills it, as a decoder that crashes does."""

    made = 0

    def __getitem__(self, index):
        self.made += 1
        if self.made == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_R09_a_data_worker_that_dies_is_one_line(tmp_path):
    """In a process of its own: torch tells of the death by an exception at whatever line runs then."""
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", workers=1, save_seconds=0.0)

    def work():
        with pytest.raises(
            EnvironmentFault, match="noisy: a data loading process died: memory ran out, or a decoder crashed"
        ) as told:
            train(training(dataset=Killing()), run)
        raise told.value

    assert in_child(work) == EnvironmentFault.exit_code == 4
    job = training()
    train(job, run)
    assert torch.equal(weights(job.model), expected)


def test_R09_a_pipe_that_breaks_before_the_death_is_told_is_the_same_line(monkeypatch):
    """An alarm in the place of torch's handler, which the system calls a little later than the pipe breaks."""

    def tell(number, frame):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    before = signal.signal(signal.SIGALRM, tell)
    try:
        with pytest.raises(EnvironmentFault, match="noisy: a data loading process died"), batches.deaths_told("noisy"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            raise ConnectionResetError
    finally:
        signal.signal(signal.SIGALRM, before)
    monkeypatch.setattr(batches, "SECONDS_TO_TELL", 0.0)
    with pytest.raises(ConnectionResetError), batches.deaths_told("noisy"):
        raise ConnectionResetError


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_R03_R04_one_signal_saves_and_stops(tmp_path, number):
    expected, whole = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut")
    with pytest.raises(Stopped, match=f"stopped by {number.name} at step 3 of 12") as stopped:
        train(training(dataset=Stopping(number)), run)
    assert stopped.value.exit_code == 75
    job = training()
    assert train(job, run).losses == whole.losses
    assert torch.equal(weights(job.model), expected)


def test_R03_a_second_interrupt_quits_at_once(tmp_path):
    """The first waits for the end of a step, which a slow sample keeps from coming."""
    run = Run(tmp_path / "cut", save_seconds=0.0)

    def work():
        with pytest.raises(KeyboardInterrupt):
            train(training(dataset=Slow()), run)

    child = forked(work)
    while len(metrics.read(run.out, "loss")) < 7:
        time.sleep(0.02)
    time.sleep(0.2)
    started = time.monotonic()
    os.kill(child, signal.SIGINT)
    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGINT)
    assert status_of(child) == 0
    assert time.monotonic() - started < 20
    expected, _ = unbroken(tmp_path / "whole")
    job = training()
    train(job, run)
    assert torch.equal(weights(job.model), expected)


def test_R02_a_signal_while_saving_is_heard_after_it(tmp_path):
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    assert train_in_child(training(), run, "checkpoint.write:term:4") == 75
    job = training()
    train(job, run)
    assert torch.equal(weights(job.model), expected)


def test_the_time_of_a_run_ends_as_a_signal_does(tmp_path):
    expected, _ = unbroken(tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Stopped, match="stopped by --stop-after at step"):
            train(training(), Run(tmp_path / "cut", deadline=time.monotonic()))
    job = training()
    train(job, Run(tmp_path / "cut", deadline=time.monotonic() + 1000))
    assert torch.equal(weights(job.model), expected)


def test_R16_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    expected, _ = unbroken(tmp_path / "whole")
    clock = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    job = training()
    train(job, Run(tmp_path / "jump", save_seconds=0.0))
    assert torch.equal(weights(job.model), expected)


def began_with(folder, world, **changes):
    """A training whose saved state says that several processes began it."""
    run = Run(folder, save_seconds=0.0)
    assert train_in_child(training(**changes), run, "engine.step:kill:6") == -signal.SIGKILL
    state, manifest = checkpoint.load(run.checkpoints, "k", torch.device("cpu")) or pytest.fail("no state")
    checkpoint.save(run.checkpoints, {**state, "world": world}, manifest)
    return run


def test_R14_another_number_of_processes_goes_on_where_images_do_not_meet(tmp_path):
    whole = train(training(model=Smooth()), Run(tmp_path / "whole")).losses
    assert train(training(model=Smooth()), began_with(tmp_path / "cut", 2, model=Smooth())).losses == whole


def test_R14_another_number_of_processes_is_refused_where_it_shapes_the_loss(tmp_path):
    with pytest.raises(ConfigError, match=r"2 processes began this training, and here are 1; .* start 2, or choose another -o"):
        train(training(split_unit=0), began_with(tmp_path, 2, split_unit=0))


def test_bf16_goes_on_exactly(tmp_path):
    """In processes of their own, since accelerate has one number format a process."""
    whole, cut = (Run(tmp_path / name, precision="bf16", save_seconds=0.0) for name in ("whole", "cut"))
    assert train_in_child(training(), cut, "engine.step:kill:8") == -signal.SIGKILL
    ends = []
    for run in (whole, cut, Run(tmp_path / "fp32")):
        assert train_in_child(training(), run) == 0
        state = checkpoint.newest(run.checkpoints) or pytest.fail("no state")
        ends.append(torch.cat([value.flatten().double() for value in state["model"].values()]))
    assert torch.equal(ends[0], ends[1])
    assert metrics.read(whole.out, "loss") == metrics.read(cut.out, "loss")
    assert not torch.equal(ends[0], ends[2])


def test_fp16_on_a_cpu_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="fp16 needs a GPU; use --precision bf16 or fp32"):
        train(training(), Run(tmp_path, precision="fp16"))


def test_the_loss_scale_goes_on_exactly(tmp_path, monkeypatch):
    """torch's loss scaling on a CPU in the place of a GPU's; it doubles every 5 steps; a state without it would start over."""

    def scaling(run):
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=5)
        return accelerator

    monkeypatch.setattr(parallel, "_accelerator", scaling)
    expected, _ = unbroken(tmp_path / "whole")
    run = Run(tmp_path / "cut", save_seconds=0.0)
    assert train_in_child(training(), run, "engine.step:kill:8") == -signal.SIGKILL
    saved = checkpoint.newest(run.checkpoints) or pytest.fail("no state")
    assert (saved["scaler"]["scale"], saved["scaler"]["_growth_tracker"]) == (512.0, 2)
    job = training()
    train(job, run)
    assert torch.equal(weights(job.model), expected)
    ended = checkpoint.newest(run.checkpoints) or pytest.fail("no state")
    assert (ended["scaler"]["scale"], ended["scaler"]["_growth_tracker"]) == (1024.0, 2)


@pytest.mark.parametrize(("changes", "said"), [({}, "this is one; start it by torchrun"), ({"precision": "fp16"}, "GPU")])
def test_sharding_that_cannot_be_is_one_line(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        train(training(), Run(tmp_path, sharded=True, **changes))


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_R01_tensorboard_shows_what_the_log_has(tmp_path):
    pytest.importorskip("tensorboard")
    run = Run(tmp_path, save_seconds=0.0, tensorboard=True)
    assert train_in_child(training(), run, "engine.step:kill:8") == -signal.SIGKILL
    time.sleep(1.1)  # TensorBoard orders its files by the second they were begun in
    train(training(), run)
    shown = scalars(tmp_path / "tensorboard")
    for name in ("loss", "lr"):
        steps, values = zip(*shown[name], strict=True)
        assert list(steps) == list(range(12))
        assert list(values) == pytest.approx(metrics.read(tmp_path, name), rel=1e-6)


def test_tensorboard_that_is_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(EnvironmentFault, match=r"--tensorboard needs tensorboard, .*mae-bench\[tensorboard\]"):
        train(training(), Run(tmp_path, tensorboard=True))
