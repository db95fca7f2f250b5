"""Predictions on the val split, by all processes together."""

import json
import logging
import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from torch.utils.data import Subset

from mae_bench.core.files import write_json, write_text
from mae_bench.core.samples import in_order
from results.names import PER_CLASS
from tasks.edges.detection_ap import Prediction, average_precision, headline
from tasks.edges.detection_data import Images, eval_images
from tasks.edges.detection_model import Detector
from tasks.edges.detection_pictures import draw

if TYPE_CHECKING:
    from mae_bench.core.run import Run
    from tasks.data.coco import CocoSplit
    from tasks.suite.detection import Config

log = logging.getLogger(__name__)


def measure(model: Detector, split: "CocoSplit", config: "Config", run: "Run", *, masks: bool) -> dict[str, float]:
    """Predict on a split and leave figures by class, predictions and a picture in `run.out`."""
    found, broken = usable(predict(model, eval_images(split, config), run, config.eval_batch_size))
    if broken:
        log.warning("detection: %d predictions whose score or box is no finite number are left out", broken)
    figures = average_precision(found, split, masks=masks, fast=config.evaluator == "fast")
    if comm.is_main_process():
        write_json(run.out / PER_CLASS, figures)
        results = [{**one, "category_id": split.category_ids[one["category_id"]]} for some in found.values() for one in some]
        write_text(run.out / "predictions.json", json.dumps(results))
        draw(found, split, run.out / "predictions.png", masks=masks)
    return headline(figures, split)


@torch.inference_mode()
def predict(model: Detector, images: Images, run: "Run", batch_size: int) -> dict[int, list[Prediction]]:
    """Detections by image id, in pixels of the original images, in fp32 as Detectron2 evaluates.

    Each process predicts its share, and all get the whole.
    """
    model.to(run.device).eval()
    mine = range(comm.get_rank(), len(images), comm.get_world_size())
    share: Any = Subset(images, mine)  # type: ignore[arg-type]  # any map-style data
    found: dict[int, list[Prediction]] = {}
    run.reporter.start("detection: evaluating", len(mine))
    for batch in in_order(share, list, batch_size=batch_size, workers=run.workers):
        for sample, output in zip(batch, model(batch), strict=True):
            found[sample["image_id"]] = instances_to_coco_json(output["instances"].to("cpu"), sample["image_id"])
        run.reporter.advance(len(batch))
    return dict(sorted(chain.from_iterable(part.items() for part in comm.all_gather(found) if part)))


def usable(found: dict[int, list[Prediction]]) -> tuple[dict[int, list[Prediction]], int]:
    """The predictions that have a finite score and box, and how many have not: pycocotools sorts NaN to the front."""
    kept = {image: [one for one in some if all(map(math.isfinite, _numbers(one)))] for image, some in found.items()}
    return kept, sum(map(len, found.values())) - sum(map(len, kept.values()))


def _numbers(one: dict[str, Any]) -> list[float]:
    return [one["score"], *one["bbox"]]
