"""Full files of DINO (arXiv 2104.14294), whose head tells them from timm's; its backbone files are like timm's (`timm_vit`)."""

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, as_vit, is_around, published_heads
from backbones.naming import translate
from backbones.reading import RawCheckpoint

NAME = "the student or teacher of a DINO training file"
EVIDENCE = Evidence.MARK

HEAD = r"(^|\.)head\.last_layer\."
# Heads of ViT-Ti, ViT-S and ViT-B by width (vision_transformer.py of facebookresearch/dino).
NUM_HEADS = {192: 3, 384: 6, 768: 12}
OTHERS = ("masked_embed", "mask_token", "register_tokens")


def recognise(raw: RawCheckpoint) -> bool:
    """Timm's names, DINO's head beside them, and none of the mask tokens of its successors."""
    return shapes.is_timm_vit(raw.state) and is_around(raw, HEAD) and not any(name in raw.state for name in OTHERS)


def convert(raw: RawCheckpoint) -> Converted:
    """The names are timm's."""
    translated = translate(raw.path, raw.state, {}, HEADS)
    return as_vit(raw, translated, method="dino", **published_heads(translated, NUM_HEADS))
