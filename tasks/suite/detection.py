"""Object detection and instance segmentation: ViTDet's Mask R-CNN (arXiv 2203.16527) of Detectron2, trained by the suite.

`paper` is the recipe of Detectron2's released ViT-B (COCO, 100 epochs), `paper-large` and `paper-huge` those of its ViT-L and
ViT-H. They are not the searched, unreleased ones behind the COCO table of the MAE paper (arXiv 2111.11429), which differ in
pyramid, norm and schedule.
"""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from mae_bench.core import config as core
from mae_bench.core import find
from mae_bench.core.optim import OptimConfig
from mae_bench.core.schedule import ScheduleConfig
from tasks.contract import Metric

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.run import Run
    from tasks.handle import DataHandle

METRICS = (Metric("AP_box"), Metric("AP_mask"))
KIND = "detection"
REQUIRES = ("detectron2", "fvcore", "pycocotools", "shapely")
SELECTION = "last step"


class HeadConfig(core.Config):
    """Everything above the backbone; the defaults are Detectron2's `mask_rcnn_vitdet.py` over `mask_rcnn_fpn.py`."""

    channels: int = Field(default=256, ge=4)
    """Width of every pyramid level."""
    norm: Literal["LN", "GN", "BN", "SyncBN"] = "LN"
    """Norm of the convolutions of the pyramid, the box head and the mask head, by Detectron2's name."""
    anchor_scales: tuple[float, ...] = Field(default=(8.0,), min_length=1)
    """Sides of the anchors in strides of their level: 32 px at stride 4, 512 px at stride 64."""
    aspect_ratios: tuple[float, ...] = Field(default=(0.5, 1.0, 2.0), min_length=1)
    """Of the anchors, height over width."""
    rpn_convs: int = Field(default=2, ge=1)
    """3x3 convolutions before the proposals."""
    rpn_anchors: int = Field(default=256, ge=2)
    """Anchors an image that the proposal loss is taken of, half of them positive at most."""
    proposals_before_nms: tuple[int, int] = (2000, 1000)
    """A level, in training and in testing."""
    proposals: tuple[int, int] = (1000, 1000)
    """An image, in training and in testing."""
    roi_level_size: int = Field(default=224, ge=1)
    """Side in pixels of a box that is read from the level of stride 16."""
    rois: int = Field(default=512, ge=2)
    """Boxes an image that the heads are trained on, a quarter of them positive at most."""
    box_convs: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the box head's convolutions."""
    box_fcs: tuple[int, ...] = Field(default=(1024,), min_length=1)
    """Widths of its fully connected layers."""
    mask_convs: tuple[int, ...] = Field(default=(256, 256, 256, 256, 256), min_length=1)
    """Widths of the mask head's convolutions; the last one upsamples."""
    score_threshold: float = Field(default=0.05, ge=0, le=1)
    """Detections below it are dropped."""
    detections: int = Field(default=100, ge=1)
    """Kept an image; COCO's AP counts no more than 100."""


class Config(core.Config):
    """Settings of one fine-tuning on detection data and its evaluation."""

    image_size: int = Field(default=1024, ge=64, multiple_of=32)
    """Side in pixels of the square that images are resized into and padded to."""
    scale: tuple[float, float] = (0.1, 2.0)
    """Range of large-scale jitter, in shares of `image_size`."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    masks: bool | None = None
    """Whether masks are learned and measured; None = if the data has them."""
    window: int = Field(default=14, ge=0)
    """Side of attention windows in patches; 0 = global attention everywhere."""
    global_blocks: int = Field(default=4, ge=1)
    """Evenly spaced blocks that keep global attention when there are windows."""
    rel_pos: bool = True
    """Decomposed relative positions in every block, beginning at zero."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest stochastic depth rate."""
    head: HeadConfig = HeadConfig()
    optim: OptimConfig
    decay_norms: bool = False
    """Whether position embeddings and norms of torch's classes have weight decay like the rest."""
    schedule: ScheduleConfig
    batch_size: int = Field(default=64, ge=1)
    """Images a step, over all processes and micro-batches."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of a step in each process; a matter of memory."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    eval_batch_size: int = Field(default=1, ge=1)
    """Images at once in evaluation; a matter of speed."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} is not a range of positive numbers, smaller first")
        late = [step for step in self.schedule.milestones if step >= self.steps]
        if late and self.schedule.kind == "multistep":
            fitting = [int(self.steps * share) for share in (8 / 9, 26 / 27)]
            raise ValueError(
                f"steps={self.steps} ends before the rate drops at {late}; set schedule.milestones too, such as {fitting}"
            )
        return self


