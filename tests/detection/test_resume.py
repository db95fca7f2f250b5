"""A detector killed in every step of its training ends in the numbers and weights of an unbroken one."""

import pytest

from mae_bench.core import metrics
from mae_bench.core.run import Run
from tasks.handle import open_data
from tasks.suite import detection
from tests.core.killing import STOPS, assert_equal_states, end_state, killed_in_every_step

pytestmark = [
    pytest.mark.edge,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


def test_R01_killed_in_each_of_25_steps(source, make_coco, settings, tmp_path):
    """With 0, 2 and 4 data workers in turns; jitter, drop path and the draws of boxes and proposals included."""
    pytest.importorskip("detectron2")
    data, config = open_data(f"coco={make_coco()}"), settings.override({"steps": STOPS, "drop_path": 0.1})

    def work(run):
        return detection.evaluate(source, data, config, run)

    whole = Run(tmp_path / "whole", seed=1)
    found = work(whole)
    cut = killed_in_every_step(work, tmp_path / "cut", seed=1)
    assert work(cut) == found
    assert_equal_states(end_state(cut), end_state(whole))
    assert metrics.read(cut.out, "loss") == metrics.read(whole.out, "loss")
