"""The backbones of mmsegmentation, to compare checkpoints of mmseg and mmpretrain with."""

from typing import cast

from torch import Tensor

from backbones.arch import VitArch
from backbones.contract import DenseOptions
from backbones.origins import Network, fill, listen, state_of
from backbones.source import Source

# mmseg makes these itself: indices, and tables of zeros where a file has none (mmpretrain's plain networks).
MADE_THERE = ("relative_position_index", "relative_position_bias_table", "gamma_1", "gamma_2", "cls_token")


def fits(source: Source) -> bool:
    """Names of mmseg and mmpretrain."""
    return source.raw is not None and "layers.0.ln1.weight" in source.raw.state


def network(source: Source) -> Network:
    """See `Origin.network`."""
    from mmseg.models import backbones as theirs

    arch, state = cast(VitArch, source.arch), state_of(source)
    plain = "layers.0.attn.attn.in_proj_weight" in state
    kind = "VisionTransformer" if plain else "MAE" if arch.positions else "BEiT"
    facts = {"VisionTransformer": {"patch_bias": arch.patch_bias, "pre_norm": arch.pre_norm}}.get(kind, {"init_values": 1.0})
    if kind == "BEiT":
        facts["qv_bias"] = arch.qkv_bias
    net = getattr(theirs, kind)(
        img_size=arch.image_size,
        patch_size=arch.patch_size,
        embed_dims=arch.embed_dim,
        num_layers=arch.depth,
        num_heads=arch.num_heads,
        mlp_ratio=arch.mlp_dim // arch.embed_dim,
        final_norm="ln1.weight" in state,
        norm_cfg={"type": "LN", "eps": arch.norm_eps},
        **facts,
    )
    fill(net, state, f"mmsegmentation's {kind}", () if plain else MADE_THERE)
    net.eval()

    def blocks(images: Tensor) -> list[Tensor]:
        return listen(list(net.layers), lambda: net(images))

    return Network(f"mmsegmentation's {kind}", blocks, any_size=plain, options=DenseOptions(antialias=False))
