"""A dry run shows cells whose backbone cannot be built as the settings ask as cells that cannot run."""

import pytest

from backbones.source import open_source
from mae_bench.core.errors import ConfigError
from mae_bench.estimate import Estimator, check_options
from mae_bench.options import Options
from mae_bench.plan import make_plan
from mae_bench.preview import previews
from tasks.suite import segmentation
from tests.runner.conftest import write_images

pytestmark = pytest.mark.apart


def test_sizes_of_no_whole_patches(tmp_path):
    data, changes = f"folder={write_images(tmp_path / 'data')}", {"finetune.image_size": "50"}
    plan = make_plan(
        ["random:vit_demo_patch8"], ["finetune:demo"], [data], tmp_path, overrides=changes, seeds=[0], options=Options()
    )
    [one] = previews(plan, "", Estimator([], "cpu", lambda source: 1.0))
    assert one.cost is None and "image_size=50 is no multiple of the patch size 8" in one.cell.fault


def test_relative_positions_in_a_network_that_has_none_like_it():
    source = open_source("random:eva02_tiny_patch14")
    options = segmentation.dense_options(segmentation.RECIPES["paper"], source.spec)
    assert options.image_size == (518, 518) and options.relative_table
    with pytest.raises(ConfigError, match="relative_table=True: networks of the EVA-02 and DINOv3 kind have neither"):
        check_options(source, options)
