"""The online probe: the tasks' own numbers, and a training that does not notice it."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from backbones.source import open_source
from mae_bench.core import faults, metrics
from mae_bench.core.errors import ConfigError, Stopped
from mae_bench.core.run import Run
from mae_bench.core.training import LOGGED
from mae_bench.pretrain import pretrain
from tasks.handle import open_data
from tasks.suite import knn, linear
from tests.pretrain.noisy import write_noisy

pytestmark = pytest.mark.slow

SMALL = {"epochs": "2", "batch_size": "8", "warmup_epochs": "1", "image_size": "16", "decoder_dim": "16"}
STEPS = 6


@pytest.fixture(autouse=True)
def _short_linear(monkeypatch):
    monkeypatch.setitem(linear.RECIPES, "demo", linear.RECIPES["demo"].model_copy(update={"epochs": 2, "warmup_epochs": 1}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes, 12 noisy images of each to train on and 4 to measure on."""
    root = write_noisy(tmp_path_factory.mktemp("images"), 12, 4, (20, 24), noise=200, lighter=55)
    return open_data(f"folder={root}")


def go(data, out, **overrides):
    run = Run(out, seed=3, save_seconds=0.0)
    return pretrain("mae", "vit_demo_patch8", data, {**SMALL, **overrides}, run, recipe="demo")


def probed(out) -> list[tuple[int, dict[str, float]]]:
    """The measurements that a pretraining has logged: steps made, and percent by name such as `knn_top1`."""
    found = []
    for line in metrics.lines(out):
        if f"{LOGGED}knn_top1" in line:
            probes = (f"{LOGGED}knn_", f"{LOGGED}linear_")
            numbers = {name.removeprefix(LOGGED): value for name, value in line.items() if name.startswith(probes)}
            found.append((int(line["step"]) + 1, numbers))
    return found


def numpy_state():
    return str(np.random.get_state())


def test_weights_losses_and_random_states_are_those_without_it(data, tmp_path):
    go(data, tmp_path / "without")
    states = random.getstate(), numpy_state(), torch.get_rng_state()
    go(data, tmp_path / "with", probe_every="1")
    assert (random.getstate(), numpy_state()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("without", "with"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    assert metrics.read(tmp_path / "without", "loss") == metrics.read(tmp_path / "with", "loss")
    # Nor is its time counted as the training's.
    assert json.loads((tmp_path / "with/pretrain.json").read_text())["images"] == STEPS * 8
    assert not (tmp_path / "with/probe").exists()
    # The last measurement is that of the finished weights, which the tasks make of the checkpoint too.
    (first, _), (last, numbers) = probed(tmp_path / "with")
    assert (first, last) == (3, STEPS)
    source, run = open_source(str(tmp_path / "with/model.safetensors")), Run(tmp_path / "task", seed=3)
    for task in (knn, linear):
        name = task.__name__.rpartition(".")[2]
        for metric, value in task.evaluate(source, data, task.RECIPES["demo"], run).items():
            assert numbers[f"{name}_{metric}"] == value


def test_a_run_that_is_cut_probes_as_the_whole_one(data, tmp_path, monkeypatch):
    go(data, tmp_path / "whole", probe_every="1")
    monkeypatch.setenv(faults.VARIABLE, "engine.step:term:4")
    faults._visits.clear()
    with pytest.raises(Stopped):
        go(data, tmp_path / "cut", probe_every="1")
    monkeypatch.delenv(faults.VARIABLE)
    go(data, tmp_path / "cut", probe_every="1")
    assert probed(tmp_path / "cut") == probed(tmp_path / "whole")
    assert metrics.read(tmp_path / "cut", "loss") == metrics.read(tmp_path / "whole", "loss")


def test_a_signal_during_the_probe_saves_the_training(data, tmp_path, monkeypatch):
    go(data, tmp_path / "whole", probe_every="1")
    before = linear.evaluate
    calls = []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise Stopped("stopped by a signal")
        return before(*arguments)

    monkeypatch.setattr(linear, "evaluate", stopped)
    with pytest.raises(Stopped):
        go(data, tmp_path / "cut", probe_every="1")
    go(data, tmp_path / "cut", probe_every="1")
    assert probed(tmp_path / "cut") == probed(tmp_path / "whole")
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_folder_goes_on_with_the_probe_switched_on(data, tmp_path, monkeypatch):
    monkeypatch.setenv(faults.VARIABLE, "engine.step:term:2")
    faults._visits.clear()
    with pytest.raises(Stopped):
        go(data, tmp_path)
    monkeypatch.delenv(faults.VARIABLE)
    go(data, tmp_path, probe_every="2")
    assert [step for step, _ in probed(tmp_path)] == [STEPS]


def test_what_would_fail_after_hours_is_refused_at_the_start(data, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="probe_every"):
        go(data, tmp_path / "negative", probe_every="-1")
    root = tmp_path / "few"
    shutil.copytree(data.root, root)
    for path in list((root / "train/dark").iterdir())[4:]:
        path.unlink()
    with pytest.raises(ConfigError, match="knn:demo takes 20 neighbours of 16 training images"):
        go(open_data(f"folder={root}"), tmp_path / "out", probe_every="1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="in one process"):
        go(data, tmp_path / "several", probe_every="1")
