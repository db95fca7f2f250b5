"""Files of MoCo v3 (arXiv 2104.02057): `module.base_encoder.` in its pretraining files, timm's names in all of them."""

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.formats import mae
from backbones.formats._common import as_vit, published_heads
from backbones.naming import translate
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "MoCo v3's encoder"
EVIDENCE = Evidence.MARK

DROPPED = {r"head\.": "projection head of the pretraining or classification head"}
# Heads of ViT-S and ViT-B by width; those of ViT-S are 32 wide (arXiv 2104.02057, section 5, and vits.py of moco-v3).
HEADS = {384: 12, 768: 12}
STEM = "patch_embed.proj.0.weight"


def recognise(raw: RawCheckpoint) -> bool:
    """Its prefix, its fixed positions (MAE's with the halves swapped), or its convolutional stem."""
    if any(name.endswith(STEM) for name in raw.state):
        return True
    # A Detectron2 file made of MoCo v3's has the positions and no class token.
    if not shapes.is_timm_vit(raw.state) or "masked_embed" in raw.state or "cls_token" not in raw.state:
        return False
    return "base_encoder." in raw.prefix or mae.has_sincos(raw.state["pos_embed"], swapped=True)


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the head."""
    if any(name.endswith(STEM) for name in raw.state):
        raise InputError(f"{raw.path}: has a convolutional stem, as MoCo v3's vit_conv_*, which is not supported")
    translated = translate(raw.path, raw.state, {}, DROPPED)
    return as_vit(raw, translated, method="mocov3", **published_heads(translated, HEADS))
