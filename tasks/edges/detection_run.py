"""One cell of detection from end to end: build, train by the suite's engine, predict, measure, draw."""

import json
import logging
from typing import TYPE_CHECKING, cast

from backbones.layers import layer_ids
from mae_bench.core.engine import Training, train
from mae_bench.core.files import write_json, write_text
from mae_bench.core.seeding import seed_all
from tasks.edges.detection_data import TrainImages, eval_images, use_masks
from tasks.edges.detection_eval import average_precision, headline, predict
from tasks.edges.detection_model import Detector, backbone_options, build_detector, decay_exemption
from tasks.edges.detection_pictures import draw

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.run import Run
    from tasks.data.coco import CocoSplit
    from tasks.handle import DataHandle
    from tasks.suite.detection import Config

log = logging.getLogger(__name__)


def evaluate(source: "Source", data: "DataHandle", config: "Config", run: "Run") -> dict[str, float]:
    """See `tasks.suite.detection.evaluate`."""
    train_split, val_split = cast("CocoSplit", data.split("train")), cast("CocoSplit", data.split("val"))
    note_skipped(run, train=train_split, val=val_split)
    masks = use_masks(config, train_split, val_split)
    if not masks:
        log.info("detection without masks: AP_mask is left out")
    backbone = source.build(backbone_options(config, source.spec), seed=run.seed)
    seed_all(run.seed, "detection", "heads")
    model = build_detector(backbone, config, len(train_split.classes), masks=masks)
    key = "-".join(("detection", config.digest(), source.sha256, data.fingerprint, str(run.seed)))
    train(training(model, train_split, config, masks=masks, key=key), run)
    return measure(model, val_split, config, run, masks=masks)


def training(model: Detector, split: "CocoSplit", config: "Config", *, masks: bool, key: str) -> Training:
    """Everything the engine needs to train a detector."""
    layer_id, depth = layer_ids(model)
    return Training(
        model=model,
        dataset=TrainImages(split, config, masks=masks),
        collate=list,
        optim=config.optim,
        schedule=config.schedule,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        steps=config.steps,
        layer_id=layer_id,
        depth=depth,
        no_decay=decay_exemption(model, decay_norms=config.decay_norms),
        key=key,
        title="detection: training",
    )


def measure(model: Detector, split: "CocoSplit", config: "Config", run: "Run", *, masks: bool) -> dict[str, float]:
    """Predict on a split and leave figures by class, predictions and a picture in `run.out`."""
    found = predict(model, eval_images(split, config), run, config.eval_batch_size)
    figures = average_precision(found, split, masks=masks)
    write_json(run.out / "per_class.json", figures)
    results = [{**one, "category_id": split.category_ids[one["category_id"]]} for some in found.values() for one in some]
    write_text(run.out / "predictions.json", json.dumps(results))
    draw(found, split, run.out / "predictions.png", masks=masks)
    return headline(figures, split)


def note_skipped(run: "Run", **splits: "CocoSplit") -> None:
    """Leave the annotations that could not be used in `skipped.jsonl`, and say how many they are."""
    lines = [json.dumps({"split": which, **entry}) + "\n" for which, split in splits.items() for entry in split.skipped]
    if lines:
        write_text(run.out / "skipped.jsonl", "".join(lines))
        log.warning("detection: %d annotations are left out, listed in skipped.jsonl", len(lines))
