"""What files of the zoo have in common."""

from backbones.arch import Arch
from backbones.contract import BackboneSpec, Interpolation
from backbones.vit import IMAGENET_MEAN, IMAGENET_STD
from backbones.zoo import Rgb

SIZES = ("embed_dim", "depth", "num_heads", "patch_size", "mlp_dim")
"""Fields of an architecture that its variant is found by."""


def spec_for(
    arch: Arch,
    name: str,
    *,
    mean: Rgb = IMAGENET_MEAN,
    std: Rgb = IMAGENET_STD,
    method: str = "unknown",
    pretrain_data: str = "unknown",
    interpolation: Interpolation = "bicubic",
) -> BackboneSpec:
    """What consumers are told of an architecture of that name."""
    return BackboneSpec(
        name=name,
        embed_dim=arch.embed_dim,
        depth=arch.depth,
        patch_size=arch.patch_size,
        num_prefix_tokens=arch.num_prefix_tokens,
        image_size=arch.image_size,
        mean=mean,
        std=std,
        method=method,
        pretrain_data=pretrain_data,
        interpolation=interpolation,
    )
