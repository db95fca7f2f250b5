"""Damaged images, of val named before the training, of train when they are met, and objects without the masks of the others."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
from mae_bench.core.samples import read_lines
from tasks.handle import open_data
from tasks.suite import detection
from tests.detection.test_task import Noted

pytest.importorskip("detectron2")

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


@pytest.fixture
def run(tmp_path):
    return Run(out=tmp_path / "run", seed=1, reporter=Noted())


def test_a_damaged_image_stops_the_training_by_name(source, make_coco, settings, run):
    root = make_coco(train=2)
    (root / "train" / "1.png").write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"train/1\.png"):
        detection.evaluate(source, open_data(f"coco={root}"), settings.override({"batch_size": 1}), replace(run, max_skipped=0.0))


@pytest.mark.parametrize(("content", "told"), [("html", "cannot decode"), ("turned", "is 64 x 40 pixels, but")])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_of_val_is_named_before_the_training(source, make_coco, settings, run, content, told, workers):
    root = make_coco()
    data = open_data(f"coco={root}")
    data.split("val")  # sizes are compared when the split is opened, of some images
    place = root / "val" / "1.png"
    place.write_bytes(b"<html>") if content == "html" else Image.new("RGB", (64, 40)).save(place)
    with pytest.raises(InputError, match=rf"val/1\.png.*{told}|{told}.*val/1\.png"):
        detection.evaluate(source, data, settings, replace(run, workers=workers))
    assert [title for title, _ in run.reporter.titles] == ["detection: reading val images"] and not run.checkpoints.exists()


@pytest.mark.parametrize(("masks", "left_out"), [(None, {("train", 3), ("val", 1)}), (False, set())])
def test_an_object_without_a_mask_is_left_out_where_masks_are_learned(source, make_coco, settings, tmp_path, masks, left_out):
    root, run = make_coco(), Run(tmp_path / "run", seed=1)
    for which, number in (("train", 3), ("val", 1)):
        place = root / "annotations" / f"instances_{which}.json"
        content = json.loads(place.read_text())
        content["annotations"][number - 1].pop("segmentation")
        place.write_text(json.dumps(content))
    short = settings.override({"steps": 1, "schedule.warmup_steps": 0, "masks": masks})
    metrics = detection.evaluate(source, open_data(f"coco={root}"), short, run)
    assert ("AP_mask" in metrics) is (masks is None)
    assert {(line["split"], line["id"]) for line in read_lines(run.out / "skipped.jsonl")} == left_out
