"""mmsegmentation: a `.pth` file that its plain VisionTransformer backbone takes."""

import re
from pathlib import Path

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from backbones.exports import Layout, Weights, colours, mmseg, refuse

NAME = "mmsegmentation's VisionTransformer backbone: backbone.layers.N.attn.attn.*"
ENDINGS = (".pth",)

# mmseg's attention is torch's MultiheadAttention, whose fused projection is in the same order q, k, v.
RENAMES = (
    (r"\.attn\.qkv\.(weight|bias)$", r".attn.attn.in_proj_\1"),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"^norm_pre\.", "ln_pre."),
)
HELD = ("pre_norm", "norm_less", "patch_bias_less")


def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Names of mmseg's ViT."""
    refuse(arch, "mmsegmentation's VisionTransformer backbone", HELD)
    tensors = {}
    for name, tensor in weights.items():
        new = name
        for pattern, text in RENAMES:
            new = re.sub(pattern, text, new)
        tensors[mmseg.PREFIX + mmseg.renamed(new)] = tensor
    how = (
        f"dict(type='VisionTransformer', img_size={arch.image_size}, patch_size={arch.patch_size}, embed_dims={arch.embed_dim}, "
        f"num_layers={arch.depth}, num_heads={arch.num_heads}, mlp_ratio={arch.mlp_dim // arch.embed_dim}, "
        f"patch_bias={arch.patch_bias}, pre_norm={arch.pre_norm}, final_norm={arch.final_norm}, "
        f"norm_cfg=dict(type='LN', eps={arch.norm_eps:g})); {colours(spec)}"
    )
    return Layout(tensors, how)


def write(out: Path, layout: Layout) -> None:
    """The weights under `state_dict`, as mmengine writes them."""
    mmseg.write(out, layout)
