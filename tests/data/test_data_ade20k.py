import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mae_bench.core.errors import InputError
from tasks.data import _label_maps
from tasks.data import ade20k as layout


def test_pairs_and_counted_classes(ade20k):
    split = layout.load(ade20k, "val")
    assert split.classes == ("class 1", "class 2", "class 3") and split.palette is None
    assert [(image.name, label_map.name) for image, label_map in split.pairs] == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
    assert split.labels(0)[0, :5].tolist() == [255, 0, 1, 2, 255]
    assert len(split) == 2 and split.image(0).size == (40, 30) and not split.texts()


def test_release_folder_or_its_inside(ade20k, tmp_path_factory):
    root = tmp_path_factory.mktemp("outer")
    shutil.copytree(ade20k, root / "ADEChallengeData2016")
    for place in (root, root / "ADEChallengeData2016"):
        assert len(layout.load(place, "train")) == 2


def test_classes_from_a_list(ade20k):
    (ade20k / "classes.json").write_text('["wall", "sky", "tree"]')
    split = layout.load(ade20k, "train")
    assert split.classes == ("wall", "sky", "tree") and split.texts() == (ade20k / "classes.json",)


def test_classes_with_palette(ade20k):
    (ade20k / "classes.json").write_text(json.dumps({"classes": ["x", "y", "z"], "palette": [[0, 1, 2], [3, 4, 5], [6, 7, 255]]}))
    assert layout.load(ade20k, "train").palette == ((0, 1, 2), (3, 4, 5), (6, 7, 255))


def test_classes_of_the_release(ade20k):
    rows = "Idx\tRatio\tTrain\tVal\tName\n1\t0.15\t11\t2\twall\n2 \t0.10\t6\t1\tbuilding, edifice\n3\t0.08\t8\t1\tbed \n"
    (ade20k / "objectInfo150.txt").write_text(rows)
    assert layout.load(ade20k, "train").classes == ("wall", "building", "bed")


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "{}",
        "[]",
        "[1, 2, 3]",
        json.dumps(["x"] * 255),
        '{"classes": "abc"}',
        '{"classes": ["x", "y", "z"], "palette": [[0, 0, 0]]}',
        '{"classes": ["x"], "palette": [[0, 0, 256]]}',
        '{"classes": ["x", ""]}',
        '{"classes": ["x"], "first_label": 2}',
        '{"classes": ["x"], "first_label": true}',
        '{"classes": ["x"], "colors": []}',
    ],
)
def test_bad_list_of_classes(ade20k, content):
    (ade20k / "classes.json").write_text(content)
    with pytest.raises(InputError, match=r"classes\.json"):
        layout.load(ade20k, "train")


def test_classes_one_a_line(ade20k):
    (ade20k / "classes.txt").write_text("\ufeffwall\n\n sky \r\ntree\n", encoding="utf-8")
    split = layout.load(ade20k, "train")
    assert split.classes == ("wall", "sky", "tree") and split.texts() == (ade20k / "classes.txt",)


@pytest.mark.parametrize("name", ["objectInfo150.txt", "classes.txt"])
def test_class_names_that_are_not_utf_8(ade20k, name):
    (ade20k / name).write_bytes(b"Idx\tRatio\tTrain\tVal\tName\n1\t0\t0\t0\tcaf\xe9\n")
    with pytest.raises(InputError, match=rf"{name} is not UTF-8 text \(byte \d+\); save it as UTF-8"):
        layout.load(ade20k, "train")


@pytest.mark.parametrize("count", [0, 255])
@pytest.mark.parametrize("name", ["objectInfo150.txt", "classes.txt", "classes.json"])
def test_more_classes_than_numbers_or_none(ade20k, name, count):
    rows = {
        "objectInfo150.txt": "Idx\tName\n" + "".join(f"{number + 1}\tx{number}\n" for number in range(count)),
        "classes.txt": "".join(f"x{number}\n" for number in range(count)),
        "classes.json": json.dumps([f"x{number}" for number in range(count)]),
    }
    (ade20k / name).write_text(rows[name])
    with pytest.raises(InputError, match=rf"{name} names {count} classes; .* room for 1 to 254"):
        layout.load(ade20k, "train")


