"""Settings of the detection task."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mae_bench.core import config as core
from mae_bench.core.optim import OptimConfig
from mae_bench.core.schedule import ScheduleConfig, check_warmup
from tasks.common.weights import WeightsConfig

AtLeastTwo = Annotated[int, Field(ge=2)]
GROUPS = 32
"""Of Detectron2's group norm."""


class HeadConfig(core.Config):
    """Everything above the backbone; the defaults are Detectron2's `mask_rcnn_vitdet.py` over `mask_rcnn_fpn.py`."""

    pyramid: Literal["simple", "fpn"] = "simple"
    """ViTDet's pyramid of the last map, or an FPN on the maps of four groups of blocks (arXiv 2111.11429)."""
    channels: int = Field(default=256, ge=4)
    """Width of every pyramid level."""
    norm: Literal["LN", "GN", "BN", "SyncBN"] = "LN"
    """Norm of the convolutions of the pyramid, the box head and the mask head, by Detectron2's name."""
    anchor_scales: tuple[PositiveFloat, ...] = Field(default=(8.0,), min_length=1)
    """Sides of the anchors in strides of their level: 32 px at stride 4, 512 px at stride 64."""
    aspect_ratios: tuple[PositiveFloat, ...] = Field(default=(0.5, 1.0, 2.0), min_length=1)
    """Of the anchors, height over width."""
    rpn_convs: PositiveInt = 2
    """3x3 convolutions before the proposals."""
    rpn_anchors: AtLeastTwo = 256
    """Anchors an image that the proposal loss is taken of, half of them positive at most."""
    proposals_before_nms: tuple[PositiveInt, PositiveInt] = (2000, 1000)
    """A level, in training and in testing."""
    proposals: tuple[PositiveInt, PositiveInt] = (1000, 1000)
    """An image, in training and in testing."""
    roi_level_size: PositiveInt = 224
    """Side in pixels of a box that is read from the level of stride 16."""
    rois: AtLeastTwo = 512
    """Boxes an image that the heads are trained on, a quarter of them positive at most."""
    cascade: bool = False
    """Three box heads one after the other, for overlaps of 0.5, 0.6 and 0.7 (Cascade R-CNN), with boxes that no class owns."""
    box_convs: tuple[PositiveInt, ...] = (256, 256, 256, 256)
    """Widths of a box head's convolutions."""
    box_fcs: tuple[PositiveInt, ...] = Field(default=(1024,), min_length=1)
    """Widths of its fully connected layers."""
    mask_convs: tuple[PositiveInt, ...] = Field(default=(256, 256, 256, 256, 256), min_length=1)
    """Widths of the mask head's convolutions; the last one upsamples."""
    sigmoid: bool = False
    """Each class by itself instead of a softmax over all, as for LVIS."""
    federated_classes: int = Field(default=0, ge=0)
    """Classes that the loss of a micro-batch in a process is taken of: those it has, and others drawn by how many images have
    them up to this number; 0 takes all. Needs `sigmoid`."""
    federated_power: float = Field(default=0.5, ge=0)
    """Exponent of the number of images in that draw."""
    score_threshold: float = Field(default=0.05, ge=0, le=1)
    """Detections below it are dropped."""
    detections: PositiveInt = 100
    """Kept an image; COCO's AP counts no more than 100, LVIS' 300."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        odd = sorted({width for width in (self.channels, *self.box_convs, *self.mask_convs) if width % GROUPS})
        if self.norm == "GN" and odd:
            raise ValueError(f"norm GN has {GROUPS} groups, which do not divide widths of {', '.join(map(str, odd))}")
        if self.federated_classes and not self.sigmoid:
            raise ValueError("federated_classes needs sigmoid=True: a softmax is over all classes")
        return self


class Config(WeightsConfig):
    """Settings of one fine-tuning on detection data and its evaluation.

    `weights` is a file with a whole detector in Detectron2's layout (`.pkl`, `.pth`), such as ViTDet's released ones.
    """

    changing_nothing: ClassVar[tuple[str, ...]] = ("checkpointing", "eval_batch_size", "evaluator")
    image_size: int = Field(default=1024, ge=64, multiple_of=32)
    """Side in pixels of the square that images are resized into and padded to."""
    scale: tuple[float, float] = (0.1, 2.0)
    """Range of large-scale jitter, in shares of `image_size`."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    repeat_threshold: float = Field(default=0.0, ge=0, le=1)
    """Images with a class that fewer than this share of the images have are drawn more often (LVIS); 0 draws all alike."""
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
    frozen: bool = False
    """Train the pyramid and the heads alone; the backbone stays as it is, in eval mode."""
    checkpointing: bool = False
    """Compute the blocks again in the backward pass: less memory, more time, the same numbers."""
    head: HeadConfig = HeadConfig()
    optim: OptimConfig
    decay_norms: bool = False
    """Whether position embeddings and norms of torch's classes have weight decay like the rest."""
    schedule: ScheduleConfig
    batch_size: int = Field(default=64, ge=1)
    """Images a step, over all processes and micro-batches."""
    reference_batch: int | None = Field(default=None, ge=1)
    """Batch that rate, steps and schedule are stated for; another `batch_size` scales the rate with it and the lengths against
    it, as Detectron2's REFERENCE_WORLD_SIZE does. None takes them as they are stated."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches of a step in each process, for memory. Each has `batch_size` over processes and this number of images, in
    ViTDet one; the mask loss is averaged over its masks, federated classes are drawn for it, and batch norms see it alone."""
    steps: int = Field(ge=0)
    """Optimizer steps; 0 measures the detector of `weights` as it is."""
    eval_batch_size: int = Field(default=1, ge=1)
    """Images at once in evaluation; a matter of speed."""
    evaluator: Literal["pycocotools", "fast"] = "pycocotools"
    """The program that counts: pycocotools, or faster-coco-eval, which gives the same numbers. LVIS always takes the latter."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} is not a range of positive numbers, smaller first")
        if not self.steps and self.weights is None:
            raise ValueError("steps=0 measures a detector without training it: give it by weights=FILE")
        if self.frozen and (self.window or self.rel_pos or self.drop_path or self.checkpointing or self.optim.layer_decay != 1):
            raise ValueError(
                "frozen=True trains nothing in the backbone: set window=0 rel_pos=False drop_path=0 optim.layer_decay=1"
            )
        late = [step for step in self.schedule.milestones if step >= self.steps]
        if late and self.steps and self.schedule.kind == "multistep":
            fitting = [int(self.steps * share) for share in (8 / 9, 26 / 27)]
            raise ValueError(
                f"steps={self.steps} ends before the rate drops at {late}; set schedule.milestones too, such as {fitting}"
            )
        if self.steps:
            check_warmup("schedule.warmup_steps", self.schedule.warmup_steps, "steps", self.steps)
        return self

    def scaled(self) -> Self:
        """The settings with the linear rule applied: rate, steps and schedule for `batch_size` (arXiv 1706.02677)."""
        if self.reference_batch in (None, self.batch_size):
            return self
        share = self.batch_size / self.reference_batch
        schedule = self.schedule.model_copy(
            update={
                "milestones": tuple(round(step / share) for step in self.schedule.milestones),
                "warmup_steps": round(self.schedule.warmup_steps / share),
            }
        )
        changes = {
            "optim": self.optim.model_copy(update={"lr": self.optim.lr * share}),
            "schedule": schedule,
            "steps": max(round(self.steps / share), bool(self.steps)),
            "reference_batch": None,
        }
        return self.model_copy(update=changes)
