"""A cell of detection as a config of Detectron2's own, to be trained by its `tools/lazyconfig_train_net.py`."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.config import LazyCall
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from detectron2.data.detection_utils import get_fed_loss_cls_weights
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.evaluation import COCOEvaluator, LVISEvaluator
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    PolynomialDecayParamScheduler,
)

from backbones.adapters.to_detectron2 import open_backbone, optimizer_params
from backbones.vitdet import spread_layers
from mae_bench.core.errors import ConfigError
from mae_bench.core.files import write_text
from tasks.edges.detection_data import mask_format, use_masks
from tasks.edges.detection_heads import Tree
from tasks.edges.detection_model import model_tree
from tasks.edges.detection_source import Writer

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.schedule import ScheduleConfig
    from tasks.data.coco import CocoSplit
    from tasks.handle import DataHandle
    from tasks.suite.detection import Config

HEADER = '''"""Detection of {name} by the suite's settings, for Detectron2's tools/lazyconfig_train_net.py.

mae-bench has to be installed beside Detectron2: the backbone comes from it. Precision, checkpoints and logs are Detectron2's.
"""
'''

LVIS = "lvis_v1"
"""How names of data sets begin that Detectron2 takes for LVIS."""

TRAIN: dict[str, Any] = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "amp": {"enabled": True},
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": True},
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda",
}
"""configs/common/train.py of Detectron2 as mask_rcnn_vitdet_b_100ep.py changes it."""


REGISTRATION = """for name, json_file, image_root in {places}:
    if name not in DatasetCatalog.list():
        {register}(name, {facts}, json_file, image_root)
"""


def export_native(
    source: "Source",
    config: "Config",
    path: Path,
    *,
    handle: "DataHandle | None" = None,
    num_classes: int = 80,
    masks: bool = True,
    data: str = "coco_2017",
) -> None:
    """Write the LazyConfig of a cell: `model`, `optimizer`, `lr_multiplier`, `dataloader` and `train`.

    How a step is cut into micro-batches is no setting of Detectron2; a GPU takes its share of the batch at once.

    Args:
        source: the checkpoint; it is opened again, by its text, when the config is built.
        config: the task's settings.
        path: a `.py` file.
        handle: the data of the cell, which the config then registers; the other arguments follow it. Annotations that the suite
            leaves out are in its files.
        num_classes: of objects; 1203 for LVIS.
        masks: whether there is a mask head.
        data: registered names of Detectron2 without `_train` and `_val`: `coco_2017`, `lvis_v1`, or one of the user's own.

    Raises:
        ConfigError: settings that Detectron2 has no words for.
    """
    config = config.scaled()
    if config.weights is not None:
        raise ConfigError("weights=FILE is train.init_checkpoint in Detectron2; export without it")
    writer, registration, kind = Writer(), "", "polygon"
    if handle is not None:
        splits: dict[str, CocoSplit] = {which: handle.split(which) for which in ("train", "val")}
        num_classes, masks = len(splits["train"].classes), use_masks(config, *splits.values())
        kind = mask_format(splits["train"].masked()) if masks else kind
        data = f"{LVIS if splits['train'].federated else 'mae_bench'}_{handle.name}"
        registration = _registration(splits, data, writer)
    parts = {
        "dataloader": dataloader(config, data, masks=kind if masks else None),
        "model": model(source, config, num_classes, masks=masks, data=data),
        "optimizer": optimizer(config),
        "lr_multiplier": multiplier(config.schedule, config.steps),
        "train": {**TRAIN, "max_iter": config.steps},
    }
    body = [f"{name} = {writer.text(value)}\n" for name, value in parts.items()]
    writer.imports.add("from detectron2.config import LazyCall as L")
    imports = "\n".join(sorted(writer.imports))
    write_text(path, "\n".join([HEADER.format(name=source.name), imports, "", registration, *body]).rstrip() + "\n")


def _registration(splits: "Mapping[str, CocoSplit]", data: str, writer: Writer) -> str:
    """Lines that make Detectron2 know the data."""
    lvis = splits["train"].federated
    # Detectron2 puts the folder and the name of an image of LVIS together without a slash.
    roots = {which: f"{split.image_root}/" if lvis else str(split.image_root) for which, split in splits.items()}
    places = [(f"{data}_{which}", str(split.json_path), roots[which]) for which, split in splits.items()]
    register = "register_lvis_instances" if lvis else "register_coco_instances"
    names = [register, "get_lvis_instances_meta"] if lvis else [register]
    writer.imports |= {
        f"from detectron2.data.datasets import {', '.join(sorted(names))}",
        "from detectron2.data import DatasetCatalog",
    }
    facts = f'get_lvis_instances_meta("{LVIS}")' if lvis else "{}"
    return REGISTRATION.format(places=writer.text([list(place) for place in places]), register=register, facts=facts)


def model(source: "Source", config: "Config", num_classes: int, *, masks: bool, data: str) -> Tree:
    """The detector with a backbone that is read when it is built."""
    backbone = LazyCall(open_backbone)(
        source=source.text,
        image_size=[config.image_size, config.image_size],
        window=config.window,
        global_layers=list(spread_layers(source.spec.depth, config.global_blocks)),
        rel_pos=config.rel_pos,
        drop_path=config.drop_path,
        checkpointing=config.checkpointing,
    )
    power = config.head.federated_power
    weights = functools.partial(get_fed_loss_cls_weights, dataset_names=f"{data}_train", freq_weight_power=power)
    return model_tree(config, source.spec, num_classes, backbone=backbone, masks=masks, class_weights=weights)


def optimizer(config: "Config") -> Tree:
    """AdamW over Detectron2's groups, with the rate that the depth demands.

    Raises:
        ConfigError: another optimizer, or clipped gradients, which Detectron2 sets elsewhere.
    """
    optim = config.optim
    if optim.name != "adamw" or optim.clip_grad is not None:
        raise ConfigError("only AdamW without clipping is written for Detectron2")
    spared = {} if config.decay_norms else {"pos_embed": {"weight_decay": 0.0}}
    norms = optim.weight_decay if config.decay_norms else 0.0
    params = LazyCall(optimizer_params)(
        layer_decay=optim.layer_decay,
        base_lr=optim.lr,
        weight_decay=optim.weight_decay,
        weight_decay_norm=norms,
        overrides=spared,
    )
    return LazyCall(torch.optim.AdamW)(params=params, lr=optim.lr, betas=list(optim.betas), weight_decay=optim.weight_decay)


def multiplier(schedule: "ScheduleConfig", steps: int) -> Tree:
    """The schedule in fvcore's words."""
    warmup = schedule.warmup_steps / steps
    if schedule.kind == "multistep":
        values = [schedule.gamma**drops for drops in range(len(schedule.milestones) + 1)]
        drops = LazyCall(MultiStepParamScheduler)(values=values, milestones=list(schedule.milestones), num_updates=steps)
        return LazyCall(WarmupParamScheduler)(scheduler=drops, warmup_length=warmup, warmup_factor=schedule.warmup_start)
    decays = {
        "constant": LazyCall(LinearParamScheduler)(
            start_value=1.0, end_value=1.0
        ),  # fvcore's constant one fails after the last step
        "cosine": LazyCall(CosineParamScheduler)(start_value=1.0, end_value=schedule.end),
        "poly": LazyCall(PolynomialDecayParamScheduler)(base_value=1.0, power=schedule.power),
    }
    if schedule.kind == "poly" and schedule.end:
        raise ConfigError("a polynomial schedule that does not end at 0 has no word in Detectron2")
    if not warmup:
        return decays[schedule.kind]
    return LazyCall(CompositeParamScheduler)(
        schedulers=[LazyCall(LinearParamScheduler)(start_value=schedule.warmup_start, end_value=1.0), decays[schedule.kind]],
        lengths=[warmup, 1 - warmup],
        interval_scaling=["rescaled", "rescaled"],
    )


