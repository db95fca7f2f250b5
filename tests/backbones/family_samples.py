"""A small file of each family, with the network of another program that says what its tokens are.

Where no installed package has a family's own network, its file is made by renaming tensors of timm's network, and timm's own
converter of that family reads the file into the network that is compared with: the converter here is not its own judge.
"""

from functools import partial

import torch
from timm.layers.mlp import SwiGLU, SwiGLUPacked
from timm.layers.norm import LayerNorm
from timm.models import deit as timm_deit
from torch import nn

from backbones.positions import sincos_2d
from tests.backbones.samples_base import (
    DEPTH,
    HEADS,
    PATCH,
    PLAIN,
    RECTANGLE,
    SIDE,
    WIDTH,
    Sample,
    head,
    plain,
    renamed,
    shake,
    tokens_of,
    vit,
    with_positions,
)
from tests.backbones.samples_own_names import augreg, augreg_arrays, beit, clip, dinov2, rotary, torchvision_vit

__all__ = ["DEPTH", "HEADS", "PATCH", "RECTANGLE", "SIDE", "WIDTH", "Sample", "augreg_arrays", "beit", "light", "plain"]
__all__ += ["renamed", "shake", "sincos_2d", "timm_names", "tokens_of", "vit", "with_positions"]


def timm_names() -> dict[str, Sample]:
    """Files that have timm's names."""
    mae = with_positions(vit(), sincos_2d(WIDTH, (4, 4), num_prefix=1))
    moco = with_positions(vit(), sincos_2d(WIDTH, (4, 4), num_prefix=1).roll(WIDTH // 2, -1))
    decoder = {name: torch.ones(1, 1, 4) for name in ("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")}
    swiglu = vit(mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    torch.manual_seed(0)
    distilled = timm_deit.VisionTransformerDistilled(img_size=SIDE, num_classes=5, dynamic_img_size=True, **PLAIN)
    clip = vit(pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5))
    fine_tuned = vit(global_pool="avg", num_classes=5)
    byol = {f"momentum_backbone.{name}": tensor + 1 for name, tensor in vit().state_dict().items()}
    dino_head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    return {
        "timm": plain("timm_vit", vit(), extra=head()),
        "timm registers": plain("timm_vit", vit(reg_tokens=4, no_embed_class=True, init_values=1e-5)),
        "timm CLIP": plain("timm_vit", clip),
        "timm SwiGLU": plain("timm_vit", swiglu),
        "timm SwiGLU apart": plain("timm_vit", vit(mlp_layer=SwiGLU, act_layer=nn.SiLU)),
        "DeiT distilled": plain("timm_vit", shake(distilled), "deit"),
        "MAE": plain("mae", mae, "mae", key="model"),
        "MAE with decoder": plain("mae", mae, "mae", extra=decoder, key="model"),
        "MAE fine-tuned": plain("timm_vit", fine_tuned, key="model"),
        "MoCo v3": plain(
            "mocov3",
            moco,
            "mocov3",
            extra={"head.0.weight": torch.ones(2, 2), "head.1.num_batches_tracked": torch.tensor(3)},
            prefix="module.base_encoder.",
            around={"module.predictor.0.weight": torch.ones(2, 2)},
            key="state_dict",
        ),
        "MoCo v3 linear": plain("mocov3", moco, "mocov3", extra=head(), prefix="module.", key="state_dict"),
        "DINO teacher": plain("dino", vit(), "dino", prefix="backbone.", around=dino_head, key="teacher"),
        "iBOT": plain("ibot", vit(init_values=0.1), "ibot", extra={"masked_embed": torch.ones(1, WIDTH)}, key="state_dict"),
        "solo-learn": plain("timm_vit", vit(), prefix="backbone.", around={**byol, "projector.0.weight": torch.ones(2)}),
        "lightly": plain("timm_vit", vit(), prefix="backbone.vit.", around={"projection_head.layers.0.weight": torch.ones(2)}),
    }


def light() -> dict[str, Sample]:
    """All families that need no framework."""
    return {**timm_names(), **dinov2(), **rotary(), **beit(), **clip(), **augreg(), **torchvision_vit()}
