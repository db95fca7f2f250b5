"""Files with the names of timm's VisionTransformer: timm's own, DeiT, DINO, and fine-tuned MAE (`fc_norm`)."""

import re

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.reading import RawCheckpoint
from backbones.zoo.vit import spec_of

NAME = "a timm VisionTransformer or a file with its names (DeiT, DINO, fine-tuned MAE)"
EVIDENCE = Evidence.NAMES

# Not so for some of timm's files (`augreg`, `orig`, `sam`: 0.5); as timm:NAME they come with their own.
MEAN_ASSUMED = "ImageNet mean and std are assumed: the file does not say"

HEADS = {
    r"^head\.|^heads\.|^head_dist\.|^pre_logits\.": "classification head",
    r"^fc_norm\.": "norm after pooling, part of the classification head",
    r"^attn_pool\.": "attention pooling, part of the classification head",
}
"""Reasons to leave tensors out, by pattern."""


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm."""
    return shapes.is_timm_vit(raw.state)


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the head; bring the two spellings of LayerScale together."""
    dropped = {name: why for name in raw.state for pattern, why in HEADS.items() if re.match(pattern, name)}
    names = {name: re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name) for name in raw.state if name not in dropped}
    state = {new: raw.state[old] for old, new in names.items()}
    shapes.refuse_foreign(raw.path, state)
    arch = shapes.arch_of(raw.path, state)
    renamed = frozenset(new for old, new in names.items() if old != new)
    return Converted("vit", arch, spec_of(arch), state, renamed, dropped, (*shapes.assumptions(arch), MEAN_ASSUMED))
