"""The `paper` recipes train: a whole step of each kind, with the networks of the published heads, on small images."""

import json

import pytest

from mae_bench.core.run import Run
from tasks.handle import open_data
from tasks.suite import detection
from tests.data.test_data_coco_lvis import write as write_lvis
from tests.detection.test_task import source_of

pytest.importorskip("detectron2")

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

VIT_B = {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072}
FEWER = {"head.proposals_before_nms": [100, 50], "head.proposals": [100, 50], "head.rois": 32, "head.detections": 5}
"""Boxes that the heads compute, which is what a step takes most time for."""
SMALL = {"embed_dim": 96, "depth": 4, "num_heads": 2, "mlp_dim": 96}


def step(backbone, data, recipe, facts, out):
    """Losses of the first step and the figures after it; a batch of one image of 64 pixels."""
    small = {"image_size": 64, "batch_size": 1, "steps": 1, "schedule.milestones": [], "schedule.warmup_steps": 0}
    config = detection.RECIPES[recipe].override(small | FEWER)
    source = source_of(backbone, **facts, patch_size=16, image_size=(64, 64))
    found = detection.evaluate(source, data, config, Run(out=out))
    (line,) = (out / "metrics.jsonl").read_text().splitlines()
    return {name for name in json.loads(line) if name.startswith("loss_")}, found


@pytest.mark.parametrize(
    ("recipe", "facts"),
    [
        ("paper", SMALL),
        ("paper-mae", SMALL),
        pytest.param("paper-cascade-large", SMALL, marks=pytest.mark.slow),
        pytest.param("frozen", SMALL, marks=pytest.mark.slow),
        pytest.param("paper", VIT_B, marks=pytest.mark.slow),
        pytest.param("paper-mae", VIT_B, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_each_kind(backbone, make_coco, tmp_path, recipe, facts):
    losses, found = step(backbone, open_data(f"coco={make_coco(val=1)}"), recipe, facts, tmp_path / "run")
    stages = ("_stage0", "_stage1", "_stage2") if "cascade" in recipe else ("",)
    boxes = {f"{name}{stage}" for stage in stages for name in ("loss_cls", "loss_box_reg")}
    assert losses == {"loss_mask", "loss_rpn_cls", "loss_rpn_loc"} | boxes
    assert {"AP_box", "AP_mask"} <= set(found)


def test_a_step_on_lvis(backbone, tmp_path):
    """With fewer classes than the loss of a batch is taken of."""
    pytest.importorskip("faster_coco_eval")
    data = open_data(f"lvis={write_lvis(tmp_path / 'lvis')}")
    losses, found = step(backbone, data, "paper-lvis", SMALL, tmp_path / "run")
    assert "loss_cls" in losses and "AP_box" in found
