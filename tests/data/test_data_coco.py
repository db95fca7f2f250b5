import json
import shutil
import tracemalloc
from contextlib import redirect_stdout
from io import StringIO

import pytest
from PIL import Image
from rich.console import Console

from mae_bench.check import check_data
from mae_bench.core.errors import EnvironmentFault, InputError
from tasks.data import _coco_json
from tasks.data import coco as layout
from tasks.data._coco_json import leaves_folder
from tasks.data._coco_objects import clean

SQUARE = {"size": [30, 40], "counts": [4 * 30 + 5, 12, 18, 12, 30 * 40 - 4 * 30 - 5 - 12 - 18 - 12]}


def spoil(coco, **changes):
    """Give the first of the two objects other values; `...` takes a key away."""
    coco.content["annotations"][0] = coco.object(1, **changes)
    return layout.load(coco.write(), "train")


def test_split_in_coco_terms(coco):
    split = layout.load(coco.write(), "train")
    assert [image["id"] for image in split.images] == [2, 5]
    assert (split.image_root.name, split.json_path.name) == ("train2017", "instances_train2017.json")
    assert split.has_masks and not split.skipped and not split.clipped
    assert split.annotations[5] == [coco.object(1)]
    assert len(split) == 2 and split.image(0).size == (40, 30)


@pytest.mark.parametrize(
    ("year", "folder_year"), [("2017", None), ("", None), ("", "2017"), ("2017", ""), ("2014", None), ("2025", "")]
)
def test_year_may_be_absent_or_another(coco, year, folder_year):
    root = coco.write(year=year, folder_year=folder_year)
    layout.check(root)
    assert len(layout.load(root, "val")) == 2


def test_2017_is_taken_beside_other_years_and_the_folder_goes_with_the_file(coco):
    coco.write(year="2014")
    split = layout.load(coco.write(), "val")
    assert (split.json_path.name, split.image_root.name) == ("instances_val2017.json", "val2017")
    for path in coco.root.glob("*/*2017.json"):
        path.unlink()
    assert layout.load(coco.root, "val").image_root.name == "val2014"


@pytest.mark.parametrize("gone", ["annotations", "val2017", "annotations/instances_val2017.json"])
def test_wrong_layout_names_what_is_missing(coco, gone):
    path = coco.write() / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=r"has no .*; the layout is annotations/instances_train2017\.json"):
        layout.check(coco.root)


def test_D01_cut_json(coco):
    path = coco.write() / "annotations/instances_train2017.json"
    path.write_text(path.read_text()[:300])
    with pytest.raises(InputError, match=r"instances_train2017\.json is not valid JSON at line 1"):
        layout.load(coco.root, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"images": []}, "no list 'annotations'"),
        ({"images": [], "annotations": [], "categories": []}, "'images' is empty"),
        ({"images": [1], "annotations": [], "categories": []}, "no list 'images'"),
    ],
)
def test_D02_not_coco(coco, content, message):
    coco.content = content
    with pytest.raises(InputError, match=message):
        layout.load(coco.write(), "train")


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_D03_duplicate_ids_are_named(coco, part):
    first, second = coco.content[part][:2]
    second["id"] = first["id"]
    with pytest.raises(InputError, match=f"1 {part} share an id: {first['id']}"):
        layout.load(coco.write(), "train")


@pytest.mark.parametrize("number", ["7", None, 7.5])
def test_D03_ids_that_are_no_whole_numbers(coco, number):
    coco.content["annotations"][0]["id"] = number
    with pytest.raises(InputError, match="annotations without a whole-number id"):
        layout.load(coco.write(), "train")


def test_D04_unknown_category(coco):
    with pytest.raises(InputError, match="1 annotations with an unknown category_id: 1;"):
        spoil(coco, category_id=4)


def test_D05_unknown_image_names_the_first_five(coco):
    coco.content["annotations"] += [coco.object(number, image_id=99) for number in range(10, 17)]
    with pytest.raises(InputError, match=r"7 annotations with an unknown image_id: 10, 11, 12, 13, 14 and 2 more"):
        layout.load(coco.write(), "train")


def test_D14_missing_images_are_named(coco):
    (coco.write() / "train2017/5.jpg").unlink()
    with pytest.raises(InputError, match=r"1 images are not in .*train2017: 5\.jpg"):
        layout.load(coco.root, "train")


def test_D14_images_in_deeper_folders_are_found(coco, save_image):
    coco.content["images"][0]["file_name"] = "deep/er/5.jpg"
    save_image(coco.write() / "train2017/deep/er/5.jpg")
    assert layout.load(coco.root, "train").image(1).size == (40, 30)


def test_D15_wrong_size_is_named(coco):
    coco.content["images"][0]["width"] = 41
    coco.content["annotations"][0]["segmentation"] = [[1, 1, 5, 1, 5, 5]]
    told = r"width or height differs from the file for 5\.jpg: 41x30 is said of the first, and it has 40x30; write the sizes"
    with pytest.raises(InputError, match=told):
        layout.load(coco.write(), "train")


