"""Every objective, killed in every step by SIGKILL and gone on with, ends in the very weights of an unbroken training."""

import numpy as np
import pytest
from PIL import Image

from mae_bench.core import find, metrics
from mae_bench.core.run import Run
from mae_bench.pretrain import ROOM, pretrain
from tasks.handle import open_data
from tests.core.killing import STOPS, assert_equal_states, end_state, killed_in_every_step

SMALL = {"epochs": "5", "batch_size": "4", "warmup_epochs": "1", "image_size": "16"}
MORE = {
    "mae": {"average_decay": "0.9"},
    "supervised": {"drop_path": "0.2", "mixup": "0.8", "rand_augment": "rand-m9-mstd0.5-inc1"},
    "dino": {"weight_decay_end": "0.4", "teacher_temperature": "0.07", "teacher_temperature_epochs": "3"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of 10 noisy images, which are five steps an epoch."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 1)):
        for name in ("dark", "light"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 128, (20, 24, 3)) + 120 * (name == "light")
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{index}.png")
    return open_data(f"folder={root}")


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("objective", find.names(ROOM))
def test_R01_killed_in_each_of_25_steps(data, tmp_path, objective):
    """With 0, 2 and 4 data workers in turns; masks, teachers, centres, mixing, the moving average and the optimizer included."""
    if objective not in ("mae", "supervised"):
        pytest.importorskip("lightly.loss")

    def work(run):
        return pretrain(objective, "vit_demo_patch8", data, {**SMALL, **MORE.get(objective, {})}, run, recipe="demo")

    whole = Run(tmp_path / "whole", seed=3)
    weights = work(whole)
    cut = killed_in_every_step(work, tmp_path / "cut", seed=3)
    assert not (cut.out / "pretrain.json").exists()
    assert work(cut).read_bytes() == weights.read_bytes()
    assert_equal_states(end_state(cut), end_state(whole))
    losses = metrics.read(whole.out, "loss")
    assert metrics.read(cut.out, "loss") == losses and len(losses) == STOPS
