"""The task as the runner sees it, end to end on a handful of images."""

import importlib
import json
import logging
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from mae_bench.core.errors import ConfigError, EnvironmentFault
from mae_bench.core.progress import Silent
from mae_bench.core.run import Run
from tasks.handle import open_data
from tasks.suite import detection

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


class Noted(Silent):
    """A reporter that keeps what it was told."""

    def __init__(self):
        self.titles, self.done = [], 0

    def start(self, title, total, done=0):
        self.titles.append((title, total))

    def advance(self, steps=1, note=""):
        self.done += steps


def hide_detectron2(monkeypatch):
    """Make Python find no Detectron2, and import anew what stands on it."""
    ours = ("detectron2", "tasks.edges.detection_", "backbones.adapters.to_detectron2")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delattr("tasks.edges.detection_run", raising=False)


def source_of(backbone, **facts) -> Any:
    """What the task asks of a `Source`, for a backbone with other facts."""

    def build(options=None, seed=0):
        return backbone(options, seed, **facts)

    return SimpleNamespace(name="tiny", spec=build().spec, sha256="0" * 64, build=build)


@pytest.fixture
def run(tmp_path):
    return Run(out=tmp_path / "run", seed=1, reporter=Noted())


def test_training_and_evaluation_give_both_metrics(source, make_coco, settings, run):
    pytest.importorskip("detectron2")
    metrics = detection.evaluate(source, open_data(f"coco={make_coco()}"), settings, run)
    order = [metric.name for metric in detection.METRICS]
    # The objects of the val split are small, and LVIS' figures are for LVIS.
    absent = {f"{part}_{kind}" for part in ("APm", "APl", "ARm", "ARl", "APr", "APc", "APf") for kind in ("box", "mask")}
    assert list(metrics) == [name for name in order if name not in absent]
    assert all(0 <= value <= 100 for value in metrics.values())
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"} <= set(lines[0])
    figures = json.loads((run.out / "per_class.json").read_text())
    assert [entry["name"] for entry in figures["AP_mask"]["classes"]] == ["red", "blue"]
    assert {one["category_id"] for one in json.loads((run.out / "predictions.json").read_text())} <= {3, 7}
    Image.open(run.out / "predictions.png").verify()
    titles = ["detection: reading val images", "detection: training", "detection: evaluating"]
    assert run.reporter.titles == [(title, 3) for title in titles] and run.reporter.done == 9

    # Once more: the finished training is found, and gives the same numbers.
    assert detection.evaluate(source, open_data(f"coco={run.out.parent / 'coco'}"), settings, run) == metrics
    assert [title for title, _ in run.reporter.titles[3:]] == titles[1:]


def test_boxes_without_masks_leave_ap_mask_out_and_say_so(source, make_coco, settings, run, caplog):
    pytest.importorskip("detectron2")
    root = make_coco(masks=None)
    with caplog.at_level(logging.INFO):
        metrics = detection.evaluate(source, open_data(f"coco={root}"), settings, run)
    assert metrics and all(name.endswith("_box") for name in metrics)
    assert "figures of masks are left out" in caplog.text


