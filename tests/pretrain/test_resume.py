"""Every objective, killed in every step by SIGKILL and gone on with, ends in the very weights of an unbroken training."""

import pytest

from mae_bench.core import find
from mae_bench.pretrain import ROOM, pretrain
from tasks.handle import open_data
from tests.core.killing import STOPS, assert_kills_change_nothing
from tests.pretrain.noisy import write_noisy

SMALL = {"epochs": "5", "batch_size": "4", "warmup_epochs": "1", "image_size": "16"}
MORE = {
    "mae": {"average_decay": "0.9"},
    "supervised": {"drop_path": "0.2", "mixup": "0.8", "rand_augment": "rand-m9-mstd0.5-inc1"},
    "dino": {"weight_decay_end": "0.4", "teacher_temperature": "0.07", "teacher_temperature_epochs": "3"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of 10 noisy images, which are five steps an epoch."""
    return open_data(f"folder={write_noisy(tmp_path_factory.mktemp('images'), 10, 1, (20, 24))}")


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("objective", find.names(ROOM))
def test_R01_killed_in_each_of_25_steps(data, tmp_path, objective):
    """With 0, 2 and 4 data workers in turns; masks, teachers, centres, mixing, the moving average and the optimizer included."""
    if objective not in ("mae", "supervised"):
        pytest.importorskip("lightly.loss")

    def work(run):
        assert not (run.out / "pretrain.json").exists()
        weights = pretrain(objective, "vit_demo_patch8", data, {**SMALL, **MORE.get(objective, {})}, run, recipe="demo")
        return weights.read_bytes()

    assert len(assert_kills_change_nothing(work, tmp_path, seed=3)) == STOPS
