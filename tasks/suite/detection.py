"""Object detection and instance segmentation: ViTDet's Mask R-CNN (arXiv 2203.16527) of Detectron2, trained by the suite.

`paper`, `paper-large` and `paper-huge` are the recipes of Detectron2's released ViT-B, ViT-L and ViT-H on COCO, `paper-cascade*`
those with Cascade Mask R-CNN, `paper-lvis*` those on LVIS. `paper-mae` and `paper-mae-large` are the unreleased protocol behind
the COCO table of the MAE paper (arXiv 2111.11429), as far as it is stated.
"""

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from mae_bench.core import find
from results.names import PER_CLASS
from tasks.contract import Metric
from tasks.suite._detection_config import Config, HeadConfig
from tasks.suite._detection_recipes import ABOUT, DEVIATIONS_OF, RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backbones.contract import BackboneSpec, DenseOptions
    from backbones.source import Source
    from mae_bench.core.run import Run
    from tasks.handle import DataHandle

__all__ = [
    "ABOUT",
    "DEVIATIONS",
    "DEVIATIONS_OF",
    "METRICS",
    "RECIPES",
    "Config",
    "HeadConfig",
    "by_class",
    "deviations",
    "evaluate",
    "export_native",
]

PARTS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "APr", "APc", "APf")
"""COCO's twelve figures: average precision over IoU 0.50 to 0.95, at 0.50, at 0.75, and of small, medium and large objects;
average recall with 1, 10 and 100 detections an image, and by size. Then LVIS' three: of rare, common and frequent classes."""


def metric_name(part: str, kind: str) -> str:
    """Name of a figure: `AP_box`, `AP50_mask`, ..."""
    return f"{part}_{kind}"


METRICS = tuple(Metric(metric_name(part, kind)) for part in PARTS for kind in ("box", "mask"))
KIND = "detection"
REQUIRES = ("detectron2", "fvcore", "pycocotools", "shapely")
SELECTION = "last step"

DEVIATIONS: tuple[str, ...] = (
    "bf16 on a GPU unless --precision says otherwise; ViTDet trains in fp16 with scaled gradients and exchanges them in fp16",
    "images of a batch are not grouped by aspect ratio; Detectron2 groups those of each GPU, which have one each in ViTDet",
    "annotations that cannot be used (boxes that are empty or not finite, broken masks) are left out and listed",
)
"""Where all `paper` recipes differ from those they are named after; every record of them says so."""
NORM_BATCH = 64
"""Images that synchronised batch norms see in arXiv 2111.11429: the whole batch."""
VITDET_PATCH = 16
"""Side in pixels of the patches of its ViTs; ViT-H/14 is resampled to it."""


def dense_options(config: Config, spec: "BackboneSpec") -> "DenseOptions":
    """What the settings ask of a backbone of this depth and patch size; see `tasks.contract.Task`."""
    from backbones import vitdet

    return vitdet.dense_options(
        spec,
        (config.image_size, config.image_size),
        window=config.window,
        global_layers=vitdet.spread_layers(spec.depth, config.global_blocks),
        rel_pos=config.rel_pos,
        drop_path=config.drop_path,
        checkpointing=config.checkpointing,
    )


def deviations(recipe: str, config: Config, source: "Source", run: "Run") -> tuple[str, ...]:
    """What of this very cell differs from the recipe's own words, and which detector it began from."""
    from mae_bench.core import processes
    from mae_bench.core.samples import FILE, read_lines
    from tasks.common.deviations import other_size
    from tasks.common.weights import begun_with

    found: list[str] = []
    if recipe.startswith("paper"):
        size = recipe.rpartition("-")[2]
        found += other_size(source, recipe, like=f"paper-{size}" if size in ("large", "huge") else "paper")
        found += _unlike_vitdet(config, source.spec, run.out)
    if config.steps and config.head.norm in ("BN", "SyncBN"):
        apart = processes.world() if config.head.norm == "BN" or run.device == "cpu" else 1
        images = config.scaled().batch_size // config.accumulate // apart
        if images != NORM_BATCH:
            found.append(f"batch norms see {images} images at once; {NORM_BATCH} in arXiv 2111.11429")
    left_out = Counter(line["split"] for line in read_lines(run.out / FILE) if line.get("by") == "annotations")
    if left_out:
        told = " and ".join(f"{count} of {which}" for which, count in left_out.items())
        found.append(f"annotations left out: {told}, named in {FILE}")
    if config.weights is not None:
        found.append(f"the detector began as {config.weights}, sha256 {begun_with(config.weights)}")
    return tuple(found)


