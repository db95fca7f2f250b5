"""Files of DINOv2 (arXiv 2304.07193), with registers too (arXiv 2309.16588)."""

import re

from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, as_vit, published_heads
from backbones.formats.hf_dinov2 import fold_class_position
from backbones.naming import translate
from backbones.reading import RawCheckpoint

NAME = "DINOv2's student or teacher"
EVIDENCE = Evidence.MARK

RULES = {
    r"register_tokens": "reg_token",
    # Training files keep blocks in chunks, and number them through: blocks.CHUNK.NUMBER.
    r"blocks\.\d+\.(\d+)\.mlp\.w12\.(.+)": r"blocks.\1.mlp.fc1.\2",
    r"blocks\.\d+\.(\d+)\.mlp\.w3\.(.+)": r"blocks.\1.mlp.fc2.\2",
    r"blocks\.\d+\.(\d+)\.(.+)": r"blocks.\1.\2",
    # Gate and value are in the order of timm's SwiGLUPacked.
    r"(blocks\.\d+\.mlp\.)w12\.(.+)": r"\1fc1.\2",
    r"(blocks\.\d+\.mlp\.)w3\.(.+)": r"\1fc2.\2",
}
# Heads of ViT-S, ViT-B, ViT-L and ViT-g by width (dinov2/models/vision_transformer.py of facebookresearch/dinov2).
NUM_HEADS = {384: 6, 768: 12, 1024: 16, 1536: 24}
DROPPED = {**HEADS, r"mask_token$": "token of masked patches, part of the pretraining"}


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm, or its MLP's own, and a flat mask token, registers or blocks in chunks."""
    state = raw.state
    if "pos_embed" not in state or any(name.startswith("decoder_") for name in state) or "storage_tokens" in state:
        return False
    if not any(re.match(r"blocks\.(\d+\.)?0\.attn\.qkv\.weight", name) for name in state):
        return False
    chunks = any(re.match(r"blocks\.\d+\.\d+\.attn\.qkv", name) for name in state)
    token = state.get("mask_token")
    return chunks or "register_tokens" in state or (token is not None and token.ndim == 2)


def convert(raw: RawCheckpoint) -> Converted:
    """Join the chunks; with registers, the class token takes its position along, since registers have none."""
    translated = translate(raw.path, raw.state, RULES, DROPPED)
    if "reg_token" in translated.state:
        fold_class_position(translated)
    return as_vit(raw, translated, method="dinov2", **published_heads(translated, NUM_HEADS))
