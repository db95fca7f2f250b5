import shutil

import pytest

from mae_bench.core.errors import InputError
from tasks.data import folder
from tasks.handle import open_data


def test_classes_and_labels_are_in_name_order(image_folder):
    split = folder.load(image_folder, "train")
    assert split.classes == ("cat", "dog")
    assert [(path.parent.name, path.name) for path in split.paths] == [
        ("cat", "0.png"),
        ("cat", "1.png"),
        ("dog", "0.png"),
        ("dog", "1.png"),
    ]
    assert split.labels == [0, 0, 1, 1]
    assert len(split) == 4
    assert split.image(3).size == (40, 30)


def test_paths_are_a_sequence(image_folder):
    paths = folder.load(image_folder, "val").paths
    assert paths[-1] == image_folder / "val/dog/1.png"
    assert list(paths[1:3]) == [image_folder / "val/cat/1.png", image_folder / "val/dog/0.png"]


def test_I15_suffixes_in_any_case_but_no_hidden_or_foreign_files(image_folder, save_image):
    cats = image_folder / "train/cat"
    for name in ("a.JPG", "b.Jpeg", "c.WEBP", "deeper/d.TIF", "e.gif"):
        save_image(cats / name)
    for name in ("._a.jpg", ".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", ".cache/x.png", "noending"):
        (cats / name).parent.mkdir(exist_ok=True)
        (cats / name).write_bytes(b"")
    (image_folder / "train/.ipynb_checkpoints").mkdir()
    split = folder.load(image_folder, "train")
    assert [name for name in split.names if name.startswith("cat")] == [
        "cat/0.png", "cat/1.png", "cat/a.JPG", "cat/b.Jpeg", "cat/c.WEBP", "cat/deeper/d.TIF", "cat/e.gif"
    ]  # fmt: skip


def test_I17_empty_class_is_named(image_folder):
    for split in ("train", "val"):
        (image_folder / split / "emu").mkdir()
    with pytest.raises(InputError, match="no image in class emu"):
        folder.load(image_folder, "train")


def test_I17_classes_that_differ_are_named(image_folder, save_image):
    save_image(image_folder / "train/emu/0.png")
    save_image(image_folder / "val/ox/0.png")
    with pytest.raises(InputError, match="only in train: emu; only in val: ox"):
        folder.check(image_folder)


def test_I17_one_class_is_refused(image_folder):
    for split in ("train", "val"):
        shutil.rmtree(image_folder / split / "dog")
    with pytest.raises(InputError, match=r"only one class \(cat\)"):
        folder.check(image_folder)


def test_I18_strange_names_and_links_inside_work(image_folder, save_image):
    save_image(image_folder / "train/cat/näme with space\nand line.png")
    save_image(image_folder / "extra/x.png")
    (image_folder / "train/cat/linked").symlink_to(image_folder / "extra")
    split = folder.load(image_folder, "train")
    assert {"cat/linked/x.png", "cat/näme with space\nand line.png"} < set(split.names)
    assert all(split.image(index).size == (40, 30) for index in range(len(split)))


@pytest.mark.parametrize("place", ["train/cat/linked", "train/cat/one.png", "train/emu", "val"])
def test_I18_links_out_of_the_root_are_followed_only_when_asked(image_folder, tmp_path_factory, save_image, place):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for inner in ("x.png", "cat/0.png", "dog/0.png"):
        save_image(elsewhere / inner)
    if place == "val":
        shutil.rmtree(image_folder / "val")
    if place == "train/emu":
        save_image(image_folder / "val/emu/0.png")
    (image_folder / place).symlink_to(elsewhere / "x.png" if place.endswith(".png") else elsewhere)
    with pytest.raises(InputError, match=r"is a link out of the data set; write -d folder\+links=PATH"):
        folder.load(image_folder, "train")
    data = open_data(f"folder+links={image_folder}")
    paths = [*data.split("train").paths, *data.split("val").paths]
    assert any(path.resolve().is_relative_to(elsewhere) for path in paths)
    assert data.text == f"folder+links={image_folder}"
    assert open_data(data.text).fingerprint == data.fingerprint


def test_I18_links_in_a_circle_end_and_no_image_comes_twice(image_folder):
    (image_folder / "train/cat/deeper").mkdir()
    (image_folder / "train/cat/deeper/up").symlink_to(image_folder / "train/cat")
    (image_folder / "train/cat/again").symlink_to(image_folder / "train/cat/deeper")
    assert folder.load(image_folder, "train").names == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_I16_a_link_to_nowhere_is_listed_and_counted(image_folder):
    (image_folder / "train/cat/gone.png").symlink_to(image_folder / "nowhere.png")
    data = open_data(f"folder={image_folder}")
    assert "cat/gone.png" in data.split("train").names
    assert len(data.fingerprint) == 64
    with pytest.raises(InputError, match="no such file"):
        data.split("train").image(2)


def test_I19_no_images_at_all(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        folder.check(tmp_path)


def test_missing_split_names_the_layout(image_folder):
    shutil.rmtree(image_folder / "val")
    with pytest.raises(InputError, match=r"has no folder val/; the layout is train/<class>/\*\.jpg"):
        folder.check(image_folder)


def test_images_without_class_folders_get_the_fix(image_folder, save_image):
    shutil.rmtree(image_folder / "val")
    save_image(image_folder / "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(InputError, match="sort them into val/<class>/"):
        folder.check(image_folder)
