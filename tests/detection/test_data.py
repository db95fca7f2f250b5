"""What the detector is trained on, against Detectron2's own mapper."""

import json
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks
from PIL import Image

from mae_bench.core.errors import ConfigError, InputError
from mae_bench.core.seeding import seed_all
from tasks.data import coco
from tasks.edges.detection_data import TrainImages, eval_images, use_masks

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]


def native_sample(split, settings, number, mask_format):
    """The same training sample by Detectron2's DatasetMapper with ViTDet's settings."""
    side, image = settings.image_size, split.images[number]
    crop: Any = (side, side)
    augmentations: list[Any] = [
        T.RandomFlip(prob=settings.flip, horizontal=True),
        T.ResizeScale(*settings.scale, target_height=side, target_width=side),
        T.FixedSizeCrop(crop_size=crop, pad=False),
    ]
    mapper = DatasetMapper(
        is_train=True,
        augmentations=augmentations,
        image_format="RGB",
        use_instance_mask=True,
        recompute_boxes=True,
        instance_mask_format=mask_format,
    )
    objects = [
        {**truth, "bbox_mode": BoxMode.XYWH_ABS, "category_id": split.category_ids.index(truth["category_id"])}
        for truth in split.annotations[image["id"]]
    ]
    return mapper({"file_name": str(split.path(number)), "image_id": image["id"], "annotations": objects})


@pytest.mark.parametrize("seed", range(4))
def test_samples_equal_those_of_detectron2s_mapper(splits, settings, seed):
    split = splits(size=(80, 56))[0]
    data = TrainImages(split, settings, masks=True)
    seed_all(seed)
    ours = data[1]
    seed_all(seed)
    theirs = native_sample(split, settings, 1, "polygon")
    assert torch.equal(ours["image"], theirs["image"])
    assert (ours["height"], ours["width"]) == (theirs["height"], theirs["width"]) == (56, 80)
    a, b = ours["instances"], theirs["instances"]
    assert len(a) > 0 and torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor) and torch.equal(a.gt_classes, b.gt_classes)
    for one, other in zip(a.gt_masks.polygons, b.gt_masks.polygons, strict=True):
        assert all(np.array_equal(p, q) for p, q in zip(one, other, strict=True))


def test_run_length_masks_become_bitmaps_of_the_same_objects(splits, settings):
    settings = settings.override({"flip": 0.0, "scale": [1.0, 1.0]})
    kinds = [splits(masks=kind, name=kind)[0] for kind in ("polygon", "rle")]
    polygons, bitmaps = (TrainImages(split, settings, masks=True)[0]["instances"] for split in kinds)
    assert isinstance(polygons.gt_masks, PolygonMasks) and isinstance(bitmaps.gt_masks, BitMasks)
    assert torch.equal(polygons.gt_boxes.tensor, bitmaps.gt_boxes.tensor)


def test_one_run_length_mask_makes_all_masks_bitmaps(make_coco, settings):
    root, other = make_coco(), make_coco(masks="rle", name="other")
    place = root / "annotations" / "instances_train.json"
    content, runs = (json.loads((path / "annotations" / place.name).read_text()) for path in (root, other))
    content["annotations"][0] = runs["annotations"][0]
    place.write_text(json.dumps(content))
    data = TrainImages(coco.load(root, "train"), settings, masks=True)
    assert all(isinstance(data[index]["instances"].gt_masks, BitMasks) for index in range(len(data)))


def test_images_without_objects_are_not_trained_on_but_measured(splits, settings):
    train, val = splits()
    assert (len(train), len(TrainImages(train, settings, masks=True))) == (4, 3)
    assert len(eval_images(val, settings)) == len(val) == 3


def test_crowds_are_not_trained_on(make_coco, settings):
    root = make_coco(masks="rle")
    place = root / "annotations" / "instances_train.json"
    content = json.loads(place.read_text())
    content["annotations"][0]["iscrowd"] = 1
    place.write_text(json.dumps(content))
    data = TrainImages(coco.load(root, "train"), settings.override({"scale": [1.0, 1.0]}), masks=True)
    assert [len(data[index]["instances"]) for index in range(len(data))] == [1, 2, 2]


def test_category_ids_become_labels(splits, settings):
    sample = TrainImages(splits()[0], settings.override({"scale": [1.0, 1.0]}), masks=True)[0]
    assert sorted(sample["instances"].gt_classes.tolist()) == [0, 1]


@pytest.mark.parametrize("size", [(640, 480), (48, 100), (64, 1), (1, 1), (3000, 2)])
def test_images_of_any_size_fit_the_square(make_coco, settings, size):
    root = make_coco(masks=None, size=(64, 64))
    for which in ("train", "val"):
        place = root / "annotations" / f"instances_{which}.json"
        content = json.loads(place.read_text())
        for image in content["images"]:
            image["width"], image["height"] = size
            Image.new("RGB", size).save(root / which / image["file_name"])
        for truth in content["annotations"]:
            truth["bbox"] = [0, 0, *size]
        place.write_text(json.dumps(content))
    small = settings.override({"scale": [0.1, 0.1]})
    train, val = TrainImages(coco.load(root, "train"), small, masks=False), eval_images(coco.load(root, "val"), settings)
    for sample in (train[0], val[0]):
        height, width = sample["image"].shape[-2:]
        assert 1 <= height <= 64 and 1 <= width <= 64


def test_evaluation_fits_the_longer_side(splits, settings):
    sample = eval_images(splits(size=(128, 96))[1], settings)[0]
    assert (sample["image"].shape, sample["width"], sample["height"]) == ((3, 48, 64), 128, 96)


def test_orientation_tag_turns_the_picture_as_in_detectron2(make_coco, settings):
    root = make_coco(masks=None, size=(40, 64))
    split = coco.load(root, "val")
    upright = eval_images(split, settings)[0]["image"]
    stored = Image.open(split.path(0)).transpose(Image.Transpose.ROTATE_90)
    exif = stored.getexif()
    exif[274] = 6
    stored.save(split.path(0), exif=exif)
    assert torch.equal(eval_images(split, settings)[0]["image"], upright)


def test_wrong_size_and_damaged_file_are_named(splits, settings):
    split = splits()[1]
    Image.new("RGB", (32, 64)).save(split.path(0))
    with pytest.raises(InputError, match=r"1\.png is 32 x 64 pixels, but instances_val\.json says 64 x 64"):
        eval_images(split, settings)[0]
    split.path(0).write_bytes(split.path(1).read_bytes()[:200])
    with pytest.raises(InputError, match=r"cannot decode image .*1\.png"):
        eval_images(split, settings)[0]


def test_masks_are_as_the_data_says(splits, settings):
    with_masks, without = splits(name="with"), splits(masks=None, name="without")
    assert use_masks(settings, *with_masks) and not use_masks(settings, *without)
    assert not use_masks(settings.override({"masks": False}), *with_masks)
    with pytest.raises(ConfigError, match="has no masks"):
        use_masks(settings.override({"masks": True}), with_masks[0], without[1])


def test_a_box_without_a_mask_follows_the_image(splits, settings):
    fixed = settings.override({"scale": [1.0, 1.0], "flip": 1.0})
    split: coco.CocoSplit = splits(masks=None)[0]
    sample = TrainImages(split, fixed, masks=False)[0]
    x, y, width, height = split.annotations[10][0]["bbox"]
    assert sample["instances"].gt_boxes.tensor[0].tolist() == [64 - x - width, y, 64 - x, y + height]
    assert not sample["instances"].has("gt_masks")
