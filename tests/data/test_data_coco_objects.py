import numpy as np
import pytest

from tasks.data import coco as layout
from tasks.data._coco_objects import _runs

SQUARE = {"size": [30, 40], "counts": [4 * 30 + 5, 12, 18, 12, 30 * 40 - 4 * 30 - 5 - 12 - 18 - 12]}


def spoil(coco, **changes):
    """Give the first of the two objects other values; `...` takes a key away."""
    coco.content["annotations"][0] = coco.object(1, **changes)
    return layout.load(coco.write(), "train")


BAD_BOXES = {
    "D06_negative_box": ([14, 17, -10, -12], "negative or empty box"),
    "D06_zero_box": ([4, 5, 0, 12], "negative or empty box"),
    "D07_nan_box": ([4, float("nan"), 10, 12], "box of other than 4 finite numbers"),
    "D07_infinite_box": ([4, 5, float("inf"), 12], "box of other than 4 finite numbers"),
    "D07_string_box": (["4", 5, 10, 12], "box of other than 4 finite numbers"),
    "D08_box_of_three_numbers": ([4, 5, 10], "box of other than 4 finite numbers"),
    "D09_box_outside": ([41, 5, 10, 12], "box outside its image"),
    "D13_no_box": (..., "no box"),
    "D13_empty_box": ([], "no box"),
}


@pytest.mark.parametrize(("box", "kind"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_bad_box_is_skipped_and_counted(coco, box, kind):
    split = spoil(coco, bbox=box)
    assert split.skipped == [{"id": 1, "kind": kind}]
    assert split.annotations[5] == [] and len(split.annotations[2]) == 1


@pytest.mark.parametrize(
    ("box", "expected"),
    [([-5, -6, 10, 12], [0, 0, 5, 6]), ([30, 20, 50, 50.5], [30, 20, 10, 10]), ([-3, 5, 100, 5], [0, 5, 40, 5])],
)
def test_D10_box_partly_outside_is_clipped(coco, box, expected):
    split = spoil(coco, bbox=box)
    assert split.annotations[5][0]["bbox"] == expected
    assert split.clipped == [1] and not split.skipped


def test_D10_rounding_at_the_edge_is_left_alone(coco):
    split = spoil(coco, bbox=[-0.01, 5, 40.6, 25])
    assert split.annotations[5][0]["bbox"] == [-0.01, 5, 40.6, 25] and not split.clipped


@pytest.mark.parametrize(
    "polygon", [[1, 1, 5, 5], [1, 1, 5, 1, 5, 5, 9], [1, 1, 5, 1, 5, float("nan")], "4 5", [[1, 1], [5, 1], [5, 5]]]
)
def test_D11_bad_polygon_is_left_out(coco, polygon):
    assert spoil(coco, segmentation=[polygon]).skipped == [{"id": 1, "kind": "polygon without 3 points of finite numbers"}]


def test_D11_good_polygons_beside_a_bad_one_stay(coco):
    good = [4, 5, 14, 5, 14, 17]
    split = spoil(coco, segmentation=[[1, 1, 2, 2], good])
    assert split.annotations[5][0]["segmentation"] == [good] and not split.skipped


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        (SQUARE | {"size": [40, 30]}, "run-length mask of another size"),
        ({"counts": [1200]}, "run-length mask of another size"),
        (SQUARE | {"counts": [10, 20]}, "damaged run-length mask"),
        (SQUARE | {"counts": [1300, -100]}, "damaged run-length mask"),
        (SQUARE | {"counts": "PSx0"}, "damaged run-length mask"),
        (SQUARE | {"counts": "\x00\x01"}, "damaged run-length mask"),
        (SQUARE | {"counts": None}, "damaged run-length mask"),
    ],
)
def test_D12_bad_run_lengths_are_left_out(coco, mask, kind):
    assert spoil(coco, segmentation=mask).skipped == [{"id": 1, "kind": kind}]


def test_D12_run_lengths_are_read_as_pycocotools_reads_them():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98, 0.0, 1.0):
        mask = np.asfortranarray(rng.random((97, 61)) < share).astype(np.uint8)
        text = tools.encode(mask)["counts"].decode()
        runs = _runs(text)
        assert sum(runs) == mask.size and sum(runs[1::2]) == mask.sum()
        assert tools.frPyObjects({"size": [97, 61], "counts": runs}, 97, 61)["counts"].decode() == text


@pytest.mark.parametrize("mask", [SQUARE, pytest.param("compressed", id="compressed")])
def test_run_length_masks_are_kept(coco, mask):
    if mask == "compressed":
        tools = pytest.importorskip("pycocotools.mask")
        mask = {"size": [30, 40], "counts": tools.frPyObjects(SQUARE, 30, 40)["counts"].decode()}
    split = spoil(coco, segmentation=mask, area=...)
    assert split.annotations[5][0]["segmentation"] == mask
    assert split.annotations[5][0]["area"] == 24


@pytest.mark.parametrize("empty", [..., [], None])
def test_boxes_only(coco, empty):
    coco.content["annotations"] = [coco.object(number, segmentation=empty, area=...) for number in (1, 2)]
    split = layout.load(coco.write(), "train")
    assert not split.has_masks and not split.skipped
    assert "segmentation" not in split.annotations[5][0]
    assert split.annotations[5][0]["area"] == 120


def test_few_objects_without_mask_are_left_out_where_masks_are_wanted(coco):
    coco.content["annotations"].append(coco.object(3, segmentation=[]))
    split = layout.load(coco.write(), "train")
    assert split.has_masks and not split.skipped and [item["id"] for item in split.annotations[5]] == [1, 3]
    assert split.masked().skipped == [{"id": 3, "kind": "no mask"}]
    assert [item["id"] for item in split.masked().annotations[5]] == [1]
    assert split.masked().masked().skipped == split.masked().skipped


def test_few_masks_among_boxes_are_ignored(coco):
    coco.content["annotations"] += [coco.object(number, segmentation=[]) for number in (3, 4, 5)]
    split = layout.load(coco.write(), "train")
    assert not split.has_masks and not split.skipped and len(split.annotations[5]) == 4


def test_missing_area_of_polygons_is_computed(coco):
    assert spoil(coco, area=...).annotations[5][0]["area"] == 120


def test_annotation_id_0_is_replaced(coco):
    coco.content["annotations"][0]["id"] = 0
    split = layout.load(coco.write(), "train")
    assert [item["id"] for item in split.annotations[5]] == [3]
