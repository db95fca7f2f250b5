"""DINO (arXiv 2104.14294): many small crops predict what a moving teacher says of two large ones."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mae_bench.core.values import CropScale
from mae_bench.objectives._recipes import SMALL_VIEWS
from mae_bench.objectives._settings import TeacherConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from backbones.contract import Backbone, BackboneSpec

PER_IMAGE = False  # the centre is a mean over the batch


class Config(TeacherConfig):
    """Settings of DINO; the defaults are the paper's (its sections 3 and 5, and appendix C)."""

    pool: Literal["cls", "mean"] = "cls"
    """What is projected, after the final norm."""
    momentum: float = Field(default=0.996, ge=0, lt=1)
    """Of the teacher at the start; it grows to 1 by half a cosine."""
    prototypes: int = Field(default=65536, ge=2)
    """Outputs of the head."""
    hidden_dim: int = Field(default=2048, ge=1)
    bottleneck_dim: int = Field(default=256, ge=1)
    """Of the head before its last layer."""
    fix_norm_of_last_layer: bool = True
    """Whether the prototypes stay of length 1, which is steadier."""
    last_layer_frozen_epochs: float = Field(default=1.0, ge=0)
    """Epochs at the start in which the prototypes are not trained."""
    student_temperature: float = Field(default=0.1, gt=0)
    teacher_temperature: float = Field(default=0.07, gt=0)
    """After its warm-up."""
    teacher_temperature_start: float = Field(default=0.04, gt=0)
    teacher_temperature_epochs: float = Field(default=30.0, ge=0)
    """Epochs over which the teacher's temperature grows linearly."""
    center_momentum: float = Field(default=0.9, ge=0, lt=1)
    local_crops: int = Field(default=8, ge=0)
    local_scale: CropScale = (0.05, 0.4)
    """Area of a small crop as a share of the image; `crop_scale` is that of the large ones."""
    local_share: float = Field(default=96 / 224, gt=0, le=1)
    """Side of a small crop as a share of the large one's, rounded to whole patches."""
    clip_each: bool = True
    """Whether `clip_grad` is the largest norm of each tensor's gradient, as in the released code (its `clip_gradients`); without,
    of all gradients together."""
    fixed_positions: bool = False
    """Whether positions are the sine-cosine ones of MAE and stay so; DINO learns them."""
    jitter: float = Field(default=1.0, ge=0)
    """Strength of the colour jitter, in units of BYOL's (arXiv 2006.07733, table 6)."""
    blur: float = Field(default=1.0, ge=0, le=1)
    """Factor to the chances of a blur: 1 and 0.1 in the large crops, 0.5 in the small ones."""
    solarize: float = Field(default=0.2, ge=0, le=1)
    """Chance of a solarisation in the second large crop."""

    def idle(self) -> dict[str, str]:
        """Settings that nothing reads; see `PretrainConfig.idle`."""
        found = super().idle()
        if not self.local_crops:
            found |= dict.fromkeys(("local_scale", "local_share"), "local_crops=0 makes no small crops")
        if not self.teacher_temperature_epochs:
            found["teacher_temperature_start"] = "teacher_temperature_epochs=0 has no warm-up"
        if self.clip_grad is None:
            found["clip_each"] = "clip_grad=null clips nothing"
        return found


RECIPES = {
    # arXiv 2104.14294, section 3.2 and appendix D: AdamW, rate 0.0005 * batch / 256, 10 epochs of warm-up, decay 0.04 to 0.4,
    # batch 1024; clipping at 0.3 as for ViT-B, 400 epochs, its length in table 2; ten small crops of 5 % to 25 % (table 8).
    "paper": Config(
        epochs=400,
        batch_size=1024,
        base_lr=5e-4,
        warmup_epochs=10,
        weight_decay=0.04,
        weight_decay_end=0.4,
        clip_grad=0.3,
        crop_scale=(0.25, 1.0),
        local_scale=(0.05, 0.25),
        local_crops=10,
        drop_path=0.1,
    ),
    "demo": Config(
        **SMALL_VIEWS,
        epochs=14,
        base_lr=2e-3,
        clip_grad=3.0,
        momentum=0.99,
        fixed_positions=True,
        prototypes=512,
        hidden_dim=256,
        bottleneck_dim=64,
        teacher_temperature=0.04,
        teacher_temperature_epochs=0,
        local_crops=2,
        local_scale=(0.2, 0.5),
        local_share=0.5,
        blur=0.0,
        solarize=0.0,
    ),
}

ABOUT = {
    "paper": "ViT-B: 400 epochs at batch 1024, ten small crops (arXiv 2104.14294, section 3.2, appendix D, tables 2 and 8)",
    "demo": "14 epochs for vit_demo_patch8 and the embedded digits: minutes on a CPU (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def build(backbone: "Backbone", config: Config, num_classes: int) -> "nn.Module":
    """Put a head and a teacher on a backbone; see `Objective.build`."""
    from mae_bench.objectives._distillation import Distillation

    return Distillation(backbone, config)


def sample(config: Config, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
    """Large and small crops of an image; see `Objective.sample`."""
    from mae_bench.objectives._distillation import crops

    cut = crops(config, spec)
    return lambda image, label: cut(image)


def collate(samples: "list[dict[str, Tensor]]") -> "dict[str, Tensor]":
    """A batch of crops, `large` (B, 2, 3, H, W) and `small` (B, n, 3, h, w)."""
    import torch

    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
