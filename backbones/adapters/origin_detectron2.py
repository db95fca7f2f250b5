"""Detectron2's own ViT, to compare a checkpoint of ViTDet with."""

from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.origins import Network, fill, listen, state_of
from backbones.source import Source


def fits(source: Source) -> bool:
    """Names of a ViTDet file: Detectron2's prefix, or its relative positions."""
    raw = source.raw
    return raw is not None and (raw.prefix.endswith("backbone.net.") or "blocks.0.attn.rel_pos_h" in raw.state)


def network(source: Source) -> Network:
    """See `Origin.network`."""
    from detectron2.modeling.backbone.vit import ViT

    arch = cast(VitArch, source.arch)
    state = state_of(source)
    rows = state["pos_embed"].shape[1] if "pos_embed" in state else 0
    side = arch.image_size[0] // arch.patch_size
    relative = arch.relative == "decomposed"
    grid = next((arch.side(block)[0] for block in range(arch.depth) if not arch.windows(block)), side)
    net = ViT(
        img_size=grid * arch.patch_size,
        patch_size=arch.patch_size,
        embed_dim=arch.embed_dim,
        depth=arch.depth,
        num_heads=arch.num_heads,
        mlp_ratio=(arch.mlp_dim + 0.5) / arch.embed_dim,
        qkv_bias=arch.qkv_bias,
        norm_layer=cast(Any, partial(nn.LayerNorm, eps=arch.norm_eps)),
        use_abs_pos=arch.positions,
        use_rel_pos=relative,
        window_size=arch.window,
        window_block_indexes=tuple(block for block in range(arch.depth) if arch.windows(block)),
        pretrain_img_size=arch.image_size[0],
        pretrain_use_cls_token=rows == side**2 + 1,
    )
    fill(net, state, "Detectron2's ViT")
    net.eval()
    options = DenseOptions(keep_prefix=False, stored_positions=True, antialias=False)

    def blocks(images: Tensor) -> list[Tensor]:
        return listen(list(net.blocks), lambda: net(images))

    return Network("Detectron2's ViT", blocks, options=options)
