"""JAX files of the ViT paper, AugReg (arXiv 2106.10270) and Big Vision: `.npz` with names of Flax modules."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from backbones import naming, shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import HALF, as_vit
from backbones.naming import Translated
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "JAX weights of the ViT paper, AugReg or Big Vision"
EVIDENCE = Evidence.MARK

BLOCK = r"Transformer/encoderblock_(\d+)/"
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
MODULES = {
    r"embedding/": "patch_embed.proj.",
    r"Transformer/encoder_norm/": "norm.",
    rf"{BLOCK}LayerNorm_0/": r"blocks.\1.norm1.",
    # Numbers are by module in Flax's newer way and run through in its older one.
    rf"{BLOCK}LayerNorm_[12]/": r"blocks.\1.norm2.",
    rf"{BLOCK}MultiHeadDotProductAttention_[01]/([qkv])(?:uery|ey|alue)/": r"blocks.\1.attn.\2.",
    rf"{BLOCK}MultiHeadDotProductAttention_[01]/out/": r"blocks.\1.attn.proj.",
    rf"{BLOCK}MlpBlock_[03]/Dense_0/": r"blocks.\1.mlp.fc1.",
    rf"{BLOCK}MlpBlock_[03]/Dense_1/": r"blocks.\1.mlp.fc2.",
}
RULES = {
    **{pattern + old: new + kind for pattern, new in MODULES.items() for old, kind in KINDS.items()},
    r"cls": "cls_token",
    r"(?:Transformer/posembed_input/)?pos_embedding": "pos_embed",
}
DROPPED = {
    r"(head|pre_logits)/": "classification head",
    r"MAPHead_0/": "attention pooling, part of the classification head",
}
STACKED = "Transformer/encoderblock/"


def recognise(raw: RawCheckpoint) -> bool:
    """The names of Flax modules."""
    return "embedding/kernel" in raw.state


def convert(raw: RawCheckpoint) -> Converted:
    """Turn kernels into weights, which have inputs last; heads are told by the shape of the queries."""
    hybrid = [name for name in raw.state if name.startswith(("conv_root/", "block1/"))]
    if hybrid:
        raise InputError(f"{raw.path}: has a ResNet before its blocks ({hybrid[0]}), which is not supported")
    translated = naming.translate(raw.path, _unstacked(raw.path, raw.state), RULES, DROPPED)
    query = shapes.tensor(raw.path, translated.state, "blocks.0.attn.q.weight", 3)
    for name, tensor in list(translated.state.items()):
        translated.replace(name, _turned(name, tensor))
    naming.fuse(translated)
    _as_rows(raw, translated)
    return as_vit(raw, translated, method="supervised", mean=HALF, std=HALF, num_heads=query.shape[1])


def _unstacked(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Blocks under names of their own, where a file keeps all of them in one tensor each."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith(STACKED):
            found[name] = tensor
            continue
        if not tensor.ndim:
            raise InputError(f"{path}: {name} is a single number; blocks on top of each other are needed")
        found |= {name.replace(STACKED, f"Transformer/encoderblock_{i}/"): part for i, part in enumerate(tensor)}
    return found


def _turned(name: str, tensor: Tensor) -> Tensor:
    """A tensor of Flax as torch has it."""
    if re.fullmatch(r"blocks\.\d+\.attn\.[qkv]\.weight", name) and tensor.ndim == 3:
        # (C, A, D) to (A*D, C).
        return tensor.flatten(1).T
    if re.fullmatch(r"blocks\.\d+\.attn\.[qkv]\.bias", name):
        return tensor.flatten()
    if re.fullmatch(r"blocks\.\d+\.attn\.proj\.weight", name) and tensor.ndim == 3:
        # (A, D, C) to (C, A*D).
        return tensor.flatten(0, 1).T
    if name == "patch_embed.proj.weight" and tensor.ndim == 4:
        # (height, width, 3, C) to (C, 3, height, width).
        return tensor.permute(3, 2, 0, 1)
    if name.endswith(".weight") and tensor.ndim == 2:
        return tensor.T
    return tensor


def _as_rows(raw: RawCheckpoint, translated: Translated) -> None:
    """Positions of a grid (h, w, C), as some of Big Vision's, one after the other."""
    positions = translated.state.get("pos_embed")
    if positions is not None and positions.ndim == 4:
        raise InputError(f"{raw.path}: positions of {tuple(positions.shape)}, of a network for any aspect; it is not supported")
