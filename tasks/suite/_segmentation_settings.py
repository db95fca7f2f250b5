"""Settings of the segmentation task; its recipes are in `segmentation.py`."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from mae_bench.core.schedule import check_warmup
from tasks.common.weights import WeightsConfig

Neck = Literal["deconvolution", "resize", "none"]
UPERNET_ONLY = ("neck", "channels", "pool_scales", "dropout", "aux_channels", "aux_input", "aux_weight")
"""Settings that a linear head has no use for."""
FROZEN = {"drop_path": 0.0, "layer_decay": 1.0, "relative_table": False, "layer_scale": None}
"""What these settings have to be for a frozen backbone, on which others would do nothing or stay untrained."""


class Config(WeightsConfig):
    """Settings of the network, its data, its training and its test; the defaults are mmseg's for MAE ViT-B.

    "mmseg MAE config" is mmsegmentation's configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py, which inherits from
    configs/_base_/models/upernet_mae.py, configs/_base_/datasets/ade20k.py and configs/_base_/schedules/schedule_160k.py.

    `weights` is a file with a whole segmentor, as mmsegmentation saves it, that the network begins as; its shapes are to fit.
    """

    head: Literal["upernet", "linear"] = "upernet"
    """UPerNet (arXiv 1807.10221) with an auxiliary FCN, or batch norm and a 1x1 convolution (DINOv2, arXiv 2304.07193, 7.4)."""
    frozen: bool = False
    """Whether the backbone stays as it is, in eval mode; the head alone learns."""
    final_norm: bool = False
    """Whether the backbone's final norm is applied to each map; where not, it is not trained (mmseg MAE config)."""
    relative_table: bool = True
    """Whether each block has a table of relative positions, zero where the checkpoint has none (mmseg's `MAE`, `BEiT`)."""
    layer_scale: float | None = Field(default=1.0, gt=0)
    """Start of LayerScale where the checkpoint has none (mmseg MAE config: init_values); None adds none."""
    image_size: int = Field(default=512, ge=32)
    """Side of training crops and test windows in pixels, rounded up to whole patches (mmseg MAE config)."""
    short_side: int | None = Field(default=None, ge=32)
    """Shorter side in pixels that images are resized to; None is the side of the crops (`_base_/datasets/ade20k.py`: 512)."""
    aspect: float | None = Field(default=4.0, ge=1)
    """Images whose longer side exceeds so many times `short_side` are resized by it (`_base_/datasets/ade20k.py`: 2048 to 512).
    None goes by the shorter side always."""
    resize_ratio: tuple[Annotated[float, Field(ge=0.1, le=10)], Annotated[float, Field(ge=0.1, le=10)]] = (0.5, 2.0)
    """Range of the factor on the size of a training image (`_base_/datasets/ade20k.py`)."""
    cat_max_ratio: float = Field(default=0.75, gt=0, le=1)
    """Largest share of one class in a crop, tried for ten times (`_base_/datasets/ade20k.py`)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring a training image (`_base_/datasets/ade20k.py`)."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random (`_base_/datasets/ade20k.py`)."""
    out_layers: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Blocks whose outputs are taken, negative ones from the end, four for UPerNet. None takes those at 1/3, 1/2, 2/3 and all of
    the depth (3, 5, 7, 11 of 12) for UPerNet, the last for a linear head."""
    neck: Neck = "deconvolution"
    """How four maps of one size become a pyramid: transposed convolutions and pooling (mmseg's `Feature2Pyramid`), resizing
    between convolutions (`MultiLevelNeck`), or not at all."""
    channels: int | None = Field(default=None, ge=1)
    """Width of the UPerNet head; None is the width of the backbone (768 for ViT-B in mmseg and in BEiT's code)."""
    pool_scales: tuple[PositiveInt, ...] = Field(default=(1, 2, 3, 6), min_length=1)
    """Grid sides of the pyramid pooling module (`_base_/models/upernet_mae.py`)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Before the classifiers of both heads of UPerNet (`_base_/models/upernet_mae.py`)."""
    aux_channels: int = Field(default=256, ge=1)
    """Width of the auxiliary head (`_base_/models/upernet_mae.py`)."""
    aux_input: int = Field(default=2, ge=0, le=3)
    """Number of the map that the auxiliary head sees (`_base_/models/upernet_mae.py`)."""
    aux_weight: float = Field(default=0.4, ge=0)
    """Weight of the auxiliary loss (`_base_/models/upernet_mae.py`); 0 leaves the auxiliary head out."""
    class_balance: float = Field(default=0.0, ge=0, le=1)
    """Exponent of the inverse frequency of a class as its weight in the loss; 0 gives each the same (mmseg MAE config)."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest stochastic depth rate (mmseg MAE config; MAE paper A.4 names none)."""
    lr: float = Field(default=1e-4, gt=0)
    """Peak rate of AdamW for `batch_size` as it is; betas are (0.9, 0.999) (mmseg MAE config)."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of AdamW, for what `exempt` leaves (mmseg MAE config)."""
    exempt: Literal["1d", "positions"] = "1d"
    """What has no weight decay: everything of one dimension (mmseg's `layer_decay_optimizer_constructor.py`), or position
    embeddings and prefix tokens alone (what the custom_keys of mmseg's configs/vit come to)."""
    layer_decay: float = Field(default=0.65, gt=0, le=1)
    """Factor on the rate from block to block (mmseg MAE config)."""
    warmup_steps: int = Field(default=1500, ge=0)
    """Steps of linear warm-up from 1e-6 of the peak rate, before linear decay to 0 (mmseg MAE config: LinearLR, PolyLR)."""
    batch_size: int = Field(default=16, ge=2)
    """Images of one step over all processes (mmseg MAE config: 8 processes of 2); batch norm needs 2."""
    steps: int = Field(default=160_000, ge=0)
    """Optimizer steps (mmseg `schedule_160k.py`); 0 measures `weights` as they are."""
    test_mode: Literal["slide", "whole"] = "slide"
    """Sliding windows averaged where they overlap, or the whole image at once (mmseg MAE config: slide)."""
    test_stride: int | None = Field(default=None, ge=1)
    """Step of the sliding window in pixels; None is 2/3 of its side (mmseg MAE config: 341 of 512)."""
    test_scales: tuple[Annotated[float, Field(ge=0.1, le=10)], ...] = Field(default=(1.0,), min_length=1)
    """Factors on the size of a test image whose predictions are averaged. Of several, none makes an image smaller than a window,
    as in mmseg 0.x, whose numbers are the published ones."""
    test_flip: bool = False
    """Whether each of them is averaged with the prediction of the mirrored image."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.resize_ratio[0] > self.resize_ratio[1]:
            raise ValueError(f"resize_ratio {self.resize_ratio} is a range, smaller number first")
        if self.head == "upernet" and self.out_layers is not None and len(self.out_layers) != 4:
            raise ValueError(f"out_layers {self.out_layers}: UPerNet takes the outputs of four blocks")
        if self.test_mode == "whole" and self.test_stride is not None:
            raise ValueError("test_stride is of sliding windows, and test_mode is whole")
        if self.steps == 0 and self.weights is None:
            raise ValueError("steps is 0, and there are no weights to measure; give weights=FILE or train")
        if self.steps:
            check_warmup("warmup_steps", self.warmup_steps, "steps", self.steps)
        self._refuse_idle()
        return self

    def _refuse_idle(self) -> None:
        """A setting that nothing reads is an error."""
        fields = type(self).model_fields
        idle = {name: fields[name].default for name in UPERNET_ONLY} if self.head == "linear" else {}
        wrong = [f"{name}={value}" for name, value in idle.items() if getattr(self, name) != value]
        if wrong:
            raise ValueError(f"a linear head has no use for these; set {' '.join(wrong)}")
        wrong = [f"{name}={value}" for name, value in FROZEN.items() if getattr(self, name) != value]
        if self.frozen and wrong:
            raise ValueError(f"a frozen backbone does not learn; set {' '.join(wrong)}")