def _paper(layer_decay: float, drop_path: float, **other: Any) -> Config:
    """A recipe of Detectron2's projects/ViTDet; values that it leaves at Detectron2's defaults are the defaults above."""
    values: dict[str, Any] = {
        "image_size": 1024,  # configs/common/coco_loader_lsj.py; square_pad in mask_rcnn_vitdet.py
        "scale": (0.1, 2.0),  # coco_loader_lsj.py: ResizeScale, then FixedSizeCrop without padding
        "flip": 0.5,  # coco_loader_lsj.py: RandomFlip(horizontal=True), before the resize
        "masks": None,  # COCO has them: use_instance_mask and recompute_boxes in coco_loader_lsj.py
        "window": 14,  # mask_rcnn_vitdet.py
        "global_blocks": 4,  # window_block_indexes: blocks 2 5 8 11 of 12, 5 11 17 23 of 24, 7 15 23 31 of 32 are global
        "rel_pos": True,  # use_rel_pos
        "batch_size": 64,  # coco_loader_lsj.py: total_batch_size
        "steps": 184375,  # mask_rcnn_vitdet_b_100ep.py: 100 epochs of 118,000 images
        "schedule": ScheduleConfig(
            kind="multistep",
            milestones=(163889, 177546),  # mask_rcnn_vitdet_b_100ep.py
            gamma=0.1,  # values 1.0, 0.1, 0.01
            warmup_steps=250,  # warmup_length
            warmup_start=0.001,  # warmup_factor
        ),
        "decay_norms": False,  # weight_decay_norm=0 in common/optim.py and the override of pos_embed
    }
    # lr, betas and weight decay: configs/common/optim.py; layer decay: lr_decay_rate of get_vit_lr_decay_rate.
    optim = OptimConfig(name="adamw", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1, layer_decay=layer_decay)
    return Config(**{**values, "drop_path": drop_path, "optim": optim, **other})


def _huge() -> Config:
    """mask_rcnn_vitdet_h_75ep.py: three quarters of the steps, and no exemption from weight decay."""
    schedule = ScheduleConfig(
        kind="multistep", milestones=(163889 * 3 // 4, 177546 * 3 // 4), gamma=0.1, warmup_steps=250, warmup_start=0.001
    )
    return _paper(0.9, 0.5, steps=184375 * 3 // 4, schedule=schedule, decay_norms=True)


def _demo() -> Config:
    """Minutes on one CPU core with small images: narrow heads, global attention, and anchors for objects of 16 px and more.

    The values were chosen by trials on the embedded scenes; nothing about them is published.
    """
    head = HeadConfig(
        channels=64,
        anchor_scales=(4.0,),  # 16 px at stride 4
        rpn_convs=1,
        rpn_anchors=64,
        proposals_before_nms=(200, 100),
        proposals=(100, 50),
        roi_level_size=128,
        rois=32,
        box_convs=(),
        box_fcs=(128, 128),
        mask_convs=(64, 64, 64),
        detections=50,
    )
    return Config(
        image_size=96,
        scale=(0.8, 1.25),
        flip=0.0,  # letters, digits and much else are not mirror-symmetric
        window=0,
        rel_pos=False,
        drop_path=0.0,
        head=head,
        optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.8),
        schedule=ScheduleConfig(kind="cosine", warmup_steps=20),
        batch_size=4,
        steps=300,
        eval_batch_size=10,
    )


RECIPES = {"paper": _paper(0.7, 0.1), "paper-large": _paper(0.8, 0.4), "paper-huge": _huge(), "demo": _demo()}


def evaluate(source: "Source", data: "DataHandle", config: Config, run: "Run") -> dict[str, float]:
    """Fine-tune a detector on the train split and measure COCO's AP on the val split, in percent.

    Leaves `per_class.json`, `predictions.json` (COCO's results format) and `predictions.png` in `run.out`.
    """
    try:
        from tasks.edges import detection_run
    except ModuleNotFoundError as error:
        raise find.missing(error, "task detection") from error
    return detection_run.evaluate(source, data, config, run)
