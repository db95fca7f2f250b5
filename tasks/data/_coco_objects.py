"""Cleaning COCO annotations: objects that would poison a training are left out and counted.

Detectron2 takes negative, empty and NaN boxes as they are; one of them makes the loss NaN in the first step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

# A box may stick out of its image by as much without being touched, in pixels: COCO's own boxes are rounded.
SLACK = 1.0

NUMBERS = frozenset((int, float))


@dataclass
class Cleaned:
    """The usable annotations of a split, by image, and what became of the others."""

    by_image: dict[int, list[dict[str, Any]]]
    has_masks: bool = False
    skipped: list[dict[str, Any]] = field(default_factory=list)
    clipped: list[int] = field(default_factory=list)


def clean(images: Iterable[Mapping[str, Any]], annotations: Iterable[Mapping[str, Any]]) -> Cleaned:
    """Keep what can be trained on and measured, in pycocotools' terms.

    Masks are left out where most objects have none: Detectron2 takes objects with masks or objects without. Crowd regions have no
    say in it.
    """
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    result = Cleaned({number: [] for number in sizes})
    kept = []
    for raw in annotations:
        tidy, fault = _tidy(raw, *sizes[raw["image_id"]], result.clipped)
        if fault:
            result.skipped.append({"id": raw["id"], "kind": fault})
        else:
            kept.append(tidy)
    votes = ["segmentation" in item for item in kept if not item["iscrowd"]]
    result.has_masks = sum(votes) * 2 > len(votes)
    for item in kept:
        if not result.has_masks:
            item.pop("segmentation", None)
        if item["id"] == 0:
            item["id"] = _free_id(kept)
        result.by_image[item["image_id"]].append(item)
    return result


def _tidy(raw: Mapping[str, Any], width: int, height: int, clipped: list[int]) -> tuple[dict[str, Any], str]:
    """One annotation with only the keys that are read later, or the kind of its fault."""
    box, fault = _box(raw.get("bbox"), width, height)
    if fault:
        return {}, fault
    item: dict[str, Any] = {key: raw[key] for key in ("id", "image_id", "category_id")}
    item["iscrowd"] = int(bool(raw.get("iscrowd", 0)))
    item["bbox"] = box
    if raw.get("segmentation"):
        mask, fault = _mask(raw["segmentation"], width, height)
        if fault:
            return {}, fault
        item["segmentation"] = mask
    item["area"] = _area(raw.get("area"), item)
    if box != raw["bbox"]:
        clipped.append(raw["id"])
    return item, ""


def _box(box: object, width: int, height: int) -> tuple[list[float], str]:
    """A box [x, y, width, height] in pixels, cut to its image, or what is wrong with it."""
    if not box:
        return [], "no box"
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return [], "box of other than 4 finite numbers"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return [], "negative or empty box"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return [], "box outside its image"
    if x >= -SLACK and y >= -SLACK and x + w <= width + SLACK and y + h <= height + SLACK:
        return box, ""
    left, top = max(x, 0), max(y, 0)
    return [left, top, min(x + w, width) - left, min(y + h, height) - top], ""


def _mask(mask: object, width: int, height: int) -> tuple[Any, str]:
    """The mask without its unusable polygons, or what is wrong with it."""
    if isinstance(mask, list):
        polygons = [polygon for polygon in mask if _is_polygon(polygon)]
        return polygons, "" if polygons else "polygon without 3 points of finite numbers"
    if not isinstance(mask, dict) or mask.get("size") != [height, width]:
        return None, "run-length mask of another size"
    runs = _runs(mask.get("counts"))
    if sum(runs) != width * height or min(runs) < 0:
        return None, "damaged run-length mask"
    return mask, ""


def _is_polygon(polygon: object) -> bool:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    # COCO has 80 million coordinates: types and sum are looked at without a loop in Python, and a sum keeps NaN and infinity.
    return {*map(type, polygon)} <= NUMBERS and isfinite(sum(polygon))


def _runs(counts: object) -> list[int]:
    """Lengths of the runs of a mask, from the list or from COCO's text form; [-1] for anything else.

    The text holds numbers in groups of 5 bits, low ones first, at 48 and up in ASCII; bit 6 says that another group follows,
    bit 5 of the last one is the sign. From the fourth number on each is the difference from the one two before it.
    """
    if isinstance(counts, list):
        return counts if counts and all(type(run) is int for run in counts) else [-1]
    if not isinstance(counts, str) or not counts:
        return [-1]
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        group = ord(letter) - 48
        if not 0 <= group < 64:
            return [-1]
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs if shift == 0 else [-1]


def _area(area: Any, item: Mapping[str, Any]) -> float:
    """The area in square pixels as given, or that of the mask or box where it is missing: pycocotools sorts objects by it."""
    if _is_number(area) and area >= 0:
        return area
    mask = item.get("segmentation")
    if isinstance(mask, dict):
        return float(sum(_runs(mask["counts"])[1::2]))
    if mask:
        return float(sum(_enclosed(polygon) for polygon in mask))
    return float(item["bbox"][2] * item["bbox"][3])


def _enclosed(polygon: list[float]) -> float:
    """Area of a polygon by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2


def _free_id(items: list[dict[str, Any]]) -> int:
    """An id to take the place of 0: pycocotools writes 0 for 'matched nothing', so that object could never be found."""
    return max(item["id"] for item in items) + 1


def _is_number(value: Any) -> bool:
    return type(value) in NUMBERS and isfinite(value)
