"""A detector killed in every step of its training ends in the numbers and weights of an unbroken one."""

import pytest

from tasks.handle import open_data
from tasks.suite import detection
from tests.core.killing import STOPS, assert_kills_change_nothing

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

    assert_kills_change_nothing(work, tmp_path, seed=1)