def test_D15_size_is_that_of_the_turned_photograph(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(coco.write() / "train2017/5.jpg", exif=exif)
    assert layout.load(coco.root, "train").image(1).size == (40, 30)


def test_D15_a_size_from_before_the_photograph_is_turned_is_told_of_the_tag(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(coco.write() / "train2017/5.jpg", exif=exif)
    told = r"for 5\.jpg: 40x30 is said of the first, and its orientation tag turns it; annotate it as it is turned, or remove"
    with pytest.raises(InputError, match=told):
        layout.load(coco.root, "train")


@pytest.mark.parametrize("size", [{"width": 0}, {"width": ...}, {"height": "30"}, {"height": 30.5}])
def test_D15_no_usable_size(coco, size):
    image = coco.content["images"][0] | size
    coco.content["images"][0] = {key: value for key, value in image.items() if value is not ...}
    with pytest.raises(InputError, match="1 images without width and height in whole pixels: 5"):
        layout.load(coco.write(), "train")


@pytest.mark.parametrize("name", ["../x.jpg", "a/../../x.jpg", "/etc/passwd", "a\0.jpg", "..\\x.jpg", "C:\\x.jpg", "", "."])
def test_D16_file_names_that_leave_the_folder(coco, name):
    assert leaves_folder(name)
    coco.content["images"][0]["file_name"] = name
    with pytest.raises(InputError, match="1 file_name leaves the image folder"):
        layout.load(coco.write(), "train")


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "a..b/c.jpg", "ü b.jpg"])
def test_D16_honest_names_pass(name):
    assert not leaves_folder(name)


def test_D17_gaps_in_category_ids(coco):
    split = layout.load(coco.write(), "train")
    assert split.classes == ("cat", "dog") and split.category_ids == (3, 90)


def test_D18_crowds_and_empty_images_are_kept(coco, save_image):
    coco.content["images"].append({"id": 7, "file_name": "7.jpg", "width": 40, "height": 30})
    coco.content["annotations"][0] = coco.object(1, iscrowd=1, segmentation=SQUARE)
    save_image(coco.write() / "train2017/7.jpg")
    split = layout.load(coco.root, "train")
    assert split.annotations[7] == []
    assert split.annotations[5][0]["iscrowd"] == 1 and split.annotations[5][0]["segmentation"] == SQUARE


def test_D20_a_file_that_does_not_fit_is_refused_before_it_is_read(coco, monkeypatch):
    path = coco.write() / "annotations/instances_train2017.json"
    size = path.stat().st_size
    monkeypatch.setattr(_coco_json, "_parse", lambda path: pytest.fail("the file was read"))
    monkeypatch.setattr(_coco_json, "free_memory", lambda: size * _coco_json.MEMORY_PER_BYTE - 1)
    with pytest.raises(EnvironmentFault, match=r"instances_train2017\.json has 0 MB and takes about 0 MB of memory"):
        layout.load(coco.root, "train")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"max": "1000\n", "current": "900\n", "stat": "anon 300\nactive_file 150\ninactive_file 250\nfile 500\n"}, 500),
        ({"max": "1000\n", "current": "900\n"}, 100),
        ({"max": "max\n", "current": "900\n", "stat": "active_file 150\n"}, None),
        ({}, None),
    ],
)
def test_D20_cached_files_of_a_container_count_as_free(tmp_path, files, free):
    for name, content in files.items():
        (tmp_path / f"memory.{name}").write_text(content)
    assert _coco_json._control_group(tmp_path) == free


def test_D20_reading_stays_within_the_stated_memory(coco):
    polygon = [[round(0.37 * number % 29, 2) for number in range(40)]]
    coco.content["annotations"] = [coco.object(number, segmentation=polygon) for number in range(1, 4000)]
    path = coco.write() / "annotations/instances_train2017.json"
    tracemalloc.start()
    try:
        data = _coco_json.read(path)
        cleaned = clean(data["images"], data["annotations"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(cleaned.by_image[5]) == 3999
    assert peak < _coco_json.MEMORY_PER_BYTE * path.stat().st_size
    free = _coco_json.free_memory()
    assert free is None or free > path.stat().st_size


def test_I19_nothing_usable_is_refused_with_the_reason(coco):
    coco.content["annotations"] = [coco.object(1, bbox=[1, 1, 0, 0])]
    with pytest.raises(InputError, match=r"no usable object \(negative or empty box\)"):
        layout.load(coco.write(), "train")


# pycocotools 2.0 hands numpy 2 an array in a way that numpy warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_validated_split_is_what_pycocotools_takes(coco, tmp_path_factory):
    tools = pytest.importorskip("pycocotools.coco")
    split = layout.load(coco.write(), "val")
    path = tmp_path_factory.mktemp("copy") / "val.json"
    path.write_text(json.dumps(split.as_json()))
    with redirect_stdout(StringIO()):
        api = tools.COCO(str(path))
    assert sorted(api.getCatIds()) == [3, 90]
    assert api.annToMask(api.loadAnns([1])[0]).sum() == 120


def test_data_check_counts_what_is_left_out(coco):
    coco.content["annotations"] += [coco.object(number, bbox=[1, 1, 0, 0]) for number in (3, 4)]
    console = Console(file=(file := StringIO()), width=200)
    assert check_data(f"coco={coco.write()}", console) == 0
    printed = file.getvalue()
    assert "val: 2 annotations are left out: negative or empty box" in printed and "4 files decoded, 0 bad" in printed