def test_classes_that_begin_at_zero(ade20k):
    (ade20k / "classes.json").write_text('{"classes": ["a", "b", "c", "d"], "first_label": 0}')
    assert layout.load(ade20k, "train").labels(0)[0, :5].tolist() == [0, 1, 2, 3, 0]


def test_S07_labels_that_one_was_taken_off_already(ade20k, save_map):
    """0 to 2 with 255 for what was 0: read as usual, every class would be the one before it."""
    for folder in ("training", "validation"):
        for name in ("a", "b"):
            save_map(ade20k / f"annotations/{folder}/{name}.png", (np.arange(1200).reshape(30, 40) % 4 + 255) % 256)
    (ade20k / "classes.json").write_text('["a", "b", "c"]')
    with pytest.raises(InputError, match=r'labels look counted from 0 \(0 and 255 occur, 3 does not\).*"first_label": 0'):
        layout.load(ade20k, "train")
    (ade20k / "classes.json").write_text('{"classes": ["a", "b", "c"], "first_label": 0}')
    assert layout.load(ade20k, "train").labels(0)[0, :4].tolist() == [255, 0, 1, 2]
    (ade20k / "classes.json").write_text('{"classes": ["a", "b", "c"], "first_label": 1}')
    assert layout.load(ade20k, "train").labels(0)[0, :4].tolist() == [255, 255, 0, 1]


