"""Hugging Face: a folder that `transformers.AutoModel.from_pretrained(OUT)` takes, whichever model the network is.

Names and settings are those of transformers 5 on disk, which version 4 reads as well.
"""

import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from backbones.exports import Layout, Weights, refuse, without_key_bias
from backbones.exports._hf_dinov3 import eva_layout
from backbones.exports._hf_files import CONFIG, PROCESSOR, WEIGHTS, processor, sizes, thirds
from mae_bench.core.errors import InputError
from mae_bench.core.files import write_bytes, write_json

NAME = "transformers: a folder for AutoModel (ViT, DeiT, Dinov2, Dinov2WithRegisters, DINOv3, Beit, CLIPVision or SiglipVision)"
ENDINGS = ()
__all__ = ["ENDINGS", "NAME", "eva_layout", "layout", "write"]

MODELS = {
    "vit": "ViTModel",
    "deit": "DeiTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "beit": "BeitModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
CLIP = ("clip_vision_model", "siglip_vision_model")
"""Models with CLIP's names."""
DINOV2 = ("qkv_bias_less", "other_gelu", "layer_scale", "swiglu", "class_without_position")
HELD = {
    "vit": ("qkv_bias_less", "other_gelu", "broken_mlp", "class_without_position", "rectangle"),
    "deit": ("qkv_bias_less", "other_gelu", "broken_mlp", "registers", "register_positions", "rectangle"),
    "dinov2": DINOV2,
    "dinov2_with_registers": (*DINOV2, "registers"),
    "beit": ("no_positions", "other_gelu", "layer_scale", "table", "shared_table", "broken_mlp"),
    "clip_vision_model": ("patch_bias_less", "pre_norm", "other_gelu", "broken_mlp"),
    "siglip_vision_model": ("class_less", "other_gelu", "broken_mlp"),
}
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "swiglu": "silu"}

