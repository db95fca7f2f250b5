"""Damaged images: those of val are named before the training, those of train when they are met."""

from dataclasses import replace

import pytest
from PIL import Image

from mae_bench.core.errors import InputError
from mae_bench.core.run import Run
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
