"""Large annotation files are read once: what they come down to is kept in the user's cache, for their very content alone."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from tasks.data import _coco_json, _coco_kept, lvis
from tasks.data import coco as layout
from tasks.handle import open_data
from tests.data import test_data_coco_lvis

SQUARE = {"size": [30, 40], "counts": [4 * 30 + 5, 12, 18, 12, 30 * 40 - 4 * 30 - 5 - 12 - 18 - 12]}


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """The user's cache, with every file large enough to be kept."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(_coco_kept, "SMALLEST", 0)
    return folder / "mae-bench"


@pytest.fixture
def parsed(monkeypatch):
    """Paths of the JSON files that are parsed."""
    paths: list[Path] = []
    parse = _coco_json._parse

    def noting(path):
        paths.append(path)
        return parse(path)

    monkeypatch.setattr(_coco_json, "_parse", noting)
    return paths


def varied(coco):
    """Every kind of object: polygons, runs, a crowd, a clipped box, fractions, an image without any, and unusable ones."""
    coco.content["annotations"] += [
        coco.object(3, iscrowd=1, segmentation=SQUARE),
        coco.object(4, bbox=[-5, -6.25, 10.1, 12.7], area=0.1 + 0.2),
        coco.object(5, bbox=[1, 1, 0, 0]),
        coco.object(6, segmentation=[[1, 1, 5.5, 1, 5, 1 / 3], [9, 9, 12, 9, 12, 12, 9, 12]]),
        coco.object(7, segmentation=...),
    ]
    coco.content["images"].append({"id": 9, "file_name": "2.jpg", "width": 40, "height": 30, "note": "kept"})
    return coco.write()


def facts(split):
    return split.images, split.annotations, split.categories, split.has_masks, split.skipped, split.clipped


def test_a_second_reading_gives_the_same_without_the_json(coco, cache, parsed, monkeypatch):
    root = varied(coco)
    first, again = facts(layout.load(root, "train")), facts(layout.load(root, "train"))
    assert [path.name for path in parsed] == ["instances_train2017.json"]
    monkeypatch.setattr(_coco_kept, "SMALLEST", 2**40)
    assert first == again == facts(layout.load(root, "train"))
    assert [len(items) for items in first[1].values()] == [1, 5, 0] and {entry["id"] for entry in first[4]} == {5}
    runs = [type(item["segmentation"]["counts"][0]) for item in again[1][5] if item["iscrowd"]]
    assert runs == [int] and len(parsed) == 2


@pytest.mark.parametrize("masks", [{"segmentation": ...}, {"segmentation": SQUARE}])
def test_data_with_one_kind_of_objects_alone(coco, cache, masks):
    coco.content["annotations"] = [coco.object(1, **masks), coco.object(2, **masks)]
    root = coco.write()
    first, again = layout.load(root, "val"), layout.load(root, "val")
    assert facts(first) == facts(again) and again.has_masks == (masks["segmentation"] is not ...)
    assert len(list(cache.iterdir())) == 1


def test_a_changed_file_is_read_again_even_with_the_same_size_and_time(coco, cache, parsed):
    root = coco.write()
    layout.load(root, "train")
    path = root / "annotations/instances_train2017.json"
    before = path.stat()
    path.write_text(path.read_text().replace('"cat"', '"cow"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert layout.load(root, "train").classes == ("cow", "dog")
    assert len(parsed) == 2 and len(list(cache.iterdir())) == 1  # in the place of what was kept of the old one


def test_nothing_is_written_beside_the_data(coco, cache):
    root = coco.write()
    before = sorted(root.rglob("*"))
    open_data(f"coco={root}").fingerprint  # noqa: B018
    assert sorted(root.rglob("*")) == before
    assert len(list(cache.iterdir())) == 2


def test_missing_images_are_noticed_although_the_annotations_are_kept(coco, cache):
    root = coco.write()
    layout.load(root, "train")
    (root / "train2017/5.jpg").unlink()
    with pytest.raises(layout.InputError, match=r"1 images are not in .*5\.jpg"):
        layout.load(root, "train")


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_cache_is_told_and_read_past(coco, cache, parsed, damage, caplog):
    root = coco.write()
    first = facts(layout.load(root, "train"))
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    kept.write_bytes({"cut": content[:-200], "noise": content[:900] + b"\xff" * 40 + content[940:], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert facts(layout.load(root, "train")) == first
    assert "cannot be read" in caplog.text and len(parsed) == 2


def test_without_a_cache_the_data_are_read_every_time(coco, cache, parsed, caplog):
    cache.write_text("no folder")
    root = coco.write()
    with caplog.at_level(logging.WARNING):
        assert facts(layout.load(root, "train")) == facts(layout.load(root, "train"))
    assert len(parsed) == 2 and "is not kept and will be read again" in caplog.text


def test_small_files_are_not_kept(coco, cache, monkeypatch):
    monkeypatch.setattr(_coco_kept, "SMALLEST", 2**23)
    layout.load(coco.write(), "train")
    assert not cache.exists()


def test_lvis_keeps_what_its_counting_needs(tmp_path, cache, parsed):
    root = test_data_coco_lvis.write(tmp_path)
    first, again = lvis.load(root, "val"), lvis.load(root, "val")
    assert facts(first) == facts(again) and len(parsed) == 1
    assert again.federated and again.images[0]["neg_category_ids"] == [2] and again.categories[0]["frequency"] == "r"


def test_ids_beyond_64_bits_are_refused(coco):
    coco.content["annotations"][0]["id"] = 2**63
    with pytest.raises(layout.InputError, match=f"1 annotations without a whole-number id: {2**63}"):
        layout.load(coco.write(), "train")


def test_numbers_come_back_as_they_are(coco, cache):
    values = np.random.default_rng(0).uniform(5, 20, (50, 6)).tolist()
    coco.content["annotations"] = [coco.object(number + 1, segmentation=[value]) for number, value in enumerate(values)]
    root = coco.write()
    layout.load(root, "train")
    again = layout.load(root, "train").annotations[5]
    assert [item["segmentation"] for item in again] == [[value] for value in values]
    assert json.dumps([item["segmentation"][0] for item in again]) == json.dumps(values)
