"""The three data sets in their official layouts. Each writer names, for every image, the digits that went into it."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from tasks.data import Which
from tasks.scenes import sizes
from tasks.scenes.draw import Mask, Picture, Pool, draw_scene, draw_single

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS: tuple[Which, ...] = ("train", "val")
ADE_FOLDERS: dict[Which, str] = {"train": "training", "val": "validation"}
BACKGROUND = 11
"""Label of the background in the label maps; digit d has the label d + 1 and 0 is ignored."""

# First number of each data set's random streams.
STREAMS = {"folder": 1, "coco": 2, "ade20k": 3}

Made = tuple[Path, list[int]]
"""A written image and the places in load_digits of the digits in it."""


def write_folder(root: Path, pools: Mapping[Which, Pool], scale: sizes.Scale) -> Iterator[Made]:
    """An image folder: one digit an image; each digit of the pool is drawn several times, in turn."""
    for split in SPLITS:
        for label, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            positions = pools[split].of_class(label)
            for index in range(scale.folder_train if split == "train" else scale.folder_val):
                rng = _stream("folder", split, label, index)
                picture = draw_single(pools[split], int(positions[index % len(positions)]), rng)
                path = folder / f"{index:04d}.png"
                Image.fromarray(picture.pixels).save(path, compress_level=1)
                yield path, [digit.number for digit in picture.placed]


def write_coco(root: Path, pools: Mapping[Which, Pool], scale: sizes.Scale) -> Iterator[Made]:
    """COCO instances: tight boxes and run-length masks of what is seen of each digit."""
    (root / "annotations").mkdir(parents=True)
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for path, picture, number in _scenes("coco", root / f"{split}2017", split, pools[split], scale, name="{:012d}.jpg"):
            side = sizes.SCENE_SIDE
            images.append({"id": number, "file_name": path.name, "width": side, "height": side})
            for digit in picture.placed:
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": digit.label + 1}
                annotations.append({**ids, "iscrowd": 0, **_outline(digit.mask)})
            yield path, [digit.number for digit in picture.placed]
        categories = [{"id": label + 1, "name": name, "supercategory": "digit"} for label, name in enumerate(NAMES)]
        content = {
            "info": {"description": "digits on photographs, drawn by mae-bench"},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content), encoding="utf-8")


def write_ade20k(root: Path, pools: Mapping[Which, Pool], scale: sizes.Scale) -> Iterator[Made]:
    """ADE20K label maps: ten digit classes, and the background as the eleventh.

    The pixels next to a digit, where it blends into what is below it, are ignored (label 0), as the outlines in VOC are.
    """
    for split, folder in ADE_FOLDERS.items():
        maps = root / "annotations" / folder
        maps.mkdir(parents=True)
        name = f"ADE_{split}_{{:08d}}.jpg"
        for path, picture, _ in _scenes("ade20k", root / "images" / folder, split, pools[split], scale, name=name):
            Image.fromarray(_label_map(picture)).save(maps / f"{path.stem}.png")
            yield path, [digit.number for digit in picture.placed]
    (root / "classes.json").write_text(json.dumps([*NAMES, "background"]), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Mapping[Which, Pool], sizes.Scale], Iterator[Made]]] = {
    "folder": write_folder,
    "coco": write_coco,
    "ade20k": write_ade20k,
}


def run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed run lengths: column by column, starting with the pixels outside."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return [0, *runs] if flat[0] else runs


def _scenes(
    data: str, folder: Path, split: Which, pool: Pool, scale: sizes.Scale, *, name: str
) -> Iterator[tuple[Path, Picture, int]]:
    folder.mkdir(parents=True)
    for number in range(1, (scale.scenes_train if split == "train" else scale.scenes_val) + 1):
        picture = draw_scene(pool, _stream(data, split, number))
        path = folder / name.format(number)
        Image.fromarray(picture.pixels).save(path, quality=sizes.JPEG_QUALITY, subsampling=0)
        yield path, picture, number


def _outline(mask: Mask) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)).tolist(), np.flatnonzero(mask.any(axis=0)).tolist()
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {"bbox": box, "area": int(mask.sum()), "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)}}


def _label_map(picture: Picture) -> NDArray[np.uint8]:
    labels = np.full(picture.pixels.shape[:2], BACKGROUND, dtype=np.uint8)
    for digit in picture.placed:
        labels[_grown(digit.mask)] = 0
        labels[digit.mask] = digit.label + 1
    return labels


def _grown(mask: Mask) -> Mask:
    """The mask and the pixels next to it, diagonal ones included."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = (padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return np.logical_or.reduce(list(shifted))


def _stream(data: str, split: Which, *counters: int) -> Generator:
    """Randomness of one image, whatever was drawn before it."""
    return np.random.default_rng([sizes.SEED, STREAMS[data], SPLITS.index(split), *counters])