def dataloader(config: "Config", data: str, *, masks: str | None) -> dict[str, Tree]:
    """Loaders and evaluator by Detectron2's registered names; `masks` is its word for how they are kept, None for none."""
    side, lvis = config.image_size, data.startswith(LVIS)
    flip = [LazyCall(T.RandomFlip)(prob=config.flip, horizontal=True)] if config.flip else []
    scale, crop = config.scale, [side, side]
    views = [
        *flip,
        LazyCall(T.ResizeScale)(min_scale=scale[0], max_scale=scale[1], target_height=side, target_width=side),
        LazyCall(T.FixedSizeCrop)(crop_size=crop, pad=False),
    ]
    learned = masks is not None
    mapper = LazyCall(DatasetMapper)(
        is_train=True, augmentations=views, image_format="RGB", use_instance_mask=learned, recompute_boxes=learned
    )
    if masks == "bitmask":
        mapper.instance_mask_format = masks
    train: dict[str, Any] = {
        "dataset": LazyCall(get_detection_dataset_dicts)(names=f"{data}_train"),
        "mapper": mapper,
        "total_batch_size": config.batch_size,
        "num_workers": 4,
    }
    if config.repeat_threshold:
        factors = LazyCall(RepeatFactorTrainingSampler.repeat_factors_from_category_frequency)(
            dataset_dicts="${dataloader.train.dataset}", repeat_thresh=config.repeat_threshold
        )
        train["sampler"] = LazyCall(RepeatFactorTrainingSampler)(repeat_factors=factors)
    view = LazyCall(T.ResizeShortestEdge)(short_edge_length=side, max_size=side)
    test = LazyCall(build_detection_test_loader)(
        dataset=LazyCall(get_detection_dataset_dicts)(names=f"{data}_val", filter_empty=False),
        mapper=LazyCall(DatasetMapper)(is_train=False, augmentations=[view], image_format="RGB"),
        batch_size=config.eval_batch_size,
        num_workers=4,
    )
    how = {"max_dets_per_image": config.head.detections} if lvis else {"use_fast_impl": config.evaluator == "fast"}
    evaluator = LazyCall(LVISEvaluator if lvis else COCOEvaluator)(dataset_name=f"{data}_val", **how)
    return {"train": LazyCall(build_detection_train_loader)(**train), "test": test, "evaluator": evaluator}