def test_S07_labels_counted_from_0_that_ignore_nothing(ade20k, save_map):
    """0 to 2 and nothing else: read as usual, the first of the three classes would be ignored and the last never occur."""
    for folder in ("training", "validation"):
        for name in ("a", "b"):
            save_map(ade20k / f"annotations/{folder}/{name}.png", np.arange(1200).reshape(30, 40) % 3)
    (ade20k / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"labels look counted from 0 \(0 to 2 occur, 3 does not\)"):
        layout.load(ade20k, "train")
    assert len(layout.load(ade20k, "val")) == 2, "a validation split may lack the last class"
    (ade20k / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    assert len(layout.load(ade20k, "train")) == 2, "and a small training split several"


def test_S07_labels_that_nothing_was_taken_off(ade20k):
    """The maps hold 0 to 3 and 3 classes are named: 0 means not labelled, as in ADE20K."""
    (ade20k / "classes.json").write_text('["a", "b", "c"]')
    assert layout.load(ade20k, "train").labels(0)[0, :4].tolist() == [255, 0, 1, 2]


@pytest.mark.parametrize("gone", ["images", "annotations/validation", "images/training"])
def test_wrong_layout_names_what_is_missing(ade20k, gone):
    shutil.rmtree(ade20k / gone)
    with pytest.raises(InputError, match=r"has no folder \w+/; the layout is images/training"):
        layout.check(ade20k)


def test_S01_missing_map(ade20k):
    (ade20k / "annotations/training/b.png").unlink()
    with pytest.raises(InputError, match=r"no label map for 1 images: b\.jpg \(b\.png\)"):
        layout.load(ade20k, "train")


def test_S02_map_of_another_size(ade20k, save_map):
    save_map(ade20k / "annotations/training/b.png", np.ones((30, 41)))
    with pytest.raises(InputError, match=r"1 maps differ in size from their image: b\.png \(41x30 for 40x30\)"):
        layout.load(ade20k, "train")


def test_S03_label_above_the_classes(ade20k):
    (ade20k / "classes.json").write_text('["wall", "sky"]')
    with pytest.raises(InputError, match=r"2 maps have labels of none of the 2 classes: a\.png \(3\), b\.png \(3\)"):
        layout.load(ade20k, "train")


def test_S03_label_in_val_that_train_has_not(ade20k, save_map):
    save_map(ade20k / "annotations/validation/b.png", np.full((30, 40), 9))
    with pytest.raises(InputError, match=r"validation: 1 maps have labels of none of the 3 classes: b\.png \(9\)"):
        layout.load(ade20k, "val")


def test_S03_255_is_ignored(ade20k, save_map):
    save_map(ade20k / "annotations/training/b.png", np.full((30, 40), 255))
    with pytest.raises(InputError, match=r"labels look counted from 0 \(0 and 255 occur\)"):
        layout.load(ade20k, "train")
    (ade20k / "classes.json").write_text('["x", "y", "z"]')
    assert set(layout.load(ade20k, "train").labels(1).ravel().tolist()) == {255}


def test_S04_colours_instead_of_labels(ade20k, save_image):
    save_image(ade20k / "annotations/training/a.png")
    with pytest.raises(InputError, match=r"1 maps are not 8-bit labels: a\.png \(RGB\)"):
        layout.load(ade20k, "train")


def test_S04_palette_is_only_colouring(ade20k):
    coloured = Image.new("P", (40, 30), 3)
    coloured.putpalette([200, 100, 50] * 256)
    coloured.save(ade20k / "annotations/training/a.png")
    assert len(layout.load(ade20k, "train").classes) == 3


def test_S05_16_bit_map(ade20k):
    Image.fromarray(np.ones((30, 40), dtype=np.uint16)).save(ade20k / "annotations/training/a.png")
    with pytest.raises(InputError, match=r"not 8-bit labels: a\.png \(I;16\)"):
        layout.load(ade20k, "train")


def test_S06_nothing_labelled_at_all(ade20k, save_map):
    for name in ("a", "b"):
        save_map(ade20k / f"annotations/training/{name}.png", np.zeros((30, 40)))
    with pytest.raises(InputError, match="no map has a labelled pixel"):
        layout.load(ade20k, "train")
    (ade20k / "classes.json").write_text('["x", "y", "z"]')
    with pytest.raises(InputError, match=r"training: no pixel has a class; the maps hold 0 alone, which is ignored"):
        layout.load(ade20k, "train")
    assert len(layout.load(ade20k, "val")) == 2


def test_labels_that_only_maps_outside_the_sample_hold_are_found(ade20k, save_map, monkeypatch):
    (ade20k / "classes.json").write_text('["x", "y", "z"]')
    save_map(ade20k / "annotations/training/a.png", np.zeros((30, 40)))
    monkeypatch.setattr("tasks.data._label_maps.spread", lambda items, most: items[:1])
    assert len(layout.load(ade20k, "train")) == 2


def test_S08_full_ade20k_is_named(ade20k, save_image):
    shutil.rmtree(ade20k / "annotations")
    save_image(ade20k / "images/training/a/abbey/ADE_train_00000970_seg.png")
    for root in (ade20k, ade20k.parent):
        with pytest.raises(InputError, match=r"this is full ADE20K.*ADEChallengeData2016"):
            layout.check(root)


def test_I07_cut_map_is_named(ade20k, save_map):
    path = ade20k / "annotations/training/a.png"
    save_map(path, np.random.default_rng(0).integers(0, 4, (30, 40)))
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(InputError, match=r"cannot decode label map .*a\.png"):
        layout.load(ade20k, "train")


def test_I19_empty_split(ade20k):
    for path in (ade20k / "images/validation").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no image"):
        layout.load(ade20k, "val")


def test_only_a_sample_of_many_maps_is_read(ade20k, monkeypatch, save_image, save_map):
    (ade20k / "classes.json").write_text('["x", "y", "z"]')
    for number in range(9):
        save_image(ade20k / f"images/training/c{number}.jpg")
        save_map(ade20k / f"annotations/training/c{number}.png", np.ones((30, 40)))
    read = []
    monkeypatch.setattr(_label_maps, "MAPS_SAMPLED", 3)
    monkeypatch.setattr(_label_maps, "present", lambda path: read.append(path.name) or [1])
    assert len(layout.load(ade20k, "train")) == 11
    assert read == ["a.png", "c3.png", "c8.png"]
