"""Files of the MAE release (arXiv 2111.06377): the encoder alone, or with its decoder.

The encoder has timm's names. A file is MAE's when it has the decoder, or MAE's fixed sine-cosine positions and neither a head nor
the parts of another method.
"""

import math

import torch
from torch import Tensor

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import as_vit, is_around, published_heads
from backbones.naming import translate
from backbones.positions import sincos_2d
from backbones.reading import RawCheckpoint

NAME = "MAE's pretrained encoder, with or without its decoder"
EVIDENCE = Evidence.MARK

# Heads of ViT-B, ViT-L and ViT-H by width (models_mae.py of facebookresearch/mae).
HEADS = {768: 12, 1024: 16, 1280: 16}
DECODER = r"(^|[._])decoder([._]|$)"
DROPPED = {r"decoder_|mask_token$": "decoder of the pretraining"}
# Two tables made by different programs differ in the last digits of float32, or of float16 where one was stored so.
TOLERANCE = 2e-3


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm with a decoder, or without a head and with MAE's positions."""
    # A Detectron2 file made of MAE's has the positions and no class token.
    if not shapes.is_timm_vit(raw.state) or "cls_token" not in raw.state:
        return False
    if any(name.startswith("decoder_blocks.") for name in raw.state):
        return True
    # Other methods begin with these positions, too (lightly's): beside theirs there are projection heads, and no decoder.
    if raw.shapes and not is_around(raw, DECODER):
        return False
    marks = ("head.", "fc_norm.", "masked_embed")
    return not any(name.startswith(marks) for name in raw.state) and has_sincos(raw.state["pos_embed"])


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the decoder."""
    translated = translate(raw.path, raw.state, {}, DROPPED)
    return as_vit(raw, translated, method="mae", **published_heads(translated, HEADS))


def has_sincos(positions: Tensor, *, swapped: bool = False) -> bool:
    """Whether positions are MAE's table, with a row of zeros for the class token; or MoCo v3's, which has the halves swapped."""
    rows, width = positions.shape[1:]
    side = math.isqrt(max(rows - 1, 0))
    if width % 4 or side * side != rows - 1 or side < 2:
        return False
    table = sincos_2d(width, (side, side), num_prefix=1)
    if swapped:
        table = table.roll(width // 2, dims=-1)
    return bool(torch.allclose(positions.float(), table, rtol=0, atol=TOLERANCE))