def _unlike_vitdet(config: Config, spec: "BackboneSpec", out: "Path") -> "Iterator[str]":
    """What is otherwise than in ViTDet, where each of 64 processes has one image a step and the patches are of 16 pixels."""
    from backbones import vitdet
    from mae_bench.core import processes

    images = config.scaled().batch_size // config.accumulate // processes.world()
    if config.steps and images != 1:
        if _learns_masks(config, out):
            yield f"the mask loss is averaged over the masks of {images} images at once; of 1 in ViTDet"
        if config.head.federated_classes:
            yield f"federated classes are drawn for {images} images at once; for 1 in ViTDet"
    patch = vitdet.fitting_patch(spec.patch_size)
    if config.head.pyramid == "simple" and patch != VITDET_PATCH:
        from backbones.adapters.to_detectron2 import pyramid_strides

        strides, scales = pyramid_strides(patch), config.head.anchor_scales
        sides = f"{min(scales) * strides[0]:g} to {max(scales) * strides[-1]:g}"
        levels = f"strides {strides[0]} to {strides[-1]} and anchors of {sides} px"
        yield f"patches of {patch} pixels give the pyramid {levels}; 4 to 64 and 32 to 512 px in ViTDet"


def _learns_masks(config: Config, out: "Path") -> bool:
    """Whether a cell that has been measured has masks, which the data may decide."""
    if config.masks is not None:
        return config.masks
    path = out / PER_CLASS
    return not path.exists() or metric_name("AP", "mask") in json.loads(path.read_text(encoding="utf-8"))


def evaluate(source: "Source", data: "DataHandle", config: Config, run: "Run") -> dict[str, float]:
    """Fine-tune a detector on the train split and measure average precision on the val split, in percent.

    Leaves `per_class.json`, `predictions.json` (COCO's results format) and `predictions.png` in `run.out`. A figure that the data
    has no objects for is left out.

    Raises:
        ConfigError: settings that this backbone or data set cannot have.
        EnvironmentFault: a package is missing.
        InputError: data or weights that cannot be used.
    """
    try:
        from tasks.edges import detection_run
    except ModuleNotFoundError as error:
        raise find.missing(error, "task detection") from error
    return detection_run.evaluate(source, data, config, run)


def by_class(out: "Path") -> list[tuple[str, dict[str, float | None]]]:
    """Name and AP of each class in label order, from the folder of a cell; None where the truth has no such object."""
    figures = json.loads((out / PER_CLASS).read_text(encoding="utf-8"))
    names = [entry["name"] for entry in next(iter(figures.values()))["classes"]]
    return [
        (name, {metric: values["classes"][label]["AP"] for metric, values in figures.items()}) for label, name in enumerate(names)
    ]


def export_native(source: "Source", config: Config, path: "Path", *, handle: "DataHandle | None" = None, **options: Any) -> None:
    """Write a cell's LazyConfig of Detectron2, for the data of `handle`.

    Without it, `options` are the names and numbers that `tasks.edges.detection_export.export_native` takes in its place.

    Raises:
        ConfigError: settings that Detectron2 has no words for.
        EnvironmentFault: a package is missing.
    """
    try:
        from tasks.edges import detection_export
    except ModuleNotFoundError as error:
        raise find.missing(error, "task detection") from error
    detection_export.export_native(source, config, path, handle=handle, **options)
