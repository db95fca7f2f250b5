"""Files of iBOT (arXiv 2111.07832): timm's names and `masked_embed`."""

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, SCALES, as_vit, published_heads
from backbones.naming import translate
from backbones.reading import RawCheckpoint

NAME = "iBOT's student or teacher"
EVIDENCE = Evidence.MARK

# Heads of ViT-Ti, ViT-S, ViT-B and ViT-L by width (models/vision_transformer.py of bytedance/ibot).
NUM_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16}
DROPPED = {**HEADS, r"masked_embed$": "token of masked patches, part of the pretraining"}


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm and iBOT's token of masked patches."""
    return shapes.is_timm_vit(raw.state) and "masked_embed" in raw.state


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the token of masked patches."""
    translated = translate(raw.path, raw.state, SCALES, DROPPED)
    return as_vit(raw, translated, method="ibot", **published_heads(translated, NUM_HEADS))
