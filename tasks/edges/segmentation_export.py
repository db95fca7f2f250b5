"""The native config of a recipe: a file that mmsegmentation's own tools train, with the suite's backbone in it."""

from pathlib import Path
from pprint import pformat
from typing import Any

from backbones.adapters.to_mmseg import MaeBenchLayerDecay
from backbones.source import Source
from backbones.upernet import crop_side
from mae_bench.core.errors import ConfigError
from mae_bench.core.files import write_text
from mae_bench.core.optim import OptimConfig
from tasks.data._label_maps import IGNORED
from tasks.edges import segmentation_data as pipelines
from tasks.edges.segmentation_config import Part, segmentor_config
from tasks.edges.segmentation_run import WARMUP_START
from tasks.handle import DataHandle
from tasks.suite.segmentation import Config, dense_options

IMPORTS = ["backbones.adapters.to_mmseg", "tasks.edges.segmentation_linear", "tasks.edges.segmentation_loss"]
ADE20K_CLASSES = 150
VALIDATIONS = 10
"""Times that a training is validated, as mmseg's schedules do (every 16k of 160k steps)."""
HEAD = """# {what} on {source}, written by mae-bench; mmsegmentation's tools/train.py takes it.
# batch_size is that of all processes together: divide it by their number.
"""


def export_native(source: Source, config: Config, path: Path, *, data: DataHandle | None = None) -> None:
    """Write the config of a cell as a file of mmengine's.

    Args:
        source: the backbone; the config names it as it was given.
        config: settings of the task.
        path: the file to write, ending in `.py`.
        data: the data set; ADE20K at mmseg's usual place when not given.

    Raises:
        ConfigError: settings or data that mmengine has no words for.
    """
    if path.suffix != ".py":
        raise ConfigError(f"{path}: a config of mmengine is a .py file; choose such a name")
    if config.weights is not None:
        raise ConfigError(
            "segmentation.weights cannot be written into a config: mmengine would open the file itself; leave it out"
        )
    parts = _parts(source, config, data)
    text = HEAD.format(what="Semantic segmentation", source=source.text)
    write_text(
        path, text + "".join(f"\n{name} = {pformat(value, width=120, sort_dicts=False)}\n" for name, value in parts.items())
    )


def _parts(source: Source, config: Config, data: DataHandle | None) -> Part:
    train, test = _loaders(source, config, data)
    metric = {"type": "IoUMetric", "iou_metrics": ["mIoU"]}
    tta = {"tta_model": {"type": "SegTTAModel"}, "tta_pipeline": _views(source, config)} if _several_views(config) else {}
    return {
        "custom_imports": {"imports": IMPORTS, "allow_failed_imports": False},
        "default_scope": "mmseg",
        "model": _model(source, config, data),
        "train_dataloader": train,
        "val_dataloader": test,
        "test_dataloader": test,
        "val_evaluator": metric,
        "test_evaluator": metric,
        "optim_wrapper": _optimizer(config),
        "param_scheduler": _schedule(config),
        "train_cfg": {
            "type": "IterBasedTrainLoop",
            "max_iters": config.steps,
            "val_interval": max(1, config.steps // VALIDATIONS),
        },
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": max(1, config.steps // VALIDATIONS)}
        },
        "log_processor": {"by_epoch": False},
        **tta,
    }


def _model(source: Source, config: Config, data: DataHandle | None) -> Part:
    dense = dense_options(config, source.spec)
    backbone = {
        "source": source.text,
        "image_size": dense.image_size,
        "drop_path": dense.drop_path,
        "relative_table": dense.relative_table,
        "layer_scale": dense.layer_scale,
    }
    if config.class_balance and data is None:
        raise ConfigError(f"segmentation.class_balance={config.class_balance} counts the pixels of a data set; give one")
    weights = pipelines.class_weights(data.split("train"), config.class_balance) if data else None
    classes = len(data.classes) if data else ADE20K_CLASSES
    return segmentor_config(backbone, source.spec, config, classes, class_weight=weights, distributed=True)


def _loaders(source: Source, config: Config, data: DataHandle | None) -> tuple[Part, Part]:
    side = crop_side(config.image_size, source.spec)
    train, test = _native(pipelines.train_pipeline(config, side)), _native(pipelines.test_pipeline(config, side))
    workers = {"num_workers": 4, "persistent_workers": True}
    return (
        {
            "batch_size": config.batch_size,
            **workers,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {**_dataset(data, "train"), "pipeline": train},
        },
        {
            "batch_size": 1,
            **workers,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": {**_dataset(data, "val"), "pipeline": test},
        },
    )


