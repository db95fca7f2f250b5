"""What a dry run foretells of cells of detection: windows, other patches, and networks that cannot have them."""

import pytest

from backbones.contract import DenseOptions
from backbones.source import open_source
from mae_bench.estimate import Estimator, forward_gflops, options_of
from mae_bench.options import Options
from mae_bench.plan import make_plan
from mae_bench.preview import previews
from tasks.suite import detection

pytestmark = pytest.mark.apart


@pytest.fixture
def plan(make_coco, tmp_path):
    """Plan the recipe `paper` at 256 pixels: `plan("random:...", ...)`."""
    pytest.importorskip("detectron2")  # without it the plan says that no cell can run
    data = f"coco={make_coco()}"

    def make(*models):
        size = {"detection.image_size": "256"}
        return make_plan(list(models), ["detection:paper"], [data], tmp_path, overrides=size, seeds=[0], options=Options())

    return make


@pytest.mark.edge
def test_windows_and_a_fitting_patch_are_foretold(plan):
    network = "random:vit_huge_patch14"
    [cell] = plan(network).cells
    source = open_source(network)
    options = options_of(cell.request, source)
    assert (options.patch_size, options.window, options.image_size) == (16, 14, (256, 256))
    assert options.global_layers == (7, 15, 23, 31) and options.rel_pos
    found = forward_gflops(source, options)
    whole = forward_gflops(source, DenseOptions(image_size=(256, 256), patch_size=16, keep_prefix=False))
    assert found == pytest.approx(whole, rel=0.1) and found != whole


@pytest.mark.edge
def test_a_network_without_windows_is_a_cell_that_cannot_run(plan):
    asked = plan("eva=random:eva02_tiny_patch14", "random:vit_tiny_patch16")
    eva, plain = previews(asked, "", Estimator([], "cpu", lambda source: 1.0))
    assert eva.cost is None and "neither windows nor relative positions" in eva.cell.fault
    assert plain.cost is not None and plain.cost.memory > 4 * 4 * 5.4e6  # weights, gradients and states


def test_the_options_are_those_that_the_settings_ask_for():
    spec = open_source("random:vit_base_patch16").spec
    found = detection.dense_options(detection.RECIPES["paper"], spec)
    assert (found.image_size, found.window, found.global_layers) == ((1024, 1024), 14, (2, 5, 8, 11))
    assert found.rel_pos and found.patch_size is None and not found.keep_prefix
