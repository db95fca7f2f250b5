"""Whole detectors from Detectron2's files."""

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from mae_bench.core.errors import ConfigError, InputError
from mae_bench.core.run import Run
from tasks.edges import detection_run
from tasks.edges.detection_data import eval_images
from tasks.edges.detection_load import load_detector
from tasks.edges.detection_model import build_detector
from tasks.handle import open_data
from tasks.suite import detection
from tasks.suite.detection import dense_options
from tests.detection import native
from tests.detection.test_task import source_of

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

VITDET = {"window": 3, "global_blocks": 2, "rel_pos": True}


@pytest.fixture
def detector(backbone, settings):
    """One of the suite with the structure of `native.vitdet`: `detector(**{"head.cascade": True})`."""

    def build(**changes: Any) -> Any:
        config = settings.override({**VITDET, **changes})
        spec = backbone(**native.FACTS).spec
        return build_detector(backbone(dense_options(config, spec), **native.FACTS), config, num_classes=2, masks=True)

    return build


@pytest.mark.parametrize("ending", ["pkl", "pth"])
def test_file_predicts_what_detectron2_predicts_with_it(detector, backbone, settings, splits, tmp_path, ending):
    theirs = native.build(native.vitdet()).eval()
    path = native.write(theirs, tmp_path / f"model.{ending}")
    ours = detector().eval()
    digest = load_detector(ours, str(path))
    assert len(digest) == 64
    images = eval_images(splits(size=(80, 56))[1], settings)
    for number in range(len(images)):
        with torch.no_grad():
            (found,), (expected,) = (model([copy.deepcopy(images[number])]) for model in (ours, theirs))
        a, b = found["instances"], expected["instances"]
        assert len(a) == len(b) > 0 and torch.equal(a.pred_classes, b.pred_classes) and torch.equal(a.pred_masks, b.pred_masks)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)


def test_task_measures_a_file_without_training(backbone, settings, make_coco, tmp_path, monkeypatch):
    joined = []
    monkeypatch.setattr(detection_run, "join", joined.append)
    path = native.write(native.build(native.vitdet()), tmp_path / "model.pkl")
    source, data = source_of(backbone, **native.FACTS), open_data(f"coco={make_coco()}")
    whole = settings.override({**VITDET, "weights": str(path), "steps": 0})
    first = detection.evaluate(source, data, whole, Run(out=tmp_path / "a"))
    # Whatever the seed of the heads: all their weights are the file's.
    assert detection.evaluate(source, data, whole, Run(out=tmp_path / "b", seed=5)) == first
    assert not (tmp_path / "a" / "metrics.jsonl").exists() and json.loads((tmp_path / "a" / "predictions.json").read_text())
    # Several processes share the images, and no training has brought them together.
    assert [run.out.name for run in joined] == ["a", "b"]
    trained = detection.evaluate(source, data, whole.override({"steps": 2}), Run(out=tmp_path / "c"))
    assert len(joined) == 2
    assert (tmp_path / "c" / "metrics.jsonl").exists() and set(trained) == set(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("roi_heads.mask_head.predictor.weight"), "1 tensors missing .*mask_head.predictor.weight"),
        (lambda state: state.update({"roi_heads.keypoint_head.x": np.zeros(3, np.float32)}), "1 tensors unexpected .*keypoint"),
        (
            lambda state: state.update({"roi_heads.box_predictor.cls_score.weight": np.zeros((81, 16), np.float32)}),
            r"1 tensors of other shapes .*cls_score.weight \(81, 16\) for \(3, 16\)",
        ),
        (lambda state: state["backbone.net.pos_embed"].fill(np.nan), "1 tensors not finite"),
    ],
)
def test_file_that_does_not_fit_is_refused_by_name(detector, tmp_path, change, message):
    path = native.write(native.build(native.vitdet()), tmp_path / "model.pkl")
    content = pickle.loads(path.read_bytes())
    change(content["model"])
    path.write_bytes(pickle.dumps(content))
    model = detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_detector(model, str(path))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_buffers_of_older_files_are_left_out(detector, tmp_path):
    path = native.write(native.build(native.vitdet()), tmp_path / "model.pkl")
    content = pickle.loads(path.read_bytes())
    content["model"] |= {
        "pixel_mean": np.zeros((3, 1, 1), np.float32),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4)),
    }
    path.write_bytes(pickle.dumps(content))
    load_detector(detector(), str(path))


def test_cascade_into_a_plain_head_is_refused(detector, tmp_path):
    path = native.write(native.build(native.vitdet(cascade=True)), tmp_path / "model.pkl")
    with pytest.raises(InputError, match="take the recipe and -m that the detector was trained with"):
        load_detector(detector(), str(path))
    load_detector(detector(**{"head.cascade": True}), str(path))


def test_a_training_from_a_file_does_not_go_on_from_another_one(backbone, settings, make_coco, tmp_path):
    """The path is the same, and so is the folder."""
    path = native.write(native.build(native.vitdet(), seed=1), tmp_path / "model.pkl")
    source, data = source_of(backbone, **native.FACTS), open_data(f"coco={make_coco()}")
    changes = {**VITDET, "weights": str(path), "steps": 1, "schedule.warmup_steps": 0}
    config, run = settings.override(changes), Run(out=tmp_path / "run")
    first = detection.evaluate(source, data, config, run)
    assert detection.evaluate(source, data, config, run) == first
    native.write(native.build(native.vitdet(), seed=2), path)
    with pytest.raises(ConfigError, match="holds a training with other settings"):
        detection.evaluate(source, data, config, run)
