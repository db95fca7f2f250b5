"""Files of BEiT (arXiv 2106.08254), BEiT v2, data2vec-vision and SimMIM (arXiv 2111.09886), and timm's Beit.

They have a weight for queries, keys and values together, biases for queries and values, and tables of relative positions.
"""

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import BIASES, HEADS, MEAN_ASSUMED, SCALES, as_vit, drop_index, fuse_biases, is_around
from backbones.naming import translate
from backbones.reading import RawCheckpoint
from backbones.relative import TABLE

NAME = "BEiT, BEiT v2, data2vec-vision, SimMIM, or timm's Beit"
EVIDENCE = Evidence.MARK

# BEiT's own ImageNet-22K files want 0.5 (timm, models/beit.py); nothing in them says so.
MEAN_OF_BEIT = f"{MEAN_ASSUMED}; BEiT's first version was trained on 22K classes with 0.5"

DROPPED = {
    **HEADS,
    r"mask_token$": "token of masked patches, part of the pretraining",
    r"cls_pt_layers\.": "layers of BEiT v2's pretraining",
}


def recognise(raw: RawCheckpoint) -> bool:
    """Tables of relative positions, or biases of queries and values with positions and a plain MLP."""
    state = raw.state
    if not shapes.has_blocks(state):
        return False
    if f"blocks.0.attn.{TABLE}" in state or f"rel_pos_bias.{TABLE}" in state:
        return True
    return "blocks.0.attn.q_bias" in state and "blocks.0.mlp.fc1.weight" in state and "lm_head.weight" in state


def convert(raw: RawCheckpoint) -> Converted:
    """Make one bias of those of queries and values; keys have none."""
    dropped = {**drop_index(raw), **DROPPED}
    translated = translate(raw.path, raw.state, {**SCALES, **BIASES}, dropped)
    fuse_biases(translated)
    simmim = raw.prefix.endswith("encoder.") and is_around(raw, r"(^|\.)decoder\.0\.")
    if simmim:
        return as_vit(raw, translated, method="simmim")
    return as_vit(raw, translated, method=_method(raw), notes=(MEAN_OF_BEIT,))


def _method(raw: RawCheckpoint) -> str:
    """The method that a file's pretraining head is of: BEiT's tells visual words, data2vec's is as wide as the network."""
    head = raw.state.get("lm_head.weight")
    if head is not None and head.ndim == 2 and head.shape[0] == head.shape[1]:
        return "data2vec"
    return "beit" if head is not None or "cls_pt_layers.0.norm1.weight" in raw.state else "unknown"
