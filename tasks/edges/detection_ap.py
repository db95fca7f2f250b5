"""COCO's and LVIS' figures of predictions, by pycocotools or by faster-coco-eval."""

import importlib
import io
import logging
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np

from mae_bench.core import find
from mae_bench.core.errors import InputError
from tasks.suite.detection import PARTS, metric_name

if TYPE_CHECKING:
    from tasks.data.coco import CocoSplit

log = logging.getLogger(__name__)

KINDS = {"box": "bbox", "mask": "segm"}
"""The tools' word for each kind of average precision."""
COCO_PARTS = PARTS[:12]
"""What `summarize` of pycocotools gives, in its order."""
LVIS_PARTS = {
    "AP": "AP_all",
    "AP50": "AP_50",
    "AP75": "AP_75",
    **{f"{kind}{size[0]}": f"{kind}_{size}" for kind in ("AP", "AR") for size in ("small", "medium", "large")},
    **{part: part for part in PARTS[12:]},
}
"""The words of faster-coco-eval for LVIS' figures."""
LVIS_DETECTIONS = 300
"""The best of an image that LVIS counts (arXiv 1908.03195, and its tools)."""
NONE = -1
"""What the tools write where the truth has nothing to find."""

Prediction = dict[str, Any]
"""One detection in COCO's results format; `category_id` is the class number, not the data set's id."""


def check_evaluator(split: "CocoSplit", *, fast: bool) -> None:
    """See that the program that counts is there, before anything is trained.

    Raises:
        EnvironmentFault: faster-coco-eval is asked for and not installed.
    """
    _tools(fast=fast or split.federated)


def average_precision(
    found: dict[int, list[Prediction]], split: "CocoSplit", *, masks: bool, fast: bool = False
) -> dict[str, dict[str, Any]]:
    """The figures of COCO, or of LVIS where the split is federated, in percent.

    Args:
        found: detections by image id, with class numbers.
        split: the truth.
        masks: whether masks are measured beside boxes.
        fast: count with faster-coco-eval, which gives the same numbers.

    Returns:
        For `AP_box` and `AP_mask`: the values of `PARTS`, and in `classes` the AP of each class. A value is None where the truth
        has nothing to find; without any detection all others are 0.
    """
    fast = fast or split.federated
    results = [{**one, "category_id": split.category_ids[one["category_id"]]} for one in _counted(found, split)]
    figures = {}
    with redirect_stdout(io.StringIO()) as printed:  # the tools print
        whole = split.as_json()
        # Copies: the tools put masks of their own into the annotations.
        truth = _opened({**whole, "annotations": [dict(one) for one in whole["annotations"]]}, fast=fast)
        for kind in KINDS if masks else ("box",):
            figures[metric_name("AP", kind)] = _figures(_evaluated(truth, results, KINDS[kind], split, fast=fast), split)
    log.info("%s", printed.getvalue())
    return figures


def headline(figures: dict[str, dict[str, Any]], split: "CocoSplit") -> dict[str, float]:
    """The metrics of the record: all figures that have a value.

    Raises:
        InputError: there is nothing in the truth that could be found.
    """
    kinds = {metric_name("AP", kind): kind for kind in KINDS}
    metrics = {
        metric_name(part, kinds[name]): values[part]
        for part in PARTS
        for name, values in figures.items()
        if values.get(part) is not None
    }
    if not metrics:
        raise InputError(f"{split.json_path}: no object to find, so that AP has no value; annotate the val split")
    return metrics


def _counted(found: dict[int, list[Prediction]], split: "CocoSplit") -> list[Prediction]:
    """Copies of what is counted: all, and for LVIS the best of each image."""
    most = LVIS_DETECTIONS if split.federated else None
    best = [sorted(some, key=lambda one: -one["score"])[:most] if most else some for some in found.values()]
    return [dict(one) for some in best for one in some]


def _tools(*, fast: bool) -> tuple[Any, Any]:
    """The classes that hold annotations and that count."""
    if not fast:
        return importlib.import_module("pycocotools.coco").COCO, importlib.import_module("pycocotools.cocoeval").COCOeval
    try:
        tools = importlib.import_module("faster_coco_eval")
    except ModuleNotFoundError as error:
        raise find.missing(error, "counting LVIS, or detection.evaluator=fast,") from error
    return tools.COCO, tools.COCOeval_faster


def _opened(content: dict[str, Any], *, fast: bool) -> Any:
    api = _tools(fast=fast)[0]()
    api.dataset = content
    api.createIndex()
    return api


def _evaluated(truth: Any, results: list[Prediction], kind: str, split: "CocoSplit", *, fast: bool) -> Any:
    # Without the box, the size of a mask is the number of its pixels, as Detectron2 has it.
    left_out = () if kind == "bbox" else ("bbox",)
    copies = [{key: value for key, value in one.items() if key not in left_out} for one in results]
    guesses = truth.loadRes(copies) if copies else _opened({**truth.dataset, "annotations": []}, fast=fast)
    options = {"lvis_style": True} if split.federated else {}
    evaluation = _tools(fast=fast)[1](truth, guesses, kind, **options)
    if split.federated:
        evaluation.params.maxDets = [LVIS_DETECTIONS]
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    return evaluation


def _figures(evaluation: Any, split: "CocoSplit") -> dict[str, Any]:
    if split.federated:
        found = {part: evaluation.stats_as_dict[name] for part, name in LVIS_PARTS.items()}
    else:
        found = dict(zip(COCO_PARTS, evaluation.stats[:12], strict=True))
    # (IoU thresholds, recalls, classes, areas, most detections)
    precision = np.asarray(evaluation.eval["precision"])
    by_class = [_percent(precision[:, :, label, 0, -1]) for label in range(len(split.classes))]
    names = zip(split.category_ids, split.classes, by_class, strict=True)
    classes = [{"id": number, "name": name, "AP": value} for number, name, value in names]
    return {part: None if value == NONE else 100 * float(value) for part, value in found.items()} | {"classes": classes}


def _percent(precision: np.ndarray) -> float | None:
    known = precision[precision > NONE]
    return float(100 * known.mean()) if known.size else None
