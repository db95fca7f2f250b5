"""Supervised training from scratch, the baseline of every table of arXiv 2111.06377."""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from mae_bench.core.values import RandAugment
from mae_bench.objectives._settings import PretrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from backbones.contract import Backbone, BackboneSpec

PER_IMAGE = True


class Config(PretrainConfig):
    """Settings of a classifier trained from scratch."""

    pool: Literal["cls", "mean"] = "cls"
    """What the head reads, after the final norm: the class token (DeiT, arXiv 2012.12877) or the mean of the patches."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of mixup (arXiv 1710.09412); 0 is off."""
    cutmix: float = Field(default=0.0, ge=0)
    """Alpha of cutmix (arXiv 1905.04899); 0 is off. With both, each batch has one of them, by even chance."""
    rand_augment: RandAugment = ""

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.mixup or self.cutmix) and self.batch_size // self.accumulate % 2:
            raise ValueError(f"mixup and cutmix mix pairs, and a micro-batch of {self.batch_size // self.accumulate} is odd")
        return self


RECIPES = {
    # arXiv 2111.06377, Table 11, for ViT-B: 300 epochs, drop path 0.1; ViT-L and H take `epochs=200 drop_path=0.2`.
    # `average_decay=null` keeps the last weights instead: 82.1 % in place of 82.3 % there.
    "paper": Config(
        epochs=300,
        batch_size=4096,
        base_lr=1e-4,
        warmup_epochs=20,
        betas=(0.9, 0.95),
        weight_decay=0.3,
        drop_path=0.1,
        crop_scale=(0.08, 1.0),  # torchvision's default; not in the table
        flip=0.5,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        rand_augment="rand-m9-mstd0.5-inc1",  # RandAug (9, 0.5)
        average_decay=0.9999,
    ),
    # Under three minutes of one CPU core for vit_demo_patch8 on the embedded images; values found on them.
    "demo": Config(
        epochs=12,
        batch_size=32,
        base_lr=8e-3,
        warmup_epochs=1,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        crop_scale=(0.7, 1.0),
        flip=0.0,  # digits are not mirror-symmetric
        pool="mean",
        label_smoothing=0.1,
    ),
}

ABOUT = {
    "paper": "ViT-B: 300 epochs at batch 4096, averaged weights (arXiv 2111.06377, Table 11)",
    "demo": "12 epochs for vit_demo_patch8 and the embedded digits: minutes on a CPU (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def build(backbone: "Backbone", config: Config, num_classes: int) -> "nn.Module":
    """Put a linear head on a backbone; see `Objective.build`."""
    from mae_bench.objectives._classifier import Classifier

    return Classifier(backbone, config, num_classes)


def sample(config: Config, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
    """An augmented image and its label; see `Objective.sample`."""
    from mae_bench.objectives._classifier import augmentation

    view = augmentation(config, spec)
    return lambda image, label: (view(image), label)


def collate(samples: "list[tuple[Tensor, int]]") -> "dict[str, Tensor]":
    """A batch of images and labels."""
    from mae_bench.objectives._parts import stack_labelled

    return stack_labelled(samples)
