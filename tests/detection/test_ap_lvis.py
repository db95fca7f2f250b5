"""LVIS' figures against its rules written down anew (arXiv 1908.03195, section 4)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("detectron2")
pytest.importorskip("faster_coco_eval")

from tasks.data.coco import CocoSplit
from tasks.edges.detection_ap import average_precision, headline

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

CLASSES = ((1, "r"), (2, "c"), (5, "f"), (6, "f"))
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def scene(seed: int) -> tuple[CocoSplit, dict[int, list[Any]]]:
    """Images with objects of some classes, lists of absent classes and of those not annotated to the end, and detections."""
    random = np.random.default_rng(seed)
    images, annotations, found = [], {}, {}
    for image in range(1, 9):
        annotations[image], found[image] = [], []
        for number in range(random.integers(0, 5)):
            category = int(random.choice([1, 2, 5]))
            box = [float(value) for value in (*random.uniform(0, 50, 2), *random.uniform(20, 60, 2))]
            facts = {"id": image * 10 + number, "image_id": image, "category_id": category, "iscrowd": 0}
            annotations[image].append({**facts, "bbox": box, "area": box[2] * box[3]})
            for _ in range(2):
                moved = [value + float(random.normal(0, 2)) for value in box]
                label = [1, 2, 5, 6].index(category) if random.random() < 0.8 else int(random.integers(0, 4))
                found[image].append({"image_id": image, "category_id": label, "bbox": moved, "score": float(random.random())})
        present = {item["category_id"] for item in annotations[image]}
        absent = [category for category, _ in CLASSES if category not in present and random.random() < 0.5]
        partly = [category for category in present if random.random() < 0.4]
        lists = {"neg_category_ids": absent, "not_exhaustive_category_ids": partly}
        images.append({"id": image, "file_name": f"{image}.jpg", "width": 120, "height": 120, **lists})
    categories = [{"id": number, "name": str(number), "frequency": word} for number, word in CLASSES]
    return CocoSplit(Path(), Path("lvis.json"), images, annotations, categories, has_masks=False, federated=True), found


def expected(split: CocoSplit, found: dict[int, list[Any]], most: int = 300) -> dict[int, float]:
    """AP of each class in percent: only images that speak of the class count, and what is not annotated is no fault there."""
    result = {}
    for label, category in enumerate(split.category_ids):
        rows, objects = [], 0
        for image in split.images:
            truths = [item["bbox"] for item in split.annotations[image["id"]] if item["category_id"] == category]
            if not truths and category not in image["neg_category_ids"]:
                continue
            objects += len(truths)
            best = sorted(found[image["id"]], key=lambda one: -one["score"])[:most]
            guesses = [one for one in best if one["category_id"] == label]
            forgiven = category in image["not_exhaustive_category_ids"]
            rows += [(one["score"], *hits) for one, hits in zip(guesses, matches(guesses, truths, forgiven), strict=True)]
        if objects:
            rows.sort(key=lambda row: -row[0])
            result[category] = float(np.mean([precision([row[1:][t] for row in rows], objects) for t in range(10)]) * 100)
    return result


def matches(guesses: list[Any], truths: list[list[float]], forgiven: bool) -> list[list[str]]:
    """For each detection and threshold: right, wrong, or not counted."""
    verdicts = [["" for _ in THRESHOLDS] for _ in guesses]
    for t, threshold in enumerate(THRESHOLDS):
        free = set(range(len(truths)))
        for number, guess in enumerate(guesses):
            overlaps = {other: overlap(guess["bbox"], truths[other]) for other in free}
            best = max(overlaps, key=lambda other: overlaps[other], default=None)
            if best is not None and overlaps[best] >= threshold:
                free.discard(best)
                verdicts[number][t] = "right"
            else:
                verdicts[number][t] = "not counted" if forgiven else "wrong"
    return verdicts


def overlap(one: list[float], other: list[float]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def precision(verdicts: list[str], objects: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or beyond."""
    right = np.cumsum([verdict == "right" for verdict in verdicts])
    wrong = np.cumsum([verdict == "wrong" for verdict in verdicts])
    recall, precise = right / objects, right / np.maximum(right + wrong, 1e-9)
    return float(np.mean([max(precise[recall >= wanted], default=0.0) for wanted in RECALLS]))


@pytest.mark.parametrize("seed", range(4))
def test_figures_follow_lvis_rules(seed):
    split, found = scene(seed)
    figures = average_precision(found, split, masks=False)["AP_box"]
    by_class = expected(split, found)
    assert {entry["id"]: entry["AP"] for entry in figures["classes"] if entry["AP"] is not None} == pytest.approx(
        by_class, abs=1e-6
    )
    assert figures["AP"] == pytest.approx(np.mean(list(by_class.values())), abs=1e-6)
    for part, word in (("APr", "r"), ("APc", "c"), ("APf", "f")):
        group = [by_class[number] for number, frequency in CLASSES if frequency == word and number in by_class]
        assert figures[part] == (pytest.approx(np.mean(group), abs=1e-6) if group else None)
    metrics = headline({"AP_box": figures}, split)
    assert {"AP_box", "APf_box"} <= set(metrics) and "AR1_box" not in metrics


def test_the_best_300_of_an_image_count():
    split, found = scene(1)
    image = next(number for number, items in split.annotations.items() if items)
    noise = {"image_id": image, "category_id": 3, "bbox": [100.0, 100.0, 3.0, 3.0]}
    found[image] += [{**noise, "score": 1.5 + number / 1000} for number in range(300)]
    figures = average_precision(found, split, masks=False)["AP_box"]
    assert figures["AP"] == pytest.approx(np.mean(list(expected(split, found).values())), abs=1e-6)
    assert figures["AP"] < average_precision(scene(1)[1], split, masks=False)["AP_box"]["AP"]
