import json
from pathlib import Path

import pytest

from mae_bench.core import find
from mae_bench.core.errors import ConfigError, InputError
from tasks.data import folder
from tasks.handle import open_data


def test_every_data_set_has_what_the_room_asks_for():
    assert {"ade20k", "coco", "folder", "lvis"} <= set(find.names("tasks.data"))
    for name in find.names("tasks.data"):
        module = find.load("tasks.data", name, what="data set")
        assert module.INFO.name == name
        assert callable(module.check) and callable(module.load)
        assert module.INFO.kind in ("classification", "detection", "segmentation")


def test_opening_reads_no_data_and_splits_are_cached(image_folder):
    data = open_data(f"folder={image_folder}")
    assert (data.name, data.root, data.kind) == ("folder", image_folder, "classification")
    assert data.split("train") is data.split("train")
    assert data.classes == ("cat", "dog")


def test_unknown_data_set_gets_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown data set 'foldr'; did you mean folder\?"):
        open_data(f"foldr={tmp_path}")


@pytest.mark.parametrize("text", ["folder", "=x", "folder=", "/data/imagenet", ""])
def test_text_of_another_form(text):
    with pytest.raises(ConfigError, match="is not DATASET=PATH"):
        open_data(text)


def test_an_option_that_a_data_set_does_not_have(image_folder):
    with pytest.raises(ConfigError, match=r"data set folder has no option 'link' \(options: links\)"):
        open_data(f"folder+link={image_folder}")
    with pytest.raises(ConfigError, match=r"data set coco has no option 'links' \(options: none\)"):
        open_data(f"coco+links={image_folder}")


def test_missing_path_and_file(tmp_path, save_image):
    with pytest.raises(InputError, match=r"coco: .*nowhere does not exist"):
        open_data(f"coco={tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match=r"x\.png is a file"):
        open_data(f"coco={save_image(tmp_path / 'x.png')}")


def test_home_and_equals_signs_in_paths(image_folder, monkeypatch):
    image_folder.rename(place := image_folder.parent / "a=b")
    monkeypatch.setenv("HOME", str(place.parent))
    assert open_data("folder=~/a=b").root == place


def test_wrong_layout_is_refused_on_opening(image_folder):
    with pytest.raises(InputError, match="has no folder annotations/"):
        open_data(f"coco={image_folder}")


def test_I16_unreadable_folder_is_named(image_folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/somewhere/train")

    monkeypatch.setattr(folder, "_class_folders", refuse)
    with pytest.raises(InputError, match="cannot read /somewhere/train: Permission denied"):
        open_data(f"folder={image_folder}")


def test_I17_categories_that_differ_between_the_splits(coco):
    root = coco.write()
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "wolf"
    path.write_text(json.dumps(content))
    data = open_data(f"coco={root}")
    data.split("train")
    with pytest.raises(InputError, match="train has 2 classes and val 2: dog, wolf differ"):
        data.split("val")


def fingerprint(root: Path, name: str = "folder") -> str:
    return open_data(f"{name}={root}").fingerprint


def test_fingerprint_follows_names_sizes_and_annotations_only(image_folder, coco, save_image):
    first = fingerprint(image_folder)
    (image_folder / "train/cat/readme.txt").write_text("not data")
    assert fingerprint(image_folder) == first
    save_image(image_folder / "train/cat/0.png", (200, 200))
    second = fingerprint(image_folder)
    (image_folder / "val/dog/0.png").rename(image_folder / "val/dog/9.png")
    assert len({first, second, fingerprint(image_folder)}) == 3
    before = fingerprint(coco.write(), "coco")
    coco.content["annotations"][0]["bbox"] = [4, 5, 10, 13]
    assert fingerprint(coco.write(), "coco") != before


def test_fingerprint_does_not_depend_on_the_place(image_folder, tmp_path_factory):
    first = fingerprint(image_folder)
    place = tmp_path_factory.mktemp("moved") / "here"
    image_folder.rename(place)
    assert fingerprint(place) == first
    image_folder.mkdir()


def test_fingerprint_of_a_name_that_is_not_utf8(image_folder, save_image):
    save_image(image_folder / "train/cat/x.png").rename(image_folder / "train/cat" / "caf\udce9.png")
    assert len(fingerprint(image_folder)) == 64
