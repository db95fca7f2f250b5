"""The task as the runner sees it, end to end on a handful of images."""

import importlib
import json
import logging
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from mae_bench.core.errors import ConfigError, EnvironmentFault, InputError
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


@pytest.fixture
def run(tmp_path):
    return Run(out=tmp_path / "run", seed=1, reporter=Noted())


def test_training_and_evaluation_give_both_metrics(source, make_coco, settings, run):
    pytest.importorskip("detectron2")
    metrics = detection.evaluate(source, open_data(f"coco={make_coco()}"), settings, run)
    assert list(metrics) == [metric.name for metric in detection.METRICS]
    assert all(0 <= value <= 100 for value in metrics.values())
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"} <= set(lines[0])
    figures = json.loads((run.out / "per_class.json").read_text())
    assert [entry["name"] for entry in figures["AP_mask"]["classes"]] == ["red", "blue"]
    assert {one["category_id"] for one in json.loads((run.out / "predictions.json").read_text())} <= {3, 7}
    Image.open(run.out / "predictions.png").verify()
    assert run.reporter.titles == [("detection: training", 3), ("detection: evaluating", 3)] and run.reporter.done == 6

    # Once more: the finished training is found, and gives the same numbers.
    assert detection.evaluate(source, open_data(f"coco={run.out.parent / 'coco'}"), settings, run) == metrics


def test_boxes_without_masks_leave_ap_mask_out_and_say_so(source, make_coco, settings, run, caplog):
    pytest.importorskip("detectron2")
    root = make_coco(masks=None)
    with caplog.at_level(logging.INFO):
        metrics = detection.evaluate(source, open_data(f"coco={root}"), settings, run)
    assert list(metrics) == ["AP_box"]
    assert "AP_mask is left out" in caplog.text


def test_annotations_that_cannot_be_used_are_listed(source, make_coco, settings, run):
    pytest.importorskip("detectron2")
    root = make_coco()
    place = root / "annotations" / "instances_train.json"
    content = json.loads(place.read_text())
    content["annotations"][2]["bbox"] = [5, 5, -3, 10]
    place.write_text(json.dumps(content))
    detection.evaluate(source, open_data(f"coco={root}"), settings.override({"steps": 1}), run)
    (line,) = (run.out / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line) == {"split": "train", "id": 3, "kind": "negative or empty box"}


def test_a_damaged_image_stops_the_training_by_name(source, make_coco, settings, run):
    pytest.importorskip("detectron2")
    root = make_coco(train=2)
    (root / "train" / "1.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"train/1\.png"):
        detection.evaluate(source, open_data(f"coco={root}"), settings.override({"batch_size": 1}), run)


def test_patch_14_is_refused_before_any_work(backbone, make_coco, settings, run):
    pytest.importorskip("detectron2")
    spec = backbone(patch_size=14, image_size=(28, 28)).spec
    source = SimpleNamespace(name="dino", spec=spec, sha256="0" * 64, build=None)
    with pytest.raises(ConfigError, match="patch size 14"):
        detection.evaluate(cast(Any, source), open_data(f"coco={make_coco()}"), settings, run)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "900"}, r"set schedule\.milestones too, such as \[800, 866\]"),
        ({"image_size": "1000"}, "multiple of 32"),
        ({"scale": "[2.0, 0.1]"}, "smaller first"),
        ({"head.chanels": "8"}, "did you mean channels"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        detection.RECIPES["paper"].override(changes, where="detection:paper")
