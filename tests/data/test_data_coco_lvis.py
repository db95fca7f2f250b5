import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import lvis
from tasks.handle import open_data


def content(which: str) -> dict[str, Any]:
    """Two images, one of which lies in the train folder in both splits, as in LVIS."""
    images = [
        {"id": number, "coco_url": f"http://images.cocodataset.org/{folder}/{number:012d}.jpg", "width": 40, "height": 30}
        | {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
        for number, folder in ((7, "train2017"), (9, f"{which}2017"))
    ]
    shape = {"bbox": [4, 5, 10, 12], "area": 120, "segmentation": [[4, 5, 14, 5, 14, 17, 4, 17]]}
    objects = [{"id": number, "image_id": image, "category_id": 1, **shape} for number, image in ((1, 7), (2, 9))]
    categories = [{"id": 1, "name": "ant", "frequency": "r"}, {"id": 2, "name": "bat", "frequency": "f"}]
    return {"images": images, "annotations": objects, "categories": categories}


def write(root: Path, folder: str = "annotations", **changed: dict[str, Any]) -> Path:
    for which in ("train", "val"):
        data = changed.get(which, content(which))
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"lvis_v1_{which}.json").write_text(json.dumps(data))
        (root / f"{which}2017").mkdir(exist_ok=True)
        for number in (7, 9):
            Image.new("RGB", (40, 30)).save(root / f"{which}2017" / f"{number:012d}.jpg")
    return root


@pytest.mark.parametrize("folder", lvis.FOLDERS)
def test_splits_find_their_images_by_the_address(tmp_path, folder):
    data = open_data(f"lvis={write(tmp_path, folder)}")
    split = data.split("val")
    assert [image["file_name"] for image in split.images] == ["train2017/000000000007.jpg", "val2017/000000000009.jpg"]
    assert split.federated and split.has_masks and split.image(1).size == (40, 30)
    assert data.classes == ("ant", "bat") and data.kind == "detection"
    assert [item["iscrowd"] for item in split.annotations[7]] == [0]
    assert len(data.fingerprint) == 64


def test_wrong_layout_names_what_is_missing(tmp_path):
    (write(tmp_path) / "annotations/lvis_v1_val.json").unlink()
    with pytest.raises(InputError, match=r"has no annotations/lvis_v1_val\.json; the layout is"):
        open_data(f"lvis={tmp_path}")


def test_D14_missing_images_are_named(tmp_path):
    (write(tmp_path) / "val2017/000000000009.jpg").unlink()
    with pytest.raises(InputError, match=r"1 images are not in .*: val2017/000000000009\.jpg"):
        lvis.load(tmp_path, "val")


@pytest.mark.parametrize("address", ["http://x/../../etc/passwd", None, "http://x/../y.jpg"])
def test_D16_addresses_that_leave_the_folder(tmp_path, address):
    data = content("val")
    data["images"][0]["coco_url"] = address
    with pytest.raises(InputError, match=r"leaves the image folder|without file_name|are not in"):
        lvis.load(write(tmp_path, val=data), "val")


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("categories", "frequency", None, "1 categories without a frequency"),
        ("images", "neg_category_ids", ..., "1 images without a list neg_category_ids"),
        ("images", "not_exhaustive_category_ids", [5], "1 images without a list not_exhaustive_category_ids"),
    ],
)
def test_what_lvis_has_beyond_coco_is_needed(tmp_path, part, key, value, message):
    data = content("train")
    data[part][0].pop(key)
    if value is not ...:
        data[part][0][key] = value
    with pytest.raises(InputError, match=message):
        lvis.load(write(tmp_path, train=data), "train")
