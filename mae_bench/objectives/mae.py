"""Masked autoencoding (arXiv 2111.06377): see a quarter of the patches, predict the pixels of the others."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from mae_bench.core.errors import ConfigError
from mae_bench.objectives._settings import PretrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from backbones.contract import Backbone, BackboneSpec

PER_IMAGE = True


class Config(PretrainConfig):
    """Settings of a masked autoencoder; the defaults are the paper's."""

    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of removed patches (Figure 5); `int(N * (1 - mask_ratio))` of N are kept."""
    mask: Literal["random", "block", "grid"] = "random"
    """How removed patches are chosen: each by chance, in blocks as BEiT does, or three of every four (Table 1f)."""
    encoder_mask_tokens: bool = False
    """Whether the encoder sees a mask token for each removed patch, as BERT's does (Table 1c)."""
    target: Literal["pixels", "pca", "tokens"] = "pixels"
    """What is predicted of a patch (Table 1d): its pixels or its largest principal components."""
    norm_pix_loss: bool = True
    """Whether each patch of pixels is normalised by its own mean and variance (Table 1d)."""
    pca_dims: int = Field(default=96, ge=1)
    """Principal components of a patch (section 4.1, reconstruction target)."""
    loss_on: Literal["masked", "all"] = "masked"
    """Whether the loss is of the removed patches or of all (footnote 1)."""
    augmentation: Literal["none", "fixed_crop", "random_crop", "random_crop_colour"] = "random_crop"
    """Centre crop without flip; crop of fixed size; of random size; the last with colour jitter (Table 1e)."""
    decoder_dim: int = Field(default=512, ge=4)
    """Width of the decoder (Table 1b)."""
    decoder_depth: int = Field(default=8, ge=1)
    """Blocks of the decoder (Table 1a)."""
    decoder_heads: int = Field(default=16, ge=1)
    """Attention heads of the decoder (the released code)."""

    @model_validator(mode="after")
    def _target_there_is(self) -> Self:
        if self.target == "tokens":
            raise ValueError("target=tokens needs the tokenizer of a discrete VAE, and none is part of this; use pixels or pca")
        if self.reduced_decode and self.augmentation in ("none", "fixed_crop"):
            raise ValueError(f"reduced_decode is for crops of random size, and augmentation={self.augmentation} has none")
        if self.target == "pca" and self.norm_pix_loss:
            raise ValueError("target=pca takes patches as they are; set norm_pix_loss=false too")
        return self

    def idle(self) -> dict[str, str]:
        """Settings that nothing reads; see `PretrainConfig.idle`."""
        found = super().idle()
        if self.augmentation in ("none", "fixed_crop"):
            found["crop_scale"] = f"augmentation={self.augmentation} has no crop of random size"
        if self.augmentation == "none":
            found["flip"] = "augmentation=none has no flip"
        if self.target != "pca":
            found["pca_dims"] = f"it is of target=pca, and the target is {self.target}"
        return found


RECIPES = {
    # arXiv 2111.06377, Table 8, at the 1600 epochs of its Table 3; `epochs=800` is the length of its ablations (Table 1).
    "paper": Config(
        epochs=1600,
        batch_size=4096,
        base_lr=1.5e-4,
        warmup_epochs=40,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        crop_scale=(0.2, 1.0),  # the released code; the table only names the augmentation
        flip=0.5,
    ),
    # Under five minutes of one CPU core for vit_demo_patch8 on the embedded images; values found on them.
    "demo": Config(
        epochs=40,
        batch_size=32,
        base_lr=0.012,
        warmup_epochs=5,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        crop_scale=(0.7, 1.0),
        flip=0.0,  # digits are not mirror-symmetric
        decoder_dim=64,
        decoder_depth=1,
        decoder_heads=2,
    ),
}

ABOUT = {
    "paper": "1600 epochs at batch 4096, base rate 1.5e-4, 75 % masked (arXiv 2111.06377, Tables 3 and 8)",
    "demo": "40 epochs with a small decoder, for vit_demo_patch8 and the embedded digits: minutes on a CPU (own choice)",
}
"""What tells the recipes apart, and where each comes from."""


def build(backbone: "Backbone", config: Config, num_classes: int) -> "nn.Module":
    """Put a decoder on a backbone; see `Objective.build`."""
    from backbones.vit import TimmViT
    from mae_bench.objectives._autoencoder import MaskedAutoencoder

    if not isinstance(backbone, TimmViT) or backbone.arch.on_grid or not backbone.arch.positions:
        raise ConfigError(f"mae needs a plain ViT, and {backbone.spec.name} is not one; choose another --arch")
    return MaskedAutoencoder(backbone, config)


def sample(config: Config, spec: "BackboneSpec") -> "Callable[[Tensor, int], Any]":
    """One random crop and the noise of its mask; see `Objective.sample`."""
    from mae_bench.objectives._crops import crops
    from mae_bench.objectives._masks import masking, num_kept

    grid = (spec.image_size[0] // spec.patch_size, spec.image_size[1] // spec.patch_size)
    removed = grid[0] * grid[1] - num_kept(grid, config.mask_ratio)
    view, mask = crops(config, spec), masking(config.mask, grid, removed)
    return lambda image, label: (view(image), mask())


def prepare(module: "nn.Module", images: "Callable[[], Tensor]") -> None:
    """Find the principal components of training images, where they are the target; see `HasPreparation`."""
    from mae_bench.objectives._autoencoder import prepare_target

    prepare_target(module, images)


def collate(samples: "list[tuple[Tensor, Tensor]]") -> "dict[str, Tensor]":
    """A batch of `images` (B, 3, H, W) and `noise` (B, N)."""
    import torch

    images, noise = zip(*samples, strict=True)
    return {"images": torch.stack(images), "noise": torch.stack(noise)}


def pictures(module: "nn.Module", images: "Tensor", out: Path) -> None:
    """Draw `reconstructions.png`: masked image, reconstruction, original."""
    from mae_bench.objectives._reconstructions import draw

    draw(module, images, out / "reconstructions.png")
