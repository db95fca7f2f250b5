"""One cell of detection from end to end: build, train by the suite's engine, predict, measure, draw."""

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, cast

from backbones.layers import layer_ids
from mae_bench.core import processes
from mae_bench.core.engine import Training, train
from mae_bench.core.errors import ConfigError
from mae_bench.core.files import write_text
from mae_bench.core.parallel import join
from mae_bench.core.samples import FILE, read_lines
from tasks.common.readable import read_through
from tasks.common.train import check_whole, seeded, training_key
from tasks.edges.detection_ap import check_evaluator
from tasks.edges.detection_data import Images, TrainImages, class_weights, use_masks
from tasks.edges.detection_eval import measure
from tasks.edges.detection_load import load_detector
from tasks.edges.detection_model import Detector, build_detector, decay_exemption
from tasks.suite.detection import dense_options

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.run import Run
    from tasks.data.coco import CocoSplit
    from tasks.handle import DataHandle
    from tasks.suite.detection import Config

log = logging.getLogger(__name__)


def evaluate(source: "Source", data: "DataHandle", config: "Config", run: "Run") -> dict[str, float]:
    """See `tasks.suite.detection.evaluate`."""
    check_whole("detection", run)
    config = _local(config.scaled(), run)
    train_split, val_split = cast("CocoSplit", data.split("train")), cast("CocoSplit", data.split("val"))
    check_evaluator(val_split, fast=config.evaluator == "fast")
    masks = use_masks(config, train_split, val_split)
    if masks:
        train_split, val_split = train_split.masked(), val_split.masked()
    note_skipped(run, train=train_split, val=val_split)
    if not masks:
        log.info("detection without masks: figures of masks are left out")
    model = build(source, train_split, config, run, masks=masks)
    key = training_key(source, data, config, run)
    if config.weights is not None:
        key += f"-{load_detector(model, config.weights)}"
    if config.steps:
        read_through(Images(val_split, []), run, "detection")
        train(training(model, train_split, config, masks=masks, key=key), run)
    else:
        join(run)
    return measure(model, val_split, config, run, masks=masks)


def build(source: "Source", split: "CocoSplit", config: "Config", run: "Run", *, masks: bool) -> Detector:
    """The detector of a cell before training.

    Raises:
        ConfigError: the settings ask for what this kind of network does not have.
    """
    options = dense_options(config, source.spec)
    try:
        backbone = source.build(options, seed=run.seed)
    except ValueError as error:
        raise ConfigError(f"detection on {source.spec.name}: {error}") from error
    wanted = options.patch_size or source.spec.patch_size
    if backbone.spec.patch_size != wanted:
        raise ConfigError(
            f"detection needs {source.spec.name} with patches of {wanted} pixels, which this kind cannot be built with"
        )
    weights = partial(class_weights, split, config.head.federated_power)
    return seeded(
        partial(build_detector, backbone, config, len(split.classes), masks=masks, class_weights=weights),
        run,
    )


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
        drop_last=False,  # Detectron2's TrainingSampler runs on from one epoch into the next
        split_unit=0 if config.head.norm in ("BN", "SyncBN") else 1,
    )


def note_skipped(run: "Run", **splits: "CocoSplit") -> None:
    """Name the annotations that could not be used in `skipped.jsonl`, and say how many they are.

    Lines of others, such as images that a training now resumed could not read, stay; a line that a kill has cut goes.
    """
    mine = [{"split": which, **entry, "by": "annotations"} for which, split in splits.items() for entry in split.skipped]
    if mine:
        log.warning("detection: %d annotations are left out, listed in %s", len(mine), FILE)
    path = run.out / FILE
    if processes.is_main() and (mine or path.exists()):
        others = [line for line in read_lines(path) if line.get("by") != "annotations"]
        write_text(path, "".join(f"{json.dumps(line)}\n" for line in [*others, *mine]))


def _local(config: "Config", run: "Run") -> "Config":
    """Plain batch norms in place of synchronised ones where there is nothing to synchronise, which torch refuses on a CPU."""
    if config.head.norm != "SyncBN" or (run.device != "cpu" and processes.world() > 1):
        return config
    return config.model_copy(update={"head": config.head.model_copy(update={"norm": "BN"})})
