"""Predictions on the val split, and COCO's average precision of them by Detectron2's evaluator over pycocotools."""

import io
import json
import logging
import math
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from pycocotools.cocoeval import COCOeval

from mae_bench.core.errors import InputError
from tasks.edges.detection_data import Images, objects
from tasks.edges.detection_model import Detector, autocast

if TYPE_CHECKING:
    from mae_bench.core.run import Run
    from tasks.data.coco import CocoSplit

log = logging.getLogger(__name__)

METRIC_OF = {"bbox": "AP_box", "segm": "AP_mask"}
PARTS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""AP over IoU 0.50 to 0.95, at 0.50, at 0.75, and of small, medium and large objects."""

Prediction = dict[str, Any]
"""One detection in COCO's results format; `category_id` is the class number, not the data set's id."""


@torch.inference_mode()
def predict(model: Detector, images: Images, run: "Run", batch_size: int) -> dict[int, list[Prediction]]:
    """Detections by image id, in pixels of the original images."""
    model.eval()
    found: dict[int, list[Prediction]] = {}
    run.reporter.start("detection: evaluating", len(images))
    for first in range(0, len(images), batch_size):
        batch = [images[index] for index in range(first, min(first + batch_size, len(images)))]
        with autocast(run.device, run.precision):
            outputs = model(batch)
        for sample, output in zip(batch, outputs, strict=True):
            found[sample["image_id"]] = instances_to_coco_json(output["instances"].to("cpu"), sample["image_id"])
        run.reporter.advance(len(batch))
    return found


def average_precision(found: dict[int, list[Prediction]], split: "CocoSplit", *, masks: bool) -> dict[str, dict[str, Any]]:
    """COCO's figures in percent.

    Args:
        found: detections by image id, with class numbers.
        split: the truth.
        masks: whether masks are measured beside boxes.

    Returns:
        For `AP_box` and `AP_mask`: the values of `PARTS`, and in `classes` the AP of each class.
        A value is None where the truth has nothing to find; without any detection all others are 0.
    """
    kinds = ["bbox", "segm"] if masks else ["bbox"]
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.json"
        truth.write_text(json.dumps(split.as_json()))
        results = _evaluate(found, split, truth, kinds)
    return {METRIC_OF[kind]: results[kind] for kind in kinds}


def headline(figures: dict[str, dict[str, Any]], split: "CocoSplit") -> dict[str, float]:
    """The metrics of the record: COCO's AP of each kind.

    Raises:
        InputError: there is nothing in the truth that could be found.
    """
    metrics = {name: values["AP"] for name, values in figures.items() if values["AP"] is not None}
    if not metrics:
        raise InputError(f"{split.json_path}: no object to find, so that AP has no value; annotate the val split")
    return metrics


class _Evaluator(COCOEvaluator):
    """Detectron2's evaluator, of which pycocotools' own object is kept for the figures by class."""

    def __init__(self, dataset: str, kinds: list[str]) -> None:
        super().__init__(dataset, tasks=kinds, distributed=False, use_fast_impl=False)
        self.evaluations: dict[str, COCOeval | None] = {}

    def _derive_coco_results(self, coco_eval: COCOeval | None, iou_type: str, class_names: Any = None) -> dict[str, float]:
        self.evaluations[iou_type] = coco_eval
        if coco_eval is None:
            return {}
        return super()._derive_coco_results(coco_eval, iou_type)


def _evaluate(found: dict[int, list[Prediction]], split: "CocoSplit", truth: Path, kinds: list[str]) -> dict[str, dict[str, Any]]:
    name = f"mae-bench-{uuid4().hex}"
    numbers = {category: index for index, category in enumerate(split.category_ids)}
    MetadataCatalog.get(name).set(json_file=str(truth), thing_dataset_id_to_contiguous_id=numbers)
    summary = io.StringIO()
    try:
        with redirect_stdout(summary):  # pycocotools prints
            evaluator = _Evaluator(name, kinds)
            evaluator.reset()
            # Copies, since the data set's category ids are put into them in place.
            copies = {image: [dict(one) for one in some] for image, some in found.items()}
            evaluator._predictions = [{"image_id": image, "instances": some} for image, some in copies.items()]
            results = evaluator.evaluate()
    finally:
        MetadataCatalog.remove(name)
    log.info("%s", summary.getvalue())
    return {kind: _figures(results[kind], evaluator.evaluations[kind], split) for kind in kinds}


def _figures(results: dict[str, float], evaluation: COCOeval | None, split: "CocoSplit") -> dict[str, Any]:
    if evaluation is None:
        present = {truth["category_id"] for image in split.images for truth in objects(split, image["id"])}
        whole = dict.fromkeys(PARTS, 0.0 if present else None)
        by_class = [0.0 if category in present else None for category in split.category_ids]
    else:
        whole = {part: None if math.isnan(results[part]) else results[part] for part in PARTS}
        # (IoU thresholds, recalls, classes, areas, most detections); -1 where a class has no object.
        precision = evaluation.eval["precision"]
        by_class = [_percent(precision[:, :, label, 0, -1]) for label in range(len(split.classes))]
    names = zip(split.category_ids, split.classes, by_class, strict=True)
    return whole | {"classes": [{"id": number, "name": name, "AP": value} for number, name, value in names]}


def _percent(precision: np.ndarray) -> float | None:
    known = precision[precision > -1]
    return float(100 * known.mean()) if known.size else None