STEM = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
    "rel_pos_bias.relative_position_bias_table": "encoder.relative_position_bias.relative_position_bias_table",
}
BLOCK = {
    "attn.proj": "attention.output.dense",
    "attn.relative_position_bias_table": "attention.attention.relative_position_bias.relative_position_bias_table",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "ls1.gamma": "lambda_1",
    "ls2.gamma": "lambda_2",
}
DINOV2_BLOCK = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
GATED = {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
CLIP_STEM = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm_pre.weight": "pre_layrnorm.weight",
    "norm_pre.bias": "pre_layrnorm.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
CLIP_BLOCK = {"attn.proj": "self_attn.out_proj", "norm1": "layer_norm1", "norm2": "layer_norm2"}


def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Choose the model that the network is, and name its tensors as that model's file does."""
    kind = _kind(arch)
    refuse(arch, f"transformers' {MODELS[kind]}", HELD[kind])
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        tensors |= _renamed(kind, name, tensor)
    notes = _complete(kind, arch, tensors)
    facts = {CONFIG: _config(kind, arch), PROCESSOR: processor(spec, crops=kind == "clip_vision_model")}
    return Layout(tensors, f"transformers.AutoModel.from_pretrained(OUT)  # {MODELS[kind]}", notes, facts)


def write(out: Path, layout: Layout) -> None:
    """Three files into a new folder."""
    tensors = {name: tensor.contiguous() for name, tensor in layout.tensors.items()}
    write_bytes(out / WEIGHTS, safetensors.torch.save(tensors, {"format": "pt"}))
    for name, content in layout.facts.items():
        write_json(out / name, content)


def _kind(arch: VitArch) -> str:
    if arch.pre_norm:
        return "clip_vision_model"
    if arch.relative in ("table", "shared_table"):
        return "beit"
    if not arch.class_token and not arch.num_registers and arch.positions:
        return "siglip_vision_model"
    if arch.num_registers == 1 and arch.prefix_positions and not arch.layer_scale:
        return "deit"
    if arch.num_registers:
        return "dinov2_with_registers"
    return "dinov2" if arch.layer_scale else "vit"


def _renamed(kind: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    clip = kind in CLIP
    if kind == "deit" and name == "reg_token":
        return {"embeddings.distillation_token": tensor}
    if not name.startswith("blocks."):
        tensor = tensor.flatten(0, -2) if clip and name == "pos_embed" else tensor
        tensor = tensor.flatten() if clip and name == "cls_token" else tensor
        return {(CLIP_STEM if clip else STEM)[name]: tensor}
    _, block, rest = name.split(".", 2)
    stem = f"encoder.{'layers' if clip else 'layer'}.{block}."
    if rest.startswith("attn.qkv."):
        return _split(kind, name, stem, tensor)
    part, dot, end = (rest, "", "") if rest in BLOCK else rest.rpartition(".")
    return {f"{stem}{_block_names(kind, tensor, part)}{dot}{end}": tensor}


def _block_names(kind: str, tensor: Tensor, part: str) -> str:
    if kind in CLIP:
        return CLIP_BLOCK.get(part, part)
    return (DINOV2_BLOCK if kind.startswith("dinov2") else BLOCK).get(part, part)


def _split(kind: str, name: str, stem: str, tensor: Tensor) -> dict[str, Tensor]:
    """Queries, keys and values under names of their own; BEiT has no bias for keys."""
    end = name.rpartition(".")[2]
    if kind == "beit" and end == "bias":
        q, v = without_key_bias("transformers' BeitModel", name, tensor)
        return {f"{stem}attention.attention.query.bias": q, f"{stem}attention.attention.value.bias": v}
    names = ("query", "key", "value")
    middle = "attention.attention."
    if kind in CLIP:
        names, middle = ("q_proj", "k_proj", "v_proj"), "self_attn."
    return {f"{stem}{middle}{part}.{end}": third for part, third in zip(names, thirds(tensor), strict=True)}


def _complete(kind: str, arch: VitArch, tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """Add what the model always has and the network does not; none of it changes a feature."""
    notes = []
    positions = "embeddings.position_embeddings"
    if arch.positions and not arch.prefix_positions:
        tensors[positions] = torch.cat([torch.zeros(1, 1, arch.embed_dim), tensors[positions]], dim=1)
        notes.append("added: a position row of zeros for the class token")
    if kind == "dinov2_with_registers":
        tensors["embeddings.mask_token"] = torch.zeros(1, arch.embed_dim)
        notes.append("added: a mask token of zeros, which only pretraining uses")
    if kind.startswith("dinov2") and arch.mlp == "swiglu":
        for name in [name for name in tensors if re.search(r"\.mlp\.fc[12]\.", name)]:
            part = "weights_in" if ".fc1." in name else "weights_out"
            tensors[re.sub(r"fc[12]", part, name)] = tensors.pop(name)
    if kind in ("vit", "deit"):
        notes.append("no pooler: load with add_pooling_layer=False, or transformers draws a random one and says so")
    return tuple(notes)


def _config(kind: str, arch: VitArch) -> dict[str, Any]:
    common = sizes(arch, MODELS[kind], kind) | {"hidden_act": ACTIVATIONS[arch.mlp]}
    if kind == "siglip_vision_model":
        return common | {"intermediate_size": arch.mlp_dim, "vision_use_head": False}
    if kind == "clip_vision_model":
        return common | {"intermediate_size": arch.mlp_dim}
    if kind in ("vit", "deit"):
        return common | {"intermediate_size": arch.mlp_dim, "qkv_bias": arch.qkv_bias}
    if kind == "beit":
        return common | {
            "intermediate_size": arch.mlp_dim,
            "use_absolute_position_embeddings": arch.positions,
            "use_relative_position_bias": arch.relative == "table",
            "use_shared_relative_position_bias": arch.relative == "shared_table",
            "use_mean_pooling": False,
            "layer_scale_init_value": 0.1 if arch.layer_scale else 0.0,
            "drop_path_rate": 0.0,
        }
    registers = {"num_register_tokens": arch.num_registers} if arch.num_registers else {"use_mask_token": False}
    return common | {"mlp_ratio": _mlp_ratio(arch), "qkv_bias": arch.qkv_bias, "use_swiglu_ffn": arch.mlp == "swiglu"} | registers


def _mlp_ratio(arch: VitArch) -> int:
    """Dinov2's whole ratio of the MLP.

    Raises:
        InputError: no ratio gives the width that a gated MLP has; transformers cuts two thirds of it to multiples of 8.
    """
    if arch.mlp != "swiglu":
        return arch.mlp_dim // arch.embed_dim
    for ratio in range(1, 17):
        hidden = (int(arch.embed_dim * ratio * 2 / 3) + 7) // 8 * 8
        if 2 * hidden == arch.mlp_dim:
            return ratio
    raise InputError(f"transformers' Dinov2Model cannot hold a gated MLP of {arch.mlp_dim} beside a width of {arch.embed_dim}")
