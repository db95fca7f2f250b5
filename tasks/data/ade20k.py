"""ADE20K as SceneParse150 gives it: `images/{training,validation}` with `annotations/{training,validation}`.

A label map is an 8-bit PNG of its image's size. 0 means "not labelled" and is ignored, and so is 255; class i, from 1, has the
label i (`reduce_zero_label` in mmsegmentation). Any number of classes up to 254 works. Their names come from `classes.json`, a
list of names or `{"classes": [...], "palette": [[r, g, b], ...], "first_label": 1}`, else from `classes.txt`, a name a line, else
from the `objectInfo150.txt` of the release; without any, all training maps are read once and the largest label counts the
classes. `"first_label": 0` is for maps whose first class is 0, with 255 alone ignored.
"""

from functools import cache
from pathlib import Path
from typing import NoReturn

from mae_bench.core.errors import InputError
from tasks.data import Info, Which, need_folder
from tasks.data._class_list import LIST, ClassList, read_class_list
from tasks.data._label_maps import (
    IGNORED,
    MOST_CLASSES,
    SUFFIXES,
    SegmentationSplit,
    check_headers,
    check_labels,
    check_present,
    counted_from,
    images_in,
    present,
)

INFO = Info(
    name="ade20k",
    kind="segmentation",
    description="ADE20K scene parsing (SceneParse150) and anything laid out like it",
    layout="images/training/*.jpg\nimages/validation/*.jpg\nannotations/training/*.png\nannotations/validation/*.png",
    licence="ADE20K: images for non-commercial research and education, annotations BSD-3-Clause",
)

FOLDERS: dict[Which, str] = {"train": "training", "val": "validation"}
RELEASE = "ADEChallengeData2016"


def check(root: Path) -> None:
    """Raise InputError unless the four folders are there."""
    inside = _inside(root)
    if not (inside / "annotations").is_dir():
        for images in (inside / "images", *inside.glob("*/images")):
            _refuse_full_release(images)
    for side in ("images", "annotations"):
        need_folder(inside / side, INFO.layout)
        for folder in FOLDERS.values():
            need_folder(inside / side / folder, INFO.layout)


def load(root: Path, which: Which) -> SegmentationSplit:
    """Read and validate one split.

    Raises:
        InputError: wrong layout, maps that are missing, of another size or not 8-bit labels, or labels above the classes.
    """
    check(root)
    inside = _inside(root)
    pairs = _pair(inside, FOLDERS[which])
    maps = inside / "annotations" / FOLDERS[which]
    check_headers(pairs, maps)
    listed = read_class_list(inside)
    names = listed.names if listed else _counted_classes(inside)
    first = listed.first_label if listed else 1
    lookup = counted_from(0, len(names)) if first == 0 else counted_from(1, len(names), ignored=(0,))
    split = SegmentationSplit(pairs, names, listed.palette if listed else None, lookup, (listed.path,) if listed else ())
    found = check_labels(split, maps)
    if listed and first is None:
        _refuse_reduced(maps, listed, found, every=which == "train")
    return split


def _inside(root: Path) -> Path:
    """The folder that holds `images/` and `annotations/`: the root or the release's folder in it."""
    return root / RELEASE if (root / RELEASE).is_dir() else root


def _pair(inside: Path, folder: str) -> list[tuple[Path, Path]]:
    images, maps = inside / "images" / folder, inside / "annotations" / folder
    found = images_in(images)
    if not found:
        _refuse_full_release(images)
        raise InputError(f"{images} holds no image ({', '.join(sorted(SUFFIXES))})")
    pairs = [(path, maps / f"{path.stem}.png") for path in found]
    check_present(pairs, maps)
    return pairs


def _refuse_full_release(images: Path) -> None:
    """Full ADE20K sorts its images into folders by scene and has no label maps of this kind."""
    if next(images.glob("**/*_seg.png"), None):
        raise InputError(f"{images}: this is full ADE20K, with *_seg.png beside the images; take SceneParse150 ({RELEASE}.zip)")


def _refuse_reduced(maps: Path, listed: ClassList, found: set[int], *, every: bool) -> None:
    """Maps whose first class is 0: the largest label never occurs, and 255 is what is ignored or all below it do occur.

    Args:
        maps: folder of the maps.
        listed: the classes.
        found: numbers in the maps.
        every: whether every class is expected in them, as in training; a validation split may well lack the last one.
    """
    last = len(listed.names)
    if last in found or 0 not in found:
        return
    if IGNORED in found:
        _refuse_unclear(maps, f"0 and {IGNORED} occur, {last} does not")
    if every and found >= set(range(last)):
        _refuse_unclear(maps, f"0 to {last - 1} occur, {last} does not")


def _refuse_unclear(maps: Path, seen: str) -> NoReturn:
    entry = '{"classes": [...], "first_label": 0}, or 1 where 0 means not labelled'
    raise InputError(f"{maps}: labels look counted from 0 ({seen}); write the number of the first class into {LIST}: {entry}")


def _counted_classes(inside: Path) -> tuple[str, ...]:
    folder = inside / "annotations" / FOLDERS["train"]
    found = _labels_in(folder, folder.stat().st_mtime_ns)
    if found >= {0, IGNORED}:
        _refuse_unclear(folder, f"0 and {IGNORED} occur")
    largest = max(found - {IGNORED}, default=0)
    if largest == 0:
        raise InputError(f"{folder}: no map has a labelled pixel (1 to {MOST_CLASSES}); are the labels counted from 0?")
    return tuple(f"class {number + 1}" for number in range(largest))


@cache
def _labels_in(folder: Path, _changed: int) -> frozenset[int]:
    """Read every training map, once for both splits; the time of the last change is part of the cache's key."""
    return frozenset(number for path in folder.glob("[!.]*.png") for number in present(path))
