"""A segmentor killed in every step of its training ends in the numbers and weights of an unbroken one."""

import pytest

from tasks.handle import open_data
from tasks.suite import segmentation
from tests.core.killing import STOPS, assert_kills_change_nothing
from tests.segmentation.conftest import tiny_source

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.filterwarnings("ignore:This DataLoader will create")]


def test_R01_killed_in_each_of_25_steps(make_ade, settings, tmp_path):
    """With 0, 2 and 4 data workers in turns; crops, photometric distortion and drop path included."""
    pytest.importorskip("tasks.edges.segmentation_run")
    source, data = tiny_source(), open_data(f"ade20k={make_ade()}")
    config = settings.override({"steps": STOPS, "drop_path": 0.1})

    def work(run):
        return segmentation.evaluate(source, data, config, run)

    assert_kills_change_nothing(work, tmp_path, seed=1)
