"""mmsegmentation: a `.pth` file that its MAE backbone takes, or its BEiT backbone where there are no absolute positions."""

import re
from pathlib import Path

import torch
from torch import Tensor

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from backbones.exports import Layout, Weights, colours, refuse, without_key_bias
from mae_bench.core.files import write_with

NAME = "mmsegmentation's MAE or BEiT backbone: backbone.layers.N.*"
ENDINGS = (".pth",)
PREFIX = "backbone."

MAE = ("layer_scale", "table", "norm_less")
BEIT = ("layer_scale", "table", "shared_table", "no_positions", "qkv_bias_less", "norm_less")

RENAMES = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^norm\.", "ln1."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"layers.\1.ln\2."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
    (r"^blocks\.(\d+)\.ls([12])\.gamma$", r"layers.\1.gamma_\2"),
    (r"^blocks\.", "layers."),
)
SHARED = "rel_pos_bias.relative_position_bias_table"


def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Names of mmseg; where the network has no LayerScale, one of ones, which mmseg's backbones always have."""
    kind = "MAE" if arch.positions else "BEiT"
    refuse(arch, f"mmsegmentation's {kind} backbone", MAE if arch.positions else BEIT)
    tensors, notes = {}, []
    for name, tensor in weights.items():
        tensors |= _renamed(name, tensor, arch)
    if not arch.layer_scale:
        ones = torch.ones(arch.embed_dim)
        tensors |= {f"layers.{block}.gamma_{part}": ones for block in range(arch.depth) for part in (1, 2)}
        notes.append("added: gamma_1 and gamma_2 of ones, since mmseg's backbone always scales")
    if arch.relative == "none":
        notes.append("relative position tables are left to mmseg, which starts them at zero")
    if arch.relative == "shared_table":
        notes.append("the shared relative position table is written for each block")
    how = (
        f"dict(type='{kind}', img_size={arch.image_size}, patch_size={arch.patch_size}, embed_dims={arch.embed_dim}, "
        f"num_layers={arch.depth}, num_heads={arch.num_heads}, mlp_ratio={arch.mlp_dim // arch.embed_dim}, "
        f"final_norm={arch.final_norm}, norm_cfg=dict(type='LN', eps={arch.norm_eps:g})); {colours(spec)}"
    )
    return Layout({f"{PREFIX}{name}": tensor for name, tensor in tensors.items()}, how, tuple(notes))


def write(out: Path, layout: Layout) -> None:
    """The weights under `state_dict`, as mmengine writes them."""
    content = {"state_dict": {name: tensor.contiguous() for name, tensor in layout.tensors.items()}}
    write_with(out, lambda file: torch.save(content, file))


def renamed(name: str) -> str:
    """The name that mmseg has for a tensor of the network."""
    for pattern, new in RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _renamed(name: str, tensor: Tensor, arch: VitArch) -> dict[str, Tensor]:
    if name == SHARED:
        return {f"layers.{block}.attn.relative_position_bias_table": tensor for block in range(arch.depth)}
    if name.endswith("qkv.bias") and not arch.positions:
        q, v = without_key_bias("mmsegmentation's BEiT backbone", name, tensor)
        stem = renamed(name).removesuffix("qkv.bias")
        return {f"{stem}q_bias": q, f"{stem}v_bias": v}
    return {renamed(name): tensor}
