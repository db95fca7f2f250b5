"""AP of known predictions, and the picture of them."""

import contextlib
import copy
import io
import json
from typing import Any

import pytest

pytest.importorskip("detectron2")

from detectron2.data import MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mae_bench.core.errors import InputError
from tasks.data import coco
from tasks.edges.detection_eval import average_precision, headline
from tasks.edges.detection_pictures import draw

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


@pytest.mark.parametrize("masks", ["polygon", "rle", None])
def test_perfect_predictions_have_ap_100(splits, perfect, masks):
    split = splits(masks=masks)[1]
    names = ["AP_box", "AP_mask"] if masks else ["AP_box"]
    before = set(MetadataCatalog)
    figures = average_precision(perfect(split), split, masks=masks is not None)
    found = headline(figures, split)
    assert list(found)[: len(names)] == names and found["AP_box"] == pytest.approx(100.0)
    assert all(value == pytest.approx(100.0) for name, value in found.items() if not name.startswith("AR1_"))
    assert [entry["AP"] for entry in figures["AP_box"]["classes"]] == [pytest.approx(100.0)] * 2
    assert set(MetadataCatalog) == before


def test_figures_equal_pycocotools_on_the_users_file(splits, perfect):
    split = splits(masks="rle", val=6)[1]
    found = perfect(split)
    for place, some in enumerate(found.values()):
        for one in some:
            one["bbox"] = [value + place for value in one["bbox"]]
            one["score"] = 0.5 + 0.1 * place
    found[10][0]["category_id"] = 1 - found[10][0]["category_id"]
    before = copy.deepcopy(found)
    figures = average_precision(found, split, masks=True)
    assert found == before

    flat = [{**one, "category_id": split.category_ids[one["category_id"]]} for some in found.values() for one in some]
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO(str(split.json_path))
        evaluate: Any = COCOeval
        for kind, name in (("bbox", "AP_box"), ("segm", "AP_mask")):
            shapes = [{key: value for key, value in one.items() if kind == "bbox" or key != "bbox"} for one in flat]
            evaluation = evaluate(truth, truth.loadRes(shapes), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            assert figures[name]["AP"] == pytest.approx(100 * evaluation.stats[0], abs=1e-9)
            assert figures[name]["AP50"] == pytest.approx(100 * evaluation.stats[1], abs=1e-9)
    assert 0 < figures["AP_box"]["AP"] < 100


def test_no_prediction_is_0_and_not_nan(splits):
    split = splits()[1]
    figures = average_precision({image["id"]: [] for image in split.images}, split, masks=True)
    found = headline(figures, split)
    assert found["AP_box"] == found["AP_mask"] == 0.0 and set(found.values()) == {0.0}
    json.dumps(figures, allow_nan=False)


def test_what_the_truth_does_not_have_is_left_out(make_coco, perfect):
    root = make_coco()
    place = root / "annotations" / "instances_val.json"
    content = json.loads(place.read_text())
    content["annotations"] = [truth for truth in content["annotations"] if truth["category_id"] == 7]
    place.write_text(json.dumps(content))
    split = coco.load(root, "val")
    figures = average_precision(perfect(split), split, masks=True)
    assert [entry["AP"] for entry in figures["AP_box"]["classes"]] == [None, pytest.approx(100.0)]
    assert figures["AP_box"]["APl"] is None  # no object of 96 x 96 pixels
    json.dumps(figures, allow_nan=False)


def test_without_any_object_there_is_no_number(splits):
    split = splits()[1]
    for some in split.annotations.values():
        some.clear()
    figures = average_precision({image["id"]: [] for image in split.images}, split, masks=True)
    with pytest.raises(InputError, match=r"instances_val\.json: no object to find"):
        headline(figures, split)


@pytest.mark.parametrize(("masks", "val", "size"), [("polygon", 3, (64, 64)), (None, 12, (40, 90)), ("rle", 1, (90, 30))])
def test_picture_shows_truth_beside_predictions(splits, perfect, tmp_path, masks, val, size):
    split = splits(masks=masks, val=val, size=size)[1]
    draw(perfect(split), split, tmp_path / "predictions.png", masks=masks is not None)
    with Image.open(tmp_path / "predictions.png") as picture:
        picture.load()
        colours = {colour for _, colour in picture.getcolors(1 << 24) or ()}
    assert len(colours) > 10 and picture.height > 300