def test_annotations_that_cannot_be_used_are_listed(source, make_coco, settings, run):
    pytest.importorskip("detectron2")
    root = make_coco()
    place = root / "annotations" / "instances_train.json"
    content = json.loads(place.read_text())
    content["annotations"][2]["bbox"] = [5, 5, -3, 10]
    place.write_text(json.dumps(content))
    detection.evaluate(source, open_data(f"coco={root}"), settings.override({"steps": 1, "schedule.warmup_steps": 0}), run)
    (line,) = (run.out / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line) == {"split": "train", "id": 3, "kind": "negative or empty box", "by": "annotations"}
    # Once more: they are named once.
    detection.evaluate(source, open_data(f"coco={root}"), settings.override({"steps": 1, "schedule.warmup_steps": 0}), run)
    assert len((run.out / "skipped.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("windows", [{}, {"window": 3, "rel_pos": True}])
def test_patches_of_14_pixels_are_resampled(backbone, make_coco, settings, run, windows):
    pytest.importorskip("detectron2")
    facts = {"patch_size": 14, "image_size": (56, 56)}
    source = source_of(backbone, **facts)
    metrics = detection.evaluate(source, open_data(f"coco={make_coco()}"), settings.override({"steps": 2, **windows}), run)
    assert 0 <= metrics["AP_box"] <= 100


def test_a_network_that_cannot_have_windows_is_refused(backbone, make_coco, settings, run):
    pytest.importorskip("detectron2")
    source = source_of(backbone)
    options: list[Any] = []

    def build(asked, seed):
        options.append(asked)
        raise ValueError("windows are not for rotary positions")

    source.build = build
    with pytest.raises(ConfigError, match=r"detection on vit_w24.*: windows are not for rotary"):
        detection.evaluate(source, open_data(f"coco={make_coco()}"), settings.override({"window": 3}), run)
    assert options[0].window == 3


def test_a_batch_may_be_larger_than_the_data(source, make_coco, settings, run):
    pytest.importorskip("detectron2")
    root = make_coco(train=3)  # of which one has no object
    larger = settings.override({"batch_size": 5, "steps": 1, "schedule.warmup_steps": 0})
    metrics = detection.evaluate(source, open_data(f"coco={root}"), larger, run)
    assert "AP_box" in metrics


def test_a_checkpoint_of_another_precision_is_not_taken_over(source, make_coco, settings, run, monkeypatch):
    pytest.importorskip("detectron2")
    from tasks.edges import detection_run

    keys = []
    monkeypatch.setattr(detection_run, "train", lambda training, run: keys.append(training.key))
    data = open_data(f"coco={make_coco()}")
    for precision in ("fp32", "bf16", "fp32"):
        detection.evaluate(source, data, settings, replace(run, precision=precision))
    assert keys[0] == keys[2] != keys[1]


def test_frozen_backbone_is_the_checkpoints(backbone, make_coco, settings, run):
    pytest.importorskip("detectron2")
    from tasks.edges import detection_run

    fixed = settings.override({"frozen": True, "optim.layer_decay": 1.0, "steps": 2})
    data = open_data(f"coco={make_coco()}")
    source = source_of(backbone)
    model = detection_run.build(source, data.split("train"), fixed, run, masks=True)
    inside = model.backbone.net.net
    before = {name: value.clone() for name, value in inside.state_dict().items()}
    detection_run.train(detection_run.training(model, data.split("train"), fixed, masks=True, key="frozen"), run)
    assert all(torch.equal(value, before[name]) for name, value in inside.state_dict().items())


def test_missing_detectron2_is_one_line_with_the_fix(source, make_coco, settings, run, monkeypatch):
    hide_detectron2(monkeypatch)
    with pytest.raises(EnvironmentFault, match="mae-bench setup detection"):
        detection.evaluate(source, open_data(f"coco={make_coco()}"), settings, run)


def test_the_task_file_needs_no_framework(monkeypatch):
    hide_detectron2(monkeypatch)
    monkeypatch.delitem(sys.modules, "tasks.suite.detection")
    assert importlib.import_module("tasks.suite.detection").KIND == "detection"


def test_paper_recipe_is_the_released_one():
    paper, huge = detection.RECIPES["paper"], detection.RECIPES["paper-huge"]
    assert (paper.steps, paper.schedule.milestones, paper.batch_size) == (184375, (163889, 177546), 64)
    factors = [paper.schedule.factor(step, paper.steps) for step in (0, 250, 163889, 177546)]
    assert factors == pytest.approx([0.001, 1.0, 0.1, 0.01])
    assert (paper.optim.lr, paper.optim.weight_decay, paper.optim.layer_decay, paper.drop_path) == (1e-4, 0.1, 0.7, 0.1)
    assert (detection.RECIPES["paper-large"].optim.layer_decay, detection.RECIPES["paper-large"].drop_path) == (0.8, 0.4)
    assert (huge.steps, huge.schedule.milestones, huge.decay_norms) == (138281, (122916, 133159), True)
    # Of the warm-up ViTDet states a share, 250 / 184375, and changes the length alone: 187.5 steps.
    assert {detection.RECIPES[name].schedule.warmup_steps for name in ("paper-huge", "paper-cascade-huge")} == {188}
    assert paper.schedule.warmup_steps == detection.RECIPES["paper-lvis-huge"].schedule.warmup_steps == 250


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "900"}, r"set schedule\.milestones too, such as \[800, 866\]"),
        (
            {"steps": "250", "schedule.milestones": "[]"},
            "schedule.warmup_steps=250 is not less than steps=250; set schedule.warmup_steps too, 25 say",
        ),
        ({"image_size": "1000"}, "multiple of 32"),
        ({"scale": "[2.0, 0.1]"}, "smaller first"),
        ({"head.chanels": "8"}, "did you mean channels"),
        ({"head.norm": "GN", "head.channels": "20"}, "32 groups, which do not divide widths of 20"),
        ({"head.proposals_before_nms": "[-5, -5]"}, "greater than 0"),
        ({"head.proposals": "[0, 0]"}, "greater than 0"),
        ({"head.box_convs": "[0]"}, "greater than 0"),
        ({"head.anchor_scales": "[0]"}, "greater than 0"),
        ({"head.federated_classes": "50"}, "needs sigmoid=True"),
        ({"steps": "0", "schedule.milestones": "[]"}, "give it by weights=FILE"),
        ({"frozen": "true"}, "set window=0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        detection.RECIPES["paper"].override(changes, where="detection:paper")


def test_recipes_scale_with_the_batch_only_where_they_say_so():
    fast = detection.RECIPES["fast"]
    small = fast.override({"batch_size": 16}).scaled()
    assert small.optim.lr == pytest.approx(fast.optim.lr / 4) and small.steps == 4 * fast.steps
    assert small.schedule.milestones == tuple(4 * step for step in fast.schedule.milestones)
    assert small.schedule.warmup_steps == 4 * fast.schedule.warmup_steps
    assert fast.scaled() is fast
    paper = detection.RECIPES["paper"].override({"batch_size": 16})
    assert paper.scaled() is paper


def test_lvis_recipes_are_the_released_ones():
    base, huge = detection.RECIPES["paper-lvis"], detection.RECIPES["paper-lvis-cascade-huge"]
    assert (base.steps, base.schedule.milestones, base.optim.lr, base.repeat_threshold) == (
        156_250,
        (138_889, 150_463),
        2e-4,
        1e-3,
    )
    assert (base.head.federated_classes, base.head.federated_power, base.head.score_threshold) == (50, 0.5, 0.02)
    assert (huge.optim.lr, huge.drop_path, huge.decay_norms, huge.head.cascade, huge.steps) == (1e-4, 0.4, True, True, 156_250)


def test_mae_recipe_is_that_of_its_paper():
    mae = detection.RECIPES["paper-mae"]
    assert (mae.optim.lr, mae.optim.layer_decay, mae.schedule.kind, mae.schedule.warmup_steps) == (8e-5, 1.0, "cosine", 461)
    assert (mae.head.pyramid, mae.head.norm, mae.drop_path) == ("fpn", "SyncBN", 0.1)
    assert detection.RECIPES["paper-mae-large"].drop_path == 0.3
    assert set(detection.DEVIATIONS_OF) == {name for name in detection.RECIPES if "mae" in name or "lvis" in name}
