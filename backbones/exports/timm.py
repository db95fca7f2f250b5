"""timm: a safetensors file that `timm.create_model(NAME, checkpoint_path=OUT)` and a strict `load_state_dict` take."""

import re
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from backbones.eva import EvaArch
from backbones.exports import PARTS, Layout, Weights, refuse, without_key_bias
from backbones.formats import suite
from mae_bench.core.files import write_bytes

NAME = "timm's VisionTransformer, Beit or Eva, without a head"
ENDINGS = (".safetensors",)

TIMM = {
    "vit_tiny_patch16_224": (192, 12, 3, 16),
    "vit_small_patch16_224": (384, 12, 6, 16),
    "vit_base_patch16_224": (768, 12, 12, 16),
    "vit_large_patch16_224": (1024, 24, 16, 16),
    "vit_huge_patch14_224": (1280, 32, 16, 14),
}
"""timm's plain networks: width, depth, heads, patch size."""

VIT = tuple(key for key in PARTS if key not in ("table", "shared_table", "decomposed", "windows"))
BEIT = ("table", "shared_table", "layer_scale", "no_positions", "qkv_bias_less", "norm_less", "broken_mlp")


def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Plain networks as they are; those with relative tables as timm's Beit names them."""
    if arch.relative in ("table", "shared_table"):
        refuse(arch, "timm's Beit", BEIT)
        tensors = _beit(weights)
        norm = f"norm_layer=partial(nn.LayerNorm, eps={arch.norm_eps:g})"
        how = f"timm.models.beit.Beit(**{beit_arguments(arch)}, {norm}).load_state_dict(load_file('OUT')); {_note(spec)}"
        return Layout(tensors, how)
    refuse(arch, "timm's VisionTransformer", VIT)
    how = f"{_how_vit(arch)}; {_note(spec)}"
    return Layout(dict(weights), how, facts=suite.header("vit", arch, spec))


def eva_layout(arch: EvaArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Networks with rotary positions, which have the names of timm's Eva."""
    how = f"timm.create_model(NAME of an Eva, num_classes=0).load_state_dict(load_file('OUT')); {_note(spec)}"
    return Layout(dict(weights), how, facts=suite.header("eva", arch, spec))


def write(out: Path, layout: Layout) -> None:
    """Plain names, and the suite's own header, which timm does not read and from which `-m OUT` knows heads, mean and std."""
    tensors = {name: tensor.contiguous() for name, tensor in layout.tensors.items()}
    write_bytes(out, safetensors.torch.save(tensors, layout.facts or {"format": "pt"}))


def beit_arguments(arch: VitArch) -> dict[str, Any]:
    """What timm's Beit is made with for an architecture, beside its norm's epsilon."""
    return {
        "img_size": arch.image_size[0] if arch.image_size[0] == arch.image_size[1] else arch.image_size,
        "patch_size": arch.patch_size,
        "num_classes": 0,
        "global_pool": "token" if arch.final_norm else "avg",
        "embed_dim": arch.embed_dim,
        "depth": arch.depth,
        "num_heads": arch.num_heads,
        "mlp_ratio": (arch.mlp_dim + 0.5) / arch.embed_dim if arch.mlp_dim % arch.embed_dim else arch.mlp_dim // arch.embed_dim,
        "qkv_bias": arch.qkv_bias,
        "init_values": 0.1 if arch.layer_scale else None,
        "use_abs_pos_emb": arch.positions,
        "use_rel_pos_bias": arch.relative == "table",
        "use_shared_rel_pos_bias": arch.relative == "shared_table",
    }


def _beit(weights: Weights) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith(".attn.qkv.bias"):
            q, v = without_key_bias("timm's Beit", name, tensor)
            stem = name.removesuffix("qkv.bias")
            tensors |= {f"{stem}q_bias": q, f"{stem}v_bias": v}
        else:
            tensors[re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)] = tensor
    return tensors


def _how_vit(arch: VitArch) -> str:
    """How timm opens the file: by a name of its own for the plain sizes, else by what the network is made of."""
    sizes = (arch.embed_dim, arch.depth, arch.num_heads, arch.patch_size)
    name = next((name for name, known in TIMM.items() if known == sizes), "")
    parts = [words for words, has in PARTS.values() if has(arch)]
    if name and not parts and arch.mlp_dim == 4 * arch.embed_dim:
        return f"timm.create_model('{name}', checkpoint_path='OUT', num_classes=0, img_size={arch.image_size})"
    width, depth, heads, patch = sizes
    made = ", ".join([f"{width} wide, {depth} blocks, {heads} heads, MLP {arch.mlp_dim}, patch {patch}", *parts])
    return f"net.load_state_dict(load_file('OUT')) of a timm VisionTransformer: {made}"


def _note(spec: BackboneSpec) -> str:
    return f"mean={spec.mean}, std={spec.std}, interpolation='{spec.interpolation}' for its transforms"
