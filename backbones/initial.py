"""The weights a plain ViT has before any training: those that MAE starts from."""

from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.arch import VitArch
from backbones.positions import sincos_2d

TOKEN_STD = 0.02
"""Of class, register and mask tokens at the start (MAE and ViT)."""
VERSION = 2
"""Raised when a seed comes to draw other weights: `random:ARCH`, and what a partial load begins at random, are others then."""
QUARTERS = 4
"""Sine and cosine, of rows and of columns: the sine-cosine positions have a width that this divides."""


def initialise_linear(module: nn.Module) -> None:
    """Linear layers as in MAE: Xavier-uniform weights, zero biases (arXiv 2111.06377, appendix A.1)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def initialise_vit(net: VisionTransformer, arch: VitArch) -> None:
    """A ViT as in MAE: linear layers, the patch projection as one of them, small tokens, sine-cosine positions.

    A network without a table of positions, or of a width that has none of sine and cosine, keeps what it has.
    """
    initialise_linear(net)
    projection = net.patch_embed.proj
    nn.init.xavier_uniform_(projection.weight.view(projection.weight.shape[0], -1))
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    for token in (net.cls_token, net.reg_token):
        if token is not None:
            nn.init.normal_(token, std=TOKEN_STD)
    if arch.positions and arch.embed_dim % QUARTERS == 0:
        put_sincos(net, arch)


def put_sincos(net: VisionTransformer, arch: VitArch) -> None:
    """Put MAE's fixed sine-cosine positions in place of the learned ones."""
    table = sincos_2d(arch.embed_dim, arch.grid, num_prefix=arch.num_prefix_rows)
    with torch.no_grad():
        cast(Any, net).pos_embed.copy_(table)
