"""Semantic segmentation: UPerNet fine-tuned end to end on the backbone (arXiv 2111.06377 Table 5), measured by mIoU."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mae_bench.core.config import Config as BaseConfig
from tasks.contract import Metric

if TYPE_CHECKING:
    from backbones.source import Source
    from mae_bench.core.run import Run
    from tasks.handle import DataHandle


class Config(BaseConfig):
    """Settings of the network, its data, its training and its test; the defaults are mmseg's for MAE ViT-B.

    "mmseg MAE config" is mmsegmentation's configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py, which inherits from
    configs/_base_/models/upernet_mae.py, configs/_base_/datasets/ade20k.py and configs/_base_/schedules/schedule_160k.py.
    """

    image_size: int = Field(default=512, ge=32)
    """Side of training crops and test windows in pixels, rounded up to whole patches (mmseg MAE config)."""
    short_side: int | None = Field(default=None, ge=32)
    """Shorter side in pixels that images are resized to, less where the longer side would exceed four times it; None is the side
    of the crops (`_base_/datasets/ade20k.py`: within 2048 x 512)."""
    resize_ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the factor on the size of a training image (`_base_/datasets/ade20k.py`)."""
    cat_max_ratio: float = Field(default=0.75, gt=0, le=1)
    """Largest share of one class in a crop, tried for ten times (`_base_/datasets/ade20k.py`)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring a training image (`_base_/datasets/ade20k.py`)."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random (`_base_/datasets/ade20k.py`)."""
    out_layers: tuple[int, ...] | None = Field(default=None, min_length=4, max_length=4)
    """The four blocks whose outputs are taken; None takes those at 1/3, 1/2, 2/3 and all of the depth: 3, 5, 7, 11 of 12."""
    channels: int | None = Field(default=None, ge=1)
    """Width of the UPerNet head; None is the width of the backbone (768 for ViT-B in mmseg and in BEiT's code)."""
    pool_scales: tuple[int, ...] = Field(default=(1, 2, 3, 6), min_length=1)
    """Grid sides of the pyramid pooling module (`_base_/models/upernet_mae.py`)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Before the classifiers of both heads (`_base_/models/upernet_mae.py`)."""
    aux_channels: int = Field(default=256, ge=1)
    """Width of the auxiliary head on the third map (`_base_/models/upernet_mae.py`)."""
    aux_weight: float = Field(default=0.4, ge=0)
    """Weight of the auxiliary loss (`_base_/models/upernet_mae.py`)."""
    class_balance: float = Field(default=0.0, ge=0, le=1)
    """Exponent of the inverse frequency of a class as its weight in the loss; 0 gives each the same (mmseg MAE config)."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest stochastic depth rate (mmseg MAE config; MAE paper A.4 names none)."""
    lr: float = Field(default=1e-4, gt=0)
    """Peak rate of AdamW for `batch_size` as it is; betas are (0.9, 0.999) (mmseg MAE config)."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Not applied to one-dimensional parameters (mmseg MAE config and `layer_decay_optimizer_constructor.py`)."""
    layer_decay: float = Field(default=0.65, gt=0, le=1)
    """Factor on the rate from block to block (mmseg MAE config)."""
    warmup_steps: int = Field(default=1500, ge=0)
    """Steps of linear warm-up from 1e-6 of the peak rate, before linear decay to 0 (mmseg MAE config: LinearLR, PolyLR)."""
    batch_size: int = Field(default=16, ge=2)
    """Images of one step over all processes (mmseg MAE config: 8 processes of 2); batch norm needs 2."""
    steps: int = Field(default=160_000, ge=1)
    """Optimizer steps (mmseg `schedule_160k.py`)."""
    test_mode: Literal["slide", "whole"] = "slide"
    """Sliding windows averaged where they overlap, or the whole image at once (mmseg MAE config: slide)."""
    test_stride: int | None = Field(default=None, ge=1)
    """Step of the sliding window in pixels; None is 2/3 of its side (mmseg MAE config: 341 of 512)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.resize_ratio[0] <= self.resize_ratio[1]:
            raise ValueError(f"resize_ratio {self.resize_ratio} is not a range of positive numbers, smaller first")
        return self


RECIPES: dict[str, Config] = {
    # The mmseg MAE config, by which MAE ViT-B reaches 48.13 mIoU there and 48.15 in implus/mae_segmentation, both with relative
    # positions (see DEVIATIONS). The paper itself (A.4) says 100 epochs at batch 16, with the rate searched for each model.
    "paper": Config(),
    # A cell of about a minute on one CPU core, for small scenes with a small backbone; not comparable with `paper`.
    "demo": Config(
        image_size=48,  # the side that vit_demo_patch8 was pretrained with
        short_side=96,
        resize_ratio=(0.8, 1.25),
        flip=0.0,  # digits and letters are not mirror-symmetric
        photometric=False,
        channels=64,
        aux_channels=32,
        class_balance=0.7,  # without it so short a training predicts background everywhere
        drop_path=0.0,
        lr=1e-3,
        layer_decay=0.9,
        warmup_steps=10,
        batch_size=8,
        steps=500,
    ),
}

DEVIATIONS: tuple[str, ...] = (
    "no relative position bias: mmseg's MAE backbone adds a table of them to each block's attention, trained from zero; "
    "absolute positions are trained as there",
    "no LayerScale is added to a checkpoint without one; mmseg's MAE backbone adds it, beginning at one",
    "images are decoded by Pillow and not turned by their orientation tag; mmseg decodes by OpenCV",
)
"""Where `paper` differs from the recipe it is named after; every record of it says so."""

METRICS = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))
KIND = "segmentation"
REQUIRES = ("mmseg", "mmengine", "mmcv")
SELECTION = "last step"


def evaluate(source: "Source", data: "DataHandle", config: Config, run: "Run") -> dict[str, float]:
    """Fine-tune UPerNet on the training split and give mIoU, mAcc and aAcc in percent on the validation split.

    Leaves `per_class.json` and `predictions.png` in `run.out`.

    Raises:
        EnvironmentFault: mmsegmentation is not installed, or broken.
        InputError: the labels do not fit the classes, or there are fewer than two classes.
    """
    from mae_bench.core.errors import EnvironmentFault
    from mae_bench.core.find import missing

    try:
        from tasks.edges import segmentation_run
    except ModuleNotFoundError as error:
        raise missing(error, "task segmentation") from error
    except ImportError as error:  # OpenCV without the system's libGL, say
        raise EnvironmentFault(f"task segmentation: {error}; install what is named there, or reinstall mmsegmentation") from error
    return segmentation_run.evaluate(source, data, config, run)