def _native(pipeline: list[Part]) -> list[Part]:
    """The pipeline with mmseg's own readers in the place of the suite's; what 0 means they are told by the data set."""
    own = {"MaeBenchLoadImage": "LoadImageFromFile", "MaeBenchLoadLabels": "LoadAnnotations"}
    return [{"type": own[step["type"]]} if step["type"] in own else step for step in pipeline]


def _several_views(config: Config) -> bool:
    return len(config.test_scales) > 1 or config.test_flip


def _views(source: Source, config: Config) -> list[Part]:
    _, views = pipelines.test_views(config, crop_side(config.image_size, source.spec))
    sizes = [view[0] for view in views[:: 1 + config.test_flip]]
    flips = [{"type": "RandomFlip", "prob": float(flip), "direction": "horizontal"} for flip in range(1 + config.test_flip)]
    last = [{"type": "LoadAnnotations"}], [{"type": "PackSegInputs"}]
    return [{"type": "LoadImageFromFile"}, {"type": "TestTimeAug", "transforms": [sizes, flips, *last]}]


def _dataset(data: DataHandle | None, which: Any) -> Part:
    folder = {"train": "training", "val": "validation"}[which]
    prefix = {"img_path": f"images/{folder}", "seg_map_path": f"annotations/{folder}"}
    if data is None:
        return {"type": "ADE20KDataset", "data_root": "data/ade/ADEChallengeData2016", "data_prefix": prefix}
    if data.name == "cityscapes":
        prefix = {"img_path": f"leftImg8bit/{which}", "seg_map_path": f"gtFine/{which}"}
        return {"type": "CityscapesDataset", "data_root": str(data.root), "data_prefix": prefix}
    if data.name == "coco_stuff":
        prefix = {"img_path": f"images/{which}2017", "seg_map_path": f"annotations/{which}2017"}
        return {"type": "COCOStuffDataset", "data_root": str(data.root), "data_prefix": prefix}
    if data.name != "ade20k":
        raise ConfigError(
            f"data set {data.name} has no counterpart in mmsegmentation; export with ade20k, cityscapes or coco_stuff"
        )
    return _folder(data, which)


def _folder(data: DataHandle, which: Any) -> Part:
    split = data.split(which)
    suffixes = {image.suffix for image, _ in split.pairs}
    if len(suffixes) > 1:
        raise ConfigError(f"{data.root}: mmsegmentation takes images of one suffix, and there are {', '.join(sorted(suffixes))}")
    image, label_map = split.pairs[0]
    return {
        "type": "BaseSegDataset",
        "metainfo": {"classes": split.classes, **({"palette": split.palette} if split.palette else {})},
        "data_prefix": {"img_path": str(image.parent), "seg_map_path": str(label_map.parent)},
        "img_suffix": suffixes.pop(),
        "seg_map_suffix": label_map.suffix,
        "reduce_zero_label": split.lookup[0] == IGNORED,
    }


def _optimizer(config: Config) -> Part:
    optimizer = {"type": "AdamW", "lr": config.lr, "betas": OptimConfig(lr=1).betas, "weight_decay": config.weight_decay}
    if config.exempt == "1d":
        keys: Part = {"layer_decay_rate": config.layer_decay}
        return {"type": "OptimWrapper", "optimizer": optimizer, "constructor": MaeBenchLayerDecay.__name__, "paramwise_cfg": keys}
    if config.layer_decay != 1.0:
        raise ConfigError("segmentation.exempt=positions with a layer decay cannot be written for mmengine; set exempt=1d")
    keys = {"custom_keys": {name: {"decay_mult": 0.0} for name in ("pos_embed", "cls_token")}}
    return {"type": "OptimWrapper", "optimizer": optimizer, "paramwise_cfg": keys}


def _schedule(config: Config) -> list[Part]:
    """See `segmentation_run.MmengineSchedule`; mmengine takes no warm-up without a step of its own."""
    warmup = {"type": "LinearLR", "start_factor": WARMUP_START, "by_epoch": False, "begin": 0, "end": config.warmup_steps}
    decay = {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "begin": config.warmup_steps, "end": config.steps, "by_epoch": False}
    return [warmup, decay] if config.warmup_steps else [decay]
