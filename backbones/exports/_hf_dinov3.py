"""DINOv3 for transformers: the folder of a DINOv3ViTModel."""

import torch
from torch import Tensor

from backbones.contract import BackboneSpec
from backbones.eva import EvaArch
from backbones.exports import Layout, Weights
from backbones.exports._hf_files import CONFIG, PROCESSOR, processor, sizes, thirds
from mae_bench.core.errors import InputError

MODEL = "DINOv3ViTModel"
STEM = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
BLOCK = {
    "attn.q_bias": "attention.q_proj.bias",
    "attn.v_bias": "attention.v_proj.bias",
    "attn.proj.weight": "attention.o_proj.weight",
    "attn.proj.bias": "attention.o_proj.bias",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
    "mlp.fc2.weight": "mlp.down_proj.weight",
    "mlp.fc2.bias": "mlp.down_proj.bias",
}


def eva_layout(arch: EvaArch, spec: BackboneSpec, weights: Weights) -> Layout:
    """Names of DINOv3's model; EVA-02 is none of transformers'."""
    _refuse(arch)
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        tensors |= _renamed(arch, name, tensor)
    tensors["embeddings.mask_token"] = torch.zeros(1, 1, arch.embed_dim)
    tensors.setdefault("embeddings.register_tokens", torch.zeros(1, 0, arch.embed_dim))
    gated = arch.mlp == "swiglu"
    config = sizes(arch, MODEL, "dinov3_vit") | {
        "hidden_act": "silu" if gated else "gelu",
        "intermediate_size": arch.mlp_dim // 2 if gated else arch.mlp_dim,
        "use_gated_mlp": gated,
        "num_register_tokens": arch.num_registers,
        "query_bias": arch.qkv_bias,
        "key_bias": False,
        "value_bias": arch.qkv_bias,
        "rope_theta": 100.0,
    }
    notes = ("added: a mask token of zeros, which only pretraining uses",)
    facts = {CONFIG: config, PROCESSOR: processor(spec, crops=False)}
    return Layout(tensors, f"transformers.AutoModel.from_pretrained(OUT)  # {MODEL}", notes, facts)


def _refuse(arch: EvaArch) -> None:
    """Stop at what is not DINOv3's.

    Raises:
        InputError: names the parts.
    """
    other = {
        "rotary positions of EVA-02's kind": arch.rope == "eva02",
        "no rotary positions": arch.rope == "none",
        "absolute positions": arch.positions,
        "no class token": not arch.class_token,
        "no LayerScale": not arch.layer_scale,
        "no final norm": not arch.final_norm,
        "norms inside attention or MLP": arch.attention_norm or arch.mlp_norm,
        "queries, keys and values apart": arch.split_qkv,
    }
    lacking = [words for words, there in other.items() if there]
    if lacking:
        raise InputError(
            f"transformers' {MODEL} cannot hold this network exactly: it has {' and '.join(lacking)}; choose --to timm"
        )


def _renamed(arch: EvaArch, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if not name.startswith("blocks."):
        return {STEM[name]: tensor}
    _, block, rest = name.split(".", 2)
    stem = f"layer.{block}."
    if rest == "attn.qkv.weight":
        parts = zip(("q", "k", "v"), thirds(tensor), strict=True)
        return {f"{stem}attention.{part}_proj.weight": third for part, third in parts}
    if rest.startswith("mlp.fc1."):
        kind = rest.rpartition(".")[2]
        if arch.mlp != "swiglu":
            return {f"{stem}mlp.up_proj.{kind}": tensor}
        gate, value = tensor.chunk(2)
        return {f"{stem}mlp.gate_proj.{kind}": gate, f"{stem}mlp.up_proj.{kind}": value}
    return {f"{stem}{BLOCK.get(rest, rest)}": tensor}
