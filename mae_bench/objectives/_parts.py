"""What the objectives are made of: the way from bytes to the backbone's input, random views, the start."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from backbones.contract import Backbone, BackboneSpec, normalise
from backbones.initial import initialise_vit, put_sincos
from backbones.vit import TimmViT
from mae_bench.objectives._cropping import Crop
from mae_bench.objectives._settings import PretrainConfig


def to_input(images: Tensor, spec: BackboneSpec) -> Tensor:
    """Turn a batch of uint8 RGB images into what the backbone takes; one call for the whole batch, on its device."""
    return normalise(images.float() / 255, spec)


def crop_and_flip(config: PretrainConfig, spec: BackboneSpec) -> v2.Transform:
    """Random resized crop to the backbone's image size, bicubic, and horizontal flip; uint8 in, uint8 out."""
    return Crop(spec.image_size, config.crop_scale, config.flip)


def start(backbone: Backbone) -> None:
    """Draw the weights that a plain ViT's pretraining starts from, as `random:ARCH` has them, and keep the positions out of it.

    Networks of other kinds keep the weights they were made with.
    """
    if isinstance(backbone, TimmViT):
        initialise_vit(backbone.net, backbone.arch)
        put_sincos(backbone.net, backbone.arch)
        backbone.positions.requires_grad_(False)


def synchronised(module: nn.Module) -> nn.Module:
    """Batch norm over the whole batch where several GPUs share it; torch has none for CPUs, where each process norms its own.

    Asks the processes, which have to have joined.
    """
    group = torch.distributed
    several = group.is_available() and group.is_initialized() and group.get_world_size() > 1 and "nccl" in group.get_backend()
    return nn.SyncBatchNorm.convert_sync_batchnorm(module) if several else module


def freeze_patch_projection(backbone: Backbone, frozen: bool) -> None:
    """Keep the projection of patches out of the training, or in it."""
    net = cast(Any, backbone).net
    net.patch_embed.requires_grad_(not frozen)


def kept(model: nn.Module) -> Backbone:
    """The backbone of an objective that is what its pretraining is for: `backbone`, or what its attribute `kept` names."""
    return cast(Backbone, model.get_submodule(getattr(model, "kept", "backbone")))


def stack_labelled(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """Batch of images and labels."""
    images, labels = zip(*samples, strict=True)
    return {"images": torch.stack(images), "labels": torch.tensor(labels)}
