"""The figures against other programs: Detectron2's evaluator, faster-coco-eval, LVIS' own rules."""

import contextlib
import copy
import io
import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from mae_bench.core.errors import EnvironmentFault
from tasks.edges import detection_ap
from tasks.edges.detection_ap import COCO_PARTS, average_precision, check_evaluator, headline
from tasks.edges.detection_eval import usable

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


def disturb(found: dict[int, list[Any]], seed: int = 0) -> dict[int, list[Any]]:
    """Move, double and confuse detections, and add some out of nowhere, with scores that are all different."""
    random = np.random.default_rng(seed)
    spoilt = {}
    for image, some in found.items():
        spoilt[image] = []
        for one in [*some, *some, *some[:1] * 3]:
            x, y, width, height = one["bbox"]
            box = [x + random.normal(0, 2), y + random.normal(0, 2), width * random.uniform(0.7, 1.3), height]
            label = one["category_id"] if random.random() < 0.8 else 1 - one["category_id"]
            spoilt[image].append({**one, "bbox": [float(value) for value in box], "category_id": label, "score": random.random()})
    return spoilt


def detectron2s(found: dict[int, list[Any]], split: Any) -> dict[str, dict[str, float]]:
    """The figures of Detectron2's evaluator on the user's own file."""
    name = "mae-bench-test"
    numbers = {category: index for index, category in enumerate(split.category_ids)}
    MetadataCatalog.get(name).set(json_file=str(split.json_path), thing_dataset_id_to_contiguous_id=numbers)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOEvaluator(name, ["bbox", "segm"], distributed=False, use_fast_impl=False)
            evaluator.reset()
            evaluator._predictions = [{"image_id": image, "instances": some} for image, some in copy.deepcopy(found).items()]
            return evaluator.evaluate()
    finally:
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("seed", range(3))
def test_D19_figures_equal_those_of_detectron2(splits, perfect, seed):
    split = splits(masks="rle", val=8)[1]
    found = disturb(perfect(split), seed)
    ours, theirs = average_precision(found, split, masks=True), detectron2s(found, split)
    for kind, name in (("bbox", "AP_box"), ("segm", "AP_mask")):
        for part in COCO_PARTS[:6]:
            value = ours[name][part]
            assert value == pytest.approx(theirs[kind][part], abs=1e-9) if value is not None else np.isnan(theirs[kind][part])
    assert 0 < ours["AP_box"]["AP"] < 100


def test_fast_evaluator_gives_the_same_numbers(splits, perfect):
    pytest.importorskip("faster_coco_eval")
    split = splits(masks="rle", val=12)[1]
    split.annotations[10][0]["iscrowd"] = 1
    found = disturb(perfect(split))
    slow, fast = (average_precision(found, split, masks=True, fast=fast) for fast in (False, True))
    assert json.dumps(slow) != "{}" and len(slow["AP_box"]) == 13
    for name, values in slow.items():
        for part in COCO_PARTS:
            assert fast[name][part] == (None if values[part] is None else pytest.approx(values[part], abs=1e-9)), (name, part)
        assert [entry["AP"] for entry in fast[name]["classes"]] == pytest.approx([entry["AP"] for entry in values["classes"]])


@pytest.mark.parametrize("fast", [False, True])
def test_annotations_are_left_as_they_were(splits, perfect, fast):
    if fast:
        pytest.importorskip("faster_coco_eval")
    split = splits(val=4)[1]
    before = copy.deepcopy(split.annotations)
    average_precision(perfect(split), split, masks=True, fast=fast)
    assert split.annotations == before


@pytest.mark.parametrize("fast", [False, True])
def test_D19_no_prediction_is_0(splits, fast):
    if fast:
        pytest.importorskip("faster_coco_eval")
    split = splits()[1]
    figures = average_precision({image["id"]: [] for image in split.images}, split, masks=True, fast=fast)
    assert set(headline(figures, split).values()) == {0.0} and figures["AP_box"]["APl"] is None


def test_D19_scores_that_are_no_numbers_are_left_out_and_counted(splits, perfect):
    split = splits()[1]
    found = perfect(split)
    good = average_precision(found, split, masks=True)
    for value in (float("nan"), float("inf")):
        found[10].append({**found[10][0], "score": value})
        found[10].append({**found[10][0], "bbox": [1.0, 2.0, value, 3.0]})
    kept, broken = usable(found)
    assert broken == 4 and average_precision(kept, split, masks=True) == good


def test_D19_no_more_than_100_predictions_of_a_class_and_image_count(splits, perfect):
    split = splits()[1]
    found = perfect(split)
    whole = average_precision(found, split, masks=False)["AP_box"]
    noise = {"image_id": 10, "category_id": 0, "bbox": [60.0, 60.0, 2.0, 2.0], "segmentation": found[10][0]["segmentation"]}
    crowded = {**found, 10: [*found[10], *({**noise, "score": 0.5 - number / 1000} for number in range(150))]}
    assert average_precision(crowded, split, masks=False)["AP_box"]["AP"] == whole["AP"]
    before = {**found, 10: [*found[10], *({**noise, "score": 0.95 + number / 10000} for number in range(150))]}
    pushed_out = average_precision(before, split, masks=False)["AP_box"]
    assert pushed_out["AP"] < whole["AP"] and pushed_out["AR100"] < whole["AR100"]


def test_D17_gaps_in_category_ids_are_mapped_back(splits, perfect):
    split = splits()[1]
    assert split.category_ids == (3, 7)
    found = perfect(split)
    for some in found.values():
        some[:] = [one for one in some if one["category_id"] == 1]
    classes = average_precision(found, split, masks=True)["AP_mask"]["classes"]
    assert [(entry["id"], entry["name"], entry["AP"]) for entry in classes] == [
        (3, "red", 0.0),
        (7, "blue", pytest.approx(100.0)),
    ]


def test_D18_crowds_and_images_without_objects_are_evaluated(splits, perfect):
    split = splits(masks="rle", val=4)[1]
    found = perfect(split)
    split.annotations[10][0]["iscrowd"] = 1
    # A detection in a crowd is neither right nor wrong; one in the last image, which has no object, is wrong.
    assert average_precision(found, split, masks=True)["AP_mask"]["AP"] == pytest.approx(100.0)
    found[40].append({**found[20][0], "image_id": 40, "score": 0.99})
    assert average_precision(found, split, masks=True)["AP_mask"]["AP"] < 100


def test_missing_fast_evaluator_is_one_line_with_the_fix(splits, monkeypatch):
    def gone(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(detection_ap.importlib, "import_module", gone)
    with pytest.raises(EnvironmentFault, match=r'needs faster_coco_eval.*pip install "mae-bench\[fast\]"'):
        check_evaluator(splits()[1], fast=True)
