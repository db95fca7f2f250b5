"""What a large annotation file comes down to once it is read, checked and cleaned, kept as arrays for the next process.

A run has a process for each cell, and each would read COCO's 450 MB of JSON again. What is kept answers only to the very content
of the file, by its SHA-256, and lies in the user's cache, never beside the data.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data._coco_objects import Cleaned, clean
from tasks.data._index import Arrays, kept, user_cache

SMALLEST = 2**23
"""Bytes of a file that is worth keeping; smaller ones are read in about a second."""
VERSION = 2
"""Raised when the same file comes to give something else."""
NO_MASK, RUNS = 0, -1
"""In place of a number of polygons."""


@dataclass
class Content:
    """An annotation file, checked and cleaned."""

    images: list[dict[str, Any]]
    """By ascending id."""
    categories: list[dict[str, Any]]
    """By ascending id."""
    cleaned: Cleaned


def content_of(path: Path, layout: str, read: Callable[[], dict[str, list[dict[str, Any]]]]) -> Content:
    """Give what a file comes down to, from the user's cache where the file has not changed since it was read last.

    Args:
        path: the annotation file.
        layout: name of the data set's file, since each has its own rules.
        read: reads and checks the file, and gives the three lists of `_coco_json.read`.
    """
    if path.stat().st_size < SMALLEST:
        return _made(read())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    place = user_cache(f"{layout} {path.absolute()}")
    return _content(kept([place], json.dumps([VERSION, layout, digest]), lambda: _arrays(_made(read())), str(path)))


def _made(data: dict[str, list[dict[str, Any]]]) -> Content:
    images, categories = (sorted(data[part], key=lambda item: item["id"]) for part in ("images", "categories"))
    return Content(images, categories, clean(images, data["annotations"]))


def _arrays(content: Content) -> Arrays:
    """Numbers become arrays, everything else text."""
    cleaned = content.cleaned
    items = [item for some in cleaned.by_image.values() for item in some]
    shapes = [item.get("segmentation") for item in items]
    polygons = [polygon for shape in shapes if isinstance(shape, list) for polygon in shape]
    texts = {
        "images": content.images,
        "categories": content.categories,
        "runs": [shape for shape in shapes if isinstance(shape, dict)],
        "told": [cleaned.has_masks, cleaned.skipped, cleaned.clipped],
    }
    numbers = [(item["id"], item["image_id"], item["category_id"], item["iscrowd"]) for item in items]
    return {
        **{name: np.frombuffer(json.dumps(value).encode(), np.uint8) for name, value in texts.items()},
        "numbers": np.array(numbers, np.int64).reshape(-1, 4),
        "boxes": np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4),
        "areas": np.array([item["area"] for item in items], np.float64),
        "counts": np.array([_count(shape) for shape in shapes], np.int32),
        "lengths": np.array([len(polygon) for polygon in polygons], np.int32),
        "points": np.concatenate([np.array(polygon, np.float64) for polygon in polygons] or [np.empty(0)]),
    }


def _content(arrays: Arrays) -> Content:
    """The same, made of the arrays."""
    images, categories, runs, told = (json.loads(arrays[name].tobytes()) for name in ("images", "categories", "runs", "told"))
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    polygons, masks = _polygons(arrays), iter(runs)
    rows = (arrays[name].tolist() for name in ("numbers", "boxes", "areas", "counts"))
    for (number, image, category, crowd), box, area, count in zip(*rows, strict=True):
        item = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "bbox": box, "area": area}
        if count != NO_MASK:
            item["segmentation"] = next(masks) if count == RUNS else list(islice(polygons, count))
        by_image[image].append(item)
    return Content(images, categories, Cleaned(by_image, *told))


def _polygons(arrays: Arrays) -> Iterator[list[float]]:
    ends = np.cumsum(arrays["lengths"]).tolist()
    points = arrays["points"]
    start = 0
    for end in ends:
        yield points[start:end].tolist()
        start = end


def _count(shape: Any) -> int:
    return NO_MASK if shape is None else len(shape) if isinstance(shape, list) else RUNS
