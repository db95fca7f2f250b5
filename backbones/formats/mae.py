"""Files of the MAE release (arXiv 2111.06377): the encoder alone, or with its decoder.

The encoder has timm's names. A file is MAE's when it has the decoder, or no head and MAE's fixed sine-cosine positions.
"""

import math
import re

import torch
from torch import Tensor

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.positions import sincos_2d
from backbones.reading import RawCheckpoint
from backbones.zoo.vit import spec_of

NAME = "MAE's pretrained encoder, with or without its decoder"
EVIDENCE = Evidence.MARK

DECODER = r"^decoder_|^mask_token$"
# Two tables made by different programs differ in the last digits of float32, or of float16 where one was stored so.
TOLERANCE = 2e-3


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm with a decoder, or without a head and with MAE's positions."""
    if not shapes.is_timm_vit(raw.state):
        return False
    if any(name.startswith("decoder_blocks.") for name in raw.state):
        return True
    return not any(name.startswith(("head.", "fc_norm.")) for name in raw.state) and _has_sincos(raw.state["pos_embed"])


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the decoder."""
    dropped = {name: "decoder of the pretraining" for name in raw.state if re.match(DECODER, name)}
    state = {name: tensor for name, tensor in raw.state.items() if name not in dropped}
    shapes.refuse_foreign(raw.path, state)
    arch = shapes.arch_of(raw.path, state)
    return Converted("vit", arch, spec_of(arch, method="mae"), state, dropped=dropped, notes=shapes.assumptions(arch))


def _has_sincos(positions: Tensor) -> bool:
    """Whether positions are MAE's table, with a row of zeros for the class token."""
    rows, width = positions.shape[1:]
    side = math.isqrt(max(rows - 1, 0))
    if width % 4 or side * side != rows - 1:
        return False
    table = sincos_2d(width, (side, side), num_prefix=1)
    return bool(torch.allclose(positions.float(), table, rtol=0, atol=TOLERANCE))
