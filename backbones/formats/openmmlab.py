"""Vision Transformers of mmpretrain, mmselfsup and mmsegmentation: ViT, MAE, MaskFeat, BEiT."""

import torch

from backbones import naming
from backbones.families import Converted, Evidence
from backbones.formats._common import BIASES, MEAN_ASSUMED, as_vit, drop_index, fuse_biases, is_around
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "a ViT, MAE, MaskFeat or BEiT of mmpretrain, mmselfsup or mmsegmentation"
EVIDENCE = Evidence.MARK

BLOCK = r"layers\.(\d+)\."
RULES = {
    r"patch_embed\.projection\.(.+)": r"patch_embed.proj.\1",
    r"dist_token": "reg_token",
    r"ln1\.(.+)": r"norm.\1",
    rf"{BLOCK}ln([12])\.(.+)": r"blocks.\1.norm\2.\3",
    # mmsegmentation's ViT has torch's attention inside mmcv's.
    rf"{BLOCK}attn\.attn\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    rf"{BLOCK}attn\.attn\.out_proj\.(.+)": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}attn\.([qv])_bias": r"blocks.\1.attn.\2.bias",
    rf"{BLOCK}attn\.gamma1\.weight": r"blocks.\1.ls1.gamma",
    rf"{BLOCK}ffn\.gamma2\.weight": r"blocks.\1.ls2.gamma",
    rf"{BLOCK}gamma_([12])": r"blocks.\1.ls\2.gamma",
    rf"{BLOCK}attn\.(.+)": r"blocks.\1.attn.\2",
    rf"{BLOCK}ffn\.(?:layers\.0\.0|w12)\.(.+)": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}ffn\.(?:layers\.1|w3)\.(.+)": r"blocks.\1.mlp.fc2.\2",
    **BIASES,
}
DROPPED = {
    r"ln2\.": "norm after pooling, part of the classification head",
    r"mask_token$": "token of masked patches, part of the pretraining",
    r"head\.": "classification head",
}
METHODS = {r"(^|\.)neck\.(decoder|mask_token)": "mae", r"(^|\.)target_generator\.(weight_x|gaussian_kernel)$": "maskfeat"}
"""Methods of pretraining by what stands around the network: MAE's decoder, MaskFeat's filters of gradients."""

# mmsegmentation's tool for BEiT's files leaves the projection under both names.
TWICE = r"patch_embed\.proj\."
SAME = "the patch projection once more, under its old name"


def recognise(raw: RawCheckpoint) -> bool:
    """OpenMMLab's names of the patch projection and of the norms in blocks."""
    return "patch_embed.projection.weight" in raw.state and "layers.0.ln1.weight" in raw.state


def convert(raw: RawCheckpoint) -> Converted:
    """Bring the names to timm's."""
    if any(name.startswith(("ln_pre.", "pre_norm.")) for name in raw.state):
        raise InputError(
            f"{raw.path}: a CLIP of OpenMMLab's; its file does not say which activation it has, give the original one instead"
        )
    dropped = {**drop_index(raw), **DROPPED, **({TWICE: SAME} if _is_twice(raw) else {})}
    translated = naming.translate(raw.path, raw.state, RULES, dropped)
    fuse_biases(translated)
    method = next((method for pattern, method in METHODS.items() if is_around(raw, pattern)), "unknown")
    return as_vit(raw, translated, method=method, notes=(MEAN_ASSUMED,))


def _is_twice(raw: RawCheckpoint) -> bool:
    pairs = [(f"patch_embed.proj.{kind}", f"patch_embed.projection.{kind}") for kind in ("weight", "bias")]
    return all(old in raw.state and new in raw.state and torch.equal(raw.state[old], raw.state[new]) for old, new in pairs)
