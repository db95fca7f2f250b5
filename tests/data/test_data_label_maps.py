"""Cityscapes and COCO-Stuff: their folders, and which stored number is which class."""

import json
import shutil

import numpy as np
import pytest

from mae_bench.check import check_data
from mae_bench.core.errors import InputError
from tasks.data import _label_maps, cityscapes, coco_stuff
from tasks.handle import open_data

ID_MAP = np.arange(30 * 40).reshape(30, 40) % 34


@pytest.fixture
def city_root(tmp_path, save_image, save_map):
    for which in ("train", "val"):
        for city in ("aachen", "zürich"):
            name = f"{city}_000000_000019"
            save_image(tmp_path / "leftImg8bit" / which / city / f"{name}_leftImg8bit.png")
            save_map(tmp_path / "gtFine" / which / city / f"{name}_gtFine_labelIds.png", ID_MAP)
            save_map(tmp_path / "gtFine" / which / city / f"{name}_gtFine_labelTrainIds.png", ID_MAP)
    return tmp_path


@pytest.fixture
def stuff_root(tmp_path, save_image, save_map):
    labels = np.resize([number for number in range(182) if number not in coco_stuff.ABSENT] + [255], (30, 40))
    for which in ("train2017", "val2017"):
        for name in ("000000000009", "000000000025"):
            save_image(tmp_path / "images" / which / f"{name}.jpg")
            save_map(tmp_path / "annotations" / which / f"{name}.png", labels)
            save_map(tmp_path / "annotations" / which / f"{name}_labelTrainIds.png", labels)
    return tmp_path


def test_cityscapes_pairs_over_all_cities(city_root):
    split = cityscapes.load(city_root, "train")
    assert [image.parent.name for image, _ in split.pairs] == ["aachen", "zürich"]
    assert all(label_map.name.endswith("_gtFine_labelIds.png") for _, label_map in split.pairs)
    assert len(split.classes) == 19 and split.palette is not None and len(split.palette) == 19


def test_cityscapes_ids_become_the_19_classes(city_root):
    split = cityscapes.load(city_root, "val")
    found = dict(zip(ID_MAP.ravel().tolist(), split.labels(0).ravel().tolist(), strict=False))
    # cityscapesScripts, helpers/labels.py: id and trainId.
    expected = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14}
    expected |= {28: 15, 31: 16, 32: 17, 33: 18}
    assert found == {number: expected.get(number, 255) for number in range(34)}


def test_cityscapes_other_numbers_are_refused(city_root, save_map):
    wrong = np.where(ID_MAP == 33, 60, ID_MAP)
    save_map(city_root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", wrong)
    with pytest.raises(InputError, match=r"1 maps have labels of none of the 19 classes: aachen_\S+ \(60\)"):
        cityscapes.load(city_root, "train")


def test_cityscapes_missing_map_and_folder(city_root):
    (city_root / "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"no label map for 1 images: aachen_000000_000019_leftImg8bit\.png"):
        cityscapes.load(city_root, "val")
    shutil.rmtree(city_root / "gtFine/val/aachen")
    with pytest.raises(InputError, match="no label map for 1 images"):
        cityscapes.load(city_root, "val")
    shutil.rmtree(city_root / "gtFine")
    with pytest.raises(InputError, match=r"has no folder gtFine/; the layout is leftImg8bit/train/<city>"):
        cityscapes.check(city_root)


def test_cityscapes_without_images(city_root):
    shutil.rmtree(city_root / "leftImg8bit/val/aachen")
    shutil.rmtree(city_root / "leftImg8bit/val/zürich")
    with pytest.raises(InputError, match=r"holds no <city>/\*_leftImg8bit\.png"):
        cityscapes.load(city_root, "val")


def test_coco_stuff_numbers_close_up_over_the_absent_labels(stuff_root):
    split = coco_stuff.load(stuff_root, "train")
    assert len(split) == 2 and len(split.classes) == 171
    assert split.labels(0).ravel()[:172].tolist() == [*range(171), 255]
    assert split.classes[split.lookup[0]] == "person" and split.classes[split.lookup[89]] == "toothbrush"
    # labels.md of COCO-Stuff: 92 banner, 106 clouds, 169 tree, 182 wood.
    assert [split.classes[split.lookup[label - 1]] for label in (92, 106, 169, 182)] == ["banner", "clouds", "tree", "wood"]


def test_coco_stuff_absent_label_is_refused(stuff_root, save_map):
    save_map(stuff_root / "annotations/val2017/000000000009.png", np.full((30, 40), 11))
    with pytest.raises(InputError, match=r"1 maps have labels of none of the 171 classes: 000000000009\.png \(11\)"):
        coco_stuff.load(stuff_root, "val")


def test_coco_stuff_without_images_or_maps(stuff_root):
    (stuff_root / "annotations/train2017/000000000009.png").unlink()
    with pytest.raises(InputError, match=r"no label map for 1 images: 000000000009\.jpg"):
        coco_stuff.load(stuff_root, "train")
    for path in (stuff_root / "images/val2017").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no image"):
        coco_stuff.load(stuff_root, "val")


@pytest.mark.edge
def test_classes_are_mmsegs_in_mmsegs_order():
    pytest.importorskip("tasks.edges.segmentation_mmseg")
    from mmseg.datasets import CityscapesDataset, COCOStuffDataset

    theirs = CityscapesDataset.METAINFO
    names, colours = zip(*cityscapes.CLASSES.values(), strict=True)
    assert names == tuple(theirs["classes"]) and [list(colour) for colour in colours] == theirs["palette"]
    assert coco_stuff.CLASSES == tuple(COCOStuffDataset.METAINFO["classes"])


@pytest.mark.parametrize("name", ["cityscapes", "coco_stuff"])
def test_data_check_reads_all_of_it(request, name, capsys):
    from rich.console import Console

    root = request.getfixturevalue({"cityscapes": "city_root", "coco_stuff": "stuff_root"}[name])
    assert check_data(f"{name}={root}", Console()) == 0
    assert "8 files decoded, 0 bad" in capsys.readouterr().out
    assert open_data(f"{name}={root}").kind == "segmentation"


def test_S03_S06_data_check_looks_at_every_map(ade20k, save_image, save_map, monkeypatch, capsys):
    """Loading reads a sample of many maps; the check reads all, and counts what is allowed but idle."""
    from rich.console import Console

    (ade20k / "classes.json").write_text('["x", "y", "z"]')
    for number in range(5):
        save_image(ade20k / f"images/training/c{number}.jpg")
        save_map(ade20k / f"annotations/training/c{number}.png", np.full((30, 40), 0 if number < 2 else 1))
    monkeypatch.setattr(_label_maps, "MAPS_SAMPLED", 2)
    assert check_data(f"ade20k={ade20k}", Console()) == 0
    assert "train: 2 label maps without a labelled pixel" in capsys.readouterr().out
    save_map(ade20k / "annotations/training/c3.png", np.full((30, 40), 77))
    assert check_data(f"ade20k={ade20k}", Console(width=300)) == 3
    assert "c3.png: labels 77 are of none of the 3 classes; correct them" in capsys.readouterr().out


def test_names_and_colours_are_part_of_the_fingerprint(ade20k):
    (ade20k / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    first = open_data(f"ade20k={ade20k}").fingerprint
    (ade20k / "classes.json").write_text(json.dumps(["a", "b", "d"]))
    assert open_data(f"ade20k={ade20k}").fingerprint != first
