"""A small masked autoencoder, and images with noise to mask by."""

import torch

from backbones.arch import VitArch
from backbones.zoo.vit import assemble, initial_weights, spec_of
from mae_bench.objectives import mae
from mae_bench.objectives._autoencoder import MaskedAutoencoder

ARCH = VitArch(embed_dim=32, depth=2, num_heads=2, patch_size=8, mlp_dim=128, image_size=(32, 32))
PATCHES = 16
KEPT = 4


def autoencoder(**changes) -> MaskedAutoencoder:
    torch.manual_seed(0)
    backbone = assemble(ARCH, spec_of(ARCH), initial_weights(ARCH, 0))
    config = mae.RECIPES["paper"].model_copy(update={"decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 2, **changes})
    return MaskedAutoencoder(backbone, config)


def inputs(batch: int = 5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 32, 32, generator=generator), torch.rand(batch, PATCHES, generator=generator)
