"""What the objectives are made of: the way from bytes to the backbone's input, random views, initialisation."""

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from backbones.contract import BackboneSpec, normalise
from backbones.vit import TimmViT
from mae_bench.objectives._cropping import Crop
from mae_bench.objectives._settings import PretrainConfig

TOKEN_STD = 0.02
"""Of class, register and mask tokens at the start (MAE and ViT)."""


def to_input(images: Tensor, spec: BackboneSpec) -> Tensor:
    """Turn a batch of uint8 RGB images into what the backbone takes; one call for the whole batch, on its device."""
    return normalise(images.float() / 255, spec)


def crop_and_flip(config: PretrainConfig, spec: BackboneSpec) -> v2.Transform:
    """Random resized crop to the backbone's image size, bicubic, and horizontal flip; uint8 in, uint8 out."""
    crop = Crop(spec.image_size, config.crop_scale)
    return v2.Compose([crop, v2.RandomHorizontalFlip(config.flip)]) if config.flip else crop


def initialise(module: nn.Module) -> None:
    """Linear layers as in MAE: Xavier-uniform weights, zero biases (arXiv 2111.06377, appendix A.1)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def initialise_vit(backbone: TimmViT) -> None:
    """A ViT as in MAE: linear layers, the patch projection as one of them, small tokens, fixed sine-cosine positions."""
    initialise(backbone)
    projection = backbone.net.patch_embed.proj
    nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
    nn.init.zeros_(projection.bias)
    for token in (backbone.net.cls_token, backbone.net.reg_token):
        if token is not None:
            nn.init.normal_(token, std=TOKEN_STD)
    backbone.set_sincos_positions()


def synchronised(module: nn.Module) -> nn.Module:
    """Batch norm over the whole batch where several GPUs share it; torch has none for CPUs, where each process norms its own."""
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1 and torch.cuda.is_available()
    return nn.SyncBatchNorm.convert_sync_batchnorm(module) if several else module


def stack_labelled(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """Batch of images and labels."""
    images, labels = zip(*samples, strict=True)
    return {"images": torch.stack(images), "labels": torch.tensor(labels)}
